"""Verification bites: every kind of defect that an exporter could have is caught, and its file is not kept.

The checkpoint is small and right; the ONNX model is spoiled just before it is written. The export must end with exit
code 1, a message and a table, and nothing under the final name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimexport import job
from slimexport.dense import dense_network
from slimexport.target.bundle_writer import BundleWriter
from slimtrain.data.noise import noise_images
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_defects import caught, edit, export
from tests.support.export_helpers import (
    corrupt,
    edit_weight,
    negate_largest,
    opened,
    refused,
    small_spec,
    tree,
    write_checkpoint,
)

LAYERS = ("features.0.0", "features.4.body.0", "features.7.body.3", "features.13.body.3", "classifier.0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("bites") / "small.pt")


def test_the_same_export_without_a_defect_passes(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "b").code == 0
    assert len(list((tmp_path / "b").glob("*.onnx"))) == 2


@pytest.mark.parametrize("layer", LAYERS)
def test_one_flipped_weight_is_caught(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    corrupt(monkeypatch, edit(f"{layer}.weight", negate_largest))
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")


@pytest.mark.parametrize("layer", LAYERS)
def test_one_flipped_bias_is_caught(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    corrupt(monkeypatch, edit(f"{layer}.bias", negate_largest))
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")


def test_any_median_weight_of_the_first_convolution_is_caught_when_it_is_flipped(checkpoint: Path) -> None:
    """Not the largest: the sign of each weight of middling size, one at a time, against the default tolerance."""
    opening = opened(checkpoint)
    plan = opening.spec.plan(0.5)
    images = torch.from_numpy(noise_images(2, 64, 1))
    dense = dense_network(opening.network, plan)
    with torch.inference_mode():
        expected = dense(images)
        flat = dense.get_submodule("features.0.0").weight.view(-1)  # type: ignore[operator]
        order = flat.abs().argsort()
        errors = []
        for index in order[len(order) // 2 - 10 : len(order) // 2 + 10]:
            flat[index] *= -1
            errors.append((torch.max(torch.abs(dense(images) - expected)) / torch.max(torch.abs(expected))).item())
            flat[index] *= -1
    assert min(errors) > 10 * 1e-4


@pytest.mark.parametrize("family", ["s", "us"])
@pytest.mark.parametrize("which", ["features.6.body.1", ""], ids=["one norm", "all norms"])
def test_the_norm_of_the_wrong_switch_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, which: str
) -> None:
    """Width 0.25 with the leading part of what the norms of width 0.5 hold."""
    path = write_checkpoint(tmp_path / "x.pt", small_spec(family))

    def with_wrong_norms(network: SlimmableNetwork, plan: ChannelPlan) -> dict[str, Tensor]:
        own, wide = (stored_tensors(network, p) for p in (plan, network.spec.plan(0.5)))
        norms = {key.rpartition(".")[0] for key in own if key.endswith("running_mean") and key.startswith(which)}
        return {key: wide[key][: len(t)] if key.rpartition(".")[0] in norms else t for key, t in own.items()}

    monkeypatch.setattr(job, "stored_tensors", with_wrong_norms)
    outcome = export(path, tmp_path / "b", "--widths", "0.25")
    refused(outcome, 1, "x0_25: failed", "Nothing was written.")
    assert sorted(tree(tmp_path)) == ["x.pt"]


def test_an_inverted_channel_order_is_caught(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(array: NDArray[Any]) -> None:
        array[:] = array[:, ::-1].copy()

    corrupt(monkeypatch, edit("features.0.0.weight", invert))  # the image's: BGR for RGB
    caught(export(checkpoint, tmp_path / "rgb", "--widths", "0.5"), tmp_path / "rgb")
    monkeypatch.undo()
    corrupt(monkeypatch, edit("features.5.body.3.weight", invert))
    caught(export(checkpoint, tmp_path / "inner", "--widths", "0.5"), tmp_path / "inner")


def test_two_swapped_classes_are_caught(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(array: NDArray[Any]) -> None:
        array[[2, 7]] = array[[7, 2]]

    corrupt(monkeypatch, edit("classifier.0.weight", swap))
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_caught_and_named_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    def spoil(array: NDArray[Any]) -> None:
        array.reshape(-1)[0] = bad

    corrupt(monkeypatch, edit("classifier.0.weight", spoil))
    outcome = export(checkpoint, tmp_path / "b", "--widths", "0.5")
    caught(outcome, tmp_path / "b")
    assert "not finite" in outcome.err and "not finite" in outcome.out


def test_a_missing_activation_is_caught(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclip(model: onnx.ModelProto) -> None:
        """ReLU6 becomes ReLU."""
        for tensor in model.graph.initializer:
            if tensor.raw_data == np.float32(6).tobytes():
                tensor.raw_data = np.float32(1e30).tobytes()

    corrupt(monkeypatch, unclip)
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")


def test_a_file_that_is_right_at_batch_1_only_is_caught(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something over the whole batch, such as a norm with batch statistics: each logit becomes the batch's largest."""

    def couple(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.node[-1].output[0] = "logits"
        nodes = [
            onnx.helper.make_node("ReduceMax", ["logits"], ["most"], axes=[0], keepdims=1),
            onnx.helper.make_node("Max", ["logits", "most"], ["output"]),  # at batch 1 the logits themselves
        ]
        graph.node.extend(nodes)

    corrupt(monkeypatch, couple)
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")


def test_what_is_verified_is_the_file_on_the_disk(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that the exporter holds is right; what it wrote is not."""
    real = BundleWriter.write

    def write(self: BundleWriter, name: str, content: bytes) -> Path:
        if name.endswith(".onnx"):
            model = onnx.load_model_from_string(content)
            edit_weight(model, "features.0.0.weight", negate_largest)
            content = model.SerializeToString()
        return real(self, name, content)

    monkeypatch.setattr(BundleWriter, "write", write)
    caught(export(checkpoint, tmp_path / "b", "--widths", "0.5"), tmp_path / "b")
