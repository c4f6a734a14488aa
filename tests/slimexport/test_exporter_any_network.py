"""A user's network through the whole export: files, proofs, predictions, and plans of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from slimexport import export, materialize, open_network
from slimexport.request import CalibrationImages, Proof
from slimtrain.base.errors import UserError, WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.program import DROP_PATH
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.data_sets import write_classes
from tests.support.user_networks import images, network

STATISTICS = (0.5, 0.5, 0.5)


def checkpoint(name: str, folder: Path) -> Path:
    result = make_slimmable(network(name), images(2), name="mine")
    calibrate(result, [result.plan(0.5)], [images(8)])
    path = folder / "mine.pt"
    save(own_content(result, 16, STATISTICS, STATISTICS, tuple("abcdefg")), path)
    return path


@pytest.mark.parametrize("name", ["gate", "split", "transformer", "standardized", "concatenation", "recurrent"])
def test_every_width_is_written_and_proven(name: str, tmp_path: Path) -> None:
    path = checkpoint(name, tmp_path)
    manifest = export(path, widths=[0.5, 1.0], precisions=["fp32", "fp16"], output_dir=tmp_path / "bundle")
    assert [a.verification.status for a in manifest.artifacts] == ["passed"] * 4
    assert manifest.source.network == "us_mine" and manifest.output.class_names == tuple("abcdefg")
    opened = open_checkpoint(path).network
    x = images(3)
    for width in (0.5, 1.0):
        with open_network(tmp_path / "bundle", width) as runner:
            logits = np.asarray(runner(x.numpy()))
        with opened.at(opened.plan(width)), torch.no_grad():
            expected = opened(x).numpy()
        assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
        with torch.no_grad():
            assert np.allclose(materialize(path, width)(x).numpy(), expected, atol=1e-5)


def test_recurrent_layers_are_written_with_fewer_bits(tmp_path: Path) -> None:
    path, folder = checkpoint("recurrent", tmp_path), tmp_path / "images"
    write_classes(folder, list("abcdefg"), ["a.png", "b.png"])
    manifest = export(
        path,
        widths=[0.5],
        precisions=["bf16", "int8"],
        calibration=CalibrationImages(folder, most=16),
        output_dir=tmp_path / "bundle",
    )
    statuses = {artifact.precision: artifact.verification.status for artifact in manifest.artifacts}
    assert statuses == dict.fromkeys(("bf16", "int8-cpu", "int8", "int8-fp16"), "passed")


def test_the_manifest_s_costs_are_the_graph_s(tmp_path: Path) -> None:
    manifest = export(checkpoint("plain", tmp_path), widths=[1.0], output_dir=tmp_path / "bundle", proof=Proof(verify=False))
    (artifact,) = manifest.artifacts
    assert artifact.macs == 3 * 16 * 9 * 256 + 16 * 32 * 9 * 64 + 32 * 7
    assert artifact.params == 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 32 * 7 + 7
    assert abs(artifact.size_bytes - 4 * artifact.params) < 5000


def test_another_image_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="traced with images of 16 pixels"):
        export(checkpoint("plain", tmp_path), widths=[1.0], image_size=32, output_dir=tmp_path / "bundle")


def test_a_width_without_statistics_is_refused_with_the_way_on(tmp_path: Path) -> None:
    path = checkpoint("plain", tmp_path)
    with pytest.raises(WidthError, match="--calibration-data"):
        export(path, widths=[0.75], output_dir=tmp_path / "bundle")
    opened: Checkpoint = open_checkpoint(path)
    with pytest.raises(WidthError, match=r"slimtrain\.calibrate"):
        opened.network.dense(0.75)


class Branch(nn.Module):
    """A residual branch with stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, 7)
        self.drop = StochasticDepth(0.3, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        result: Tensor = self.head((x + self.drop(self.branch(x))).mean((2, 3)))
        return result


def test_branches_that_drop_in_training_are_nothing_in_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = make_slimmable(Branch().eval(), images(2), name="mine")
    save(own_content(result, 16, STATISTICS, STATISTICS), tmp_path / "mine.pt")
    manifest = export(tmp_path / "mine.pt", widths=[0.5, 1.0], output_dir=tmp_path / "bundle")
    assert [artifact.verification.status for artifact in manifest.artifacts] == ["passed", "passed"]
    spec = open_checkpoint(tmp_path / "mine.pt").spec
    assert isinstance(spec, GraphSpec) and any(node.op == DROP_PATH for node in spec.graph.nodes)
