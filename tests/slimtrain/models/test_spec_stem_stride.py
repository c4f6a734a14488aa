"""`stem_stride: 1`, for small images: the first convolution keeps the resolution, and nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimexport.dense import dense_network
from slimexport.exporter import export
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.identify import identify
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.costs.cost import CostCounter
from slimtrain.models.spec import NetworkSpec
from tests.support.run_helpers import AUTO, S2, US1, calibrated_network, network_of, noise, same_state
from tests.support.specs import spec_of

SPECS = {
    "us_mobilenet_v1": US1,
    "s_mobilenet_v2": dataclasses.replace(S2, stem_stride=1),
    "autoslim_mobilenet_v1": dataclasses.replace(AUTO, stem_stride=1),
    "s_resnet50": NetworkSpec("resnet50", "s", (0.125, 0.25), 5, stem_stride=1),
    "s_shufflenet": NetworkSpec("shufflenet", "s", (0.5,), 5, stem_stride=1),
}
HEADS = {"s_shufflenet": ("head_0.0", "head_1.0", "head_2.0")}


def first_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Those that read the images."""
    return [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[1] == 3 and m.groups == 1]


@pytest.mark.parametrize("name", list(SPECS))
def test_only_the_first_convolution_changes(name: str) -> None:
    """The published network, its stem's stride set to 1 by hand, computes the same."""
    spec = SPECS[name]
    small, published = network_of(spec), network_of(dataclasses.replace(spec, stem_stride=2))
    same_state(small.state_dict(), published.state_dict())  # keys, shapes and values know no strides
    for plan in spec.plans:
        with torch.inference_mode(), small.at(plan), published.at(plan):
            assert not torch.allclose(small(noise(2, 64)), published(noise(2, 64)), atol=1e-4)
    for plan in spec.plans:
        dense = dense_network(published, plan, fold=False)
        stems = first_convolutions(dense)
        assert len(stems) == (3 if name == "s_shufflenet" else 1)
        for stem in stems:
            assert stem.stride == (2, 2)
            stem.stride = (1, 1)
        with torch.inference_mode(), small.at(plan):
            assert torch.equal(small(noise(2, 64)), dense(noise(2, 64)))


@pytest.mark.parametrize("name", list(SPECS))
def test_macs_are_those_of_twice_the_resolution_but_for_the_stem(name: str) -> None:
    """A stem of stride 1 at 32 pixels hands on what one of stride 2 at 64 does: the costs are the same."""
    spec = SPECS[name]
    small, published = CostCounter(spec, 32), CostCounter(dataclasses.replace(spec, stem_stride=2), 64)
    for plan in spec.plans:
        a, b = small(plan), published(plan)
        assert (a.macs, a.params) == (b.macs, b.params)


@pytest.mark.parametrize("name", list(SPECS))
def test_images_half_as_large_will_do(name: str) -> None:
    spec = SPECS[name]
    assert spec.stride == 16 and dataclasses.replace(spec, stem_stride=2).stride == 32
    spec.check_image_size(16)
    with pytest.raises(UserError, match="at least 16 pixels"):
        spec.check_image_size(15)
    network = network_of(spec)
    if name != "s_shufflenet":  # whose unpadded pool takes a pixel more
        with torch.inference_mode():
            assert network(noise(2, 16)).shape == (2, spec.classes)


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "s_mobilenet_v2", "s_resnet50"])
def test_it_goes_through_checkpoint_dense_network_and_onnx(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    network = calibrated_network(spec)
    save(own_content(network, 32, (0.5,) * 3, (0.5,) * 3), tmp_path / "own.pt")
    checkpoint = open_checkpoint(tmp_path / "own.pt")
    assert spec_of(checkpoint).stem_stride == 1
    for plan in spec.plans:
        dense = dense_network(checkpoint.network, plan)
        assert [conv.stride for conv in first_convolutions(dense)] == [(1, 1)]
    manifest = export(checkpoint, output_dir=tmp_path / "bundle")
    stored = np.load(tmp_path / "bundle" / "reference.npz")
    for artifact, plan in zip(manifest.artifacts, sorted(spec.plans, key=lambda p: p.width or 0), strict=True):
        assert artifact.verification.status == "passed"
        model = onnx.load(str(tmp_path / "bundle" / artifact.file))
        stem = next(node for node in model.graph.node if node.op_type == "Conv")
        assert [list(a.ints) for a in stem.attribute if a.name == "strides"] == [[1, 1]]
        with torch.inference_mode(), network.at(plan):
            expected = network(torch.from_numpy(stored["images"])).numpy()
        assert np.abs(stored[f"logits_{plan.name}"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_bare_state_dict_is_taken_for_the_published_stride() -> None:
    """Nothing in it tells: which is why the published layout is refused for a stem stride of 1."""
    state = network_of(US1).state_dict()
    assert identify(state, "weights.pt") == dataclasses.replace(US1, stem_stride=2)
