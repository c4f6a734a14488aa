"""Published detectors, against what the published modules compute (tests/reference/detection)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.detection.making import NECK_AND_HEADS
from slimtrain.detection.published import PublishedDetector, identified, published_detector, read_published_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, MASK, PUBLISHED
from tests.reference import make_checkpoint
from tests.reference.detection import make_detection

SWITCHES = (0.25, 0.5, 0.75, 1.0)
SCALE = 1e-5  # of the largest value: what may differ


def state(kind: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in make_detection.state_dict(kind).items()}


@pytest.fixture(scope="module")
def states() -> dict[str, Tensor]:
    return state("mask")


@pytest.fixture(scope="module")
def detector(states: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> PublishedDetector:
    path = tmp_path_factory.mktemp("published") / "mask_rcnn.pth"
    torch.save({"meta": {"epoch": 12}, "state_dict": states, "optimizer": None}, path)
    return read_published_detector(path)


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, np.ndarray]]:
    with np.load(Path(make_detection.__file__).parent / "golden.npz") as file:
        yield dict(file)


def same(result: Tensor, expected: np.ndarray) -> bool:
    array = result.detach().numpy()
    assert array.shape == expected.shape
    return bool(np.abs(array - expected).max() <= SCALE * np.abs(expected).max())


@pytest.mark.parametrize("width", SWITCHES)
def test_maps_and_proposals_are_the_published_ones(
    detector: PublishedDetector, golden: dict[str, np.ndarray], width: float
) -> None:
    network, image = detector.network, torch.from_numpy(make_detection.image())
    regions = torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]])
    with network.at(network.plan(width)), torch.no_grad():
        outputs = network(image, regions, regions)
    for level in range(5):
        assert same(outputs[f"objectness{level}"], golden[f"{width}_rpn_cls{level}"])
        assert same(outputs[f"deltas{level}"], golden[f"{width}_rpn_reg{level}"])
    for level in range(4):  # the fifth is the fourth's every second place, which proposals are computed from
        assert same(outputs[f"map{level}"][:, ::16], golden[f"{width}_fpn{level}"])


@pytest.mark.parametrize("width", SWITCHES)
def test_heads_are_the_published_ones_at_every_switch(
    detector: PublishedDetector, golden: dict[str, np.ndarray], width: float
) -> None:
    boxes, masks = map(torch.from_numpy, make_detection.rois())
    part = detector.network.dense(width).get_submodule
    with torch.no_grad():
        x = part("roi_heads.box_head.fc7")(part("roi_heads.box_head.fc6")(boxes.flatten(1)).relu()).relu()
        assert same(part("roi_heads.box_predictor.cls_score")(x), golden["box_cls"])
        assert same(part("roi_heads.box_predictor.bbox_pred")(x), golden["box_reg"])
        for layer in range(4):
            masks = part(f"roi_heads.mask_head.{layer}.0")(masks).relu()
        enlarging: Any = part("roi_heads.mask_predictor.conv5_mask")
        masks = functional.conv_transpose2d(masks, enlarging.weight, enlarging.bias, 2).relu()
        assert same(part("roi_heads.mask_predictor.mask_fcn_logits")(masks)[:, ::8], golden["mask"])


def test_it_is_known_by_keys_and_shapes(detector: PublishedDetector, states: dict[str, Tensor]) -> None:
    assert len(states) == 1155 and len(state("faster")) == 1143
    settings = detector.settings
    assert (settings.kind, settings.classes, settings.convention) == (MASK, 80, PUBLISHED)
    assert (settings.proposals.top_k, settings.proposals.kept) == (2000, 2000)
    spec = detector.network.spec
    assert isinstance(spec, GraphSpec) and spec.name == "s_mask_rcnn_resnet50" and spec.switches == SWITCHES
    assert not any(group.name.startswith(NECK_AND_HEADS) for group in spec.groups.groups)
    settings, switches = identified(state("faster"), "faster.pth")
    assert (settings.kind, settings.mask, switches) == (FASTER, None, SWITCHES)


def test_damage_is_named_by_the_file_s_own_keys(states: dict[str, Tensor]) -> None:
    left_out = ("neck.fpn_convs.2.conv.bias", "num_batches_tracked")  # old versions of torch counted no batches
    damaged = {f"module.{key}": tensor for key, tensor in states.items() if not key.endswith(left_out)}
    damaged["module.rpn_head.rpn_reg.weight"] = torch.zeros(8, 256, 1, 1)
    damaged["module.neck.fpn_convs.4.conv.bias"] = torch.zeros(256)
    torch.manual_seed(5)
    with pytest.raises(CheckpointError) as caught:
        published_detector(damaged, "damaged.pth")
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)  # what it draws on the way is none of the caller's concern
    message = str(caught.value)
    assert "num_batches_tracked" not in message
    assert "missing: backbone.fpn.layer_blocks.2.0.bias" in message
    assert "rpn_head.rpn_reg.weight is [8, 256, 1, 1], expected [12, 256, 1, 1]" in message
    assert "unknown: neck.fpn_convs.4.conv.bias" in message


def test_norms_of_no_widths_are_refused(states: dict[str, Tensor]) -> None:
    odd = {**states, "backbone.bn1.bn.0.weight": torch.ones(17)}
    with pytest.raises(CheckpointError, match=r"the first norms have 17, 32, 48, 64 channels"):
        identified(odd, "odd.pth")


def test_values_that_are_none_are_refused(states: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in rpn_head.rpn_cls.bias"):
        published_detector({**states, "rpn_head.rpn_cls.bias": torch.full((3,), float("nan"))}, "nan.pth")


def test_a_classifier_is_no_detector(tmp_path: Path) -> None:
    tensors = {key: torch.from_numpy(value) for key, value in make_checkpoint.state_dict("s_mobilenet_v1").items()}
    torch.save(tensors, tmp_path / "classifier.pt")
    with pytest.raises(CheckpointError, match=r"classifier.pt: holds .* the weights of a classifier. Expected a published"):
        read_published_detector(tmp_path / "classifier.pt")


def test_a_detector_is_no_classifier(states: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"meta": {}, "state_dict": states, "optimizer": None}, tmp_path / "detector.pth")
    with pytest.raises(
        CheckpointError, match=r"detector.pth: is a slimmable detector, with 1155 entries"
    ):  # by what reads those
        open_checkpoint(tmp_path / "detector.pth")
