"""Published detectors' files as checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import slimtrain
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.detection.opening import coco_class_names
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER
from tests.reference.detection import make_detection
from tests.support.exported_detectors import detector_checkpoint


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("opening") / "faster_rcnn.pth"
    state = {f"module.{key}": torch.from_numpy(value) for key, value in make_detection.state_dict("faster").items()}
    torch.save({"meta": {"epoch": 12}, "state_dict": state, "optimizer": None}, path)
    return path


def test_a_published_detector_is_a_checkpoint(published: Path) -> None:
    checkpoint = slimtrain.open_checkpoint(published)
    spec = checkpoint.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    assert (spec.name, spec.detector.kind, spec.classes) == ("s_faster_rcnn_resnet50", FASTER, 80)
    assert (checkpoint.file, checkpoint.image_size, checkpoint.described) == ("faster_rcnn.pth", (800, 1344), True)
    assert len(checkpoint.sha256 or "") == 64
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # the published configuration's, of values to 255
    assert checkpoint.mean == pytest.approx([value / 255 for value in mean], abs=1e-9)
    assert checkpoint.std == pytest.approx([value / 255 for value in std], abs=1e-9)
    assert checkpoint.class_names[0] == "person" and checkpoint.class_names[-1] == "toothbrush"
    assert len(checkpoint.class_names) == 80 and not checkpoint.network.training
    spec.check_image_size(checkpoint.image_size)
    weight = torch.from_numpy(make_detection.state_dict("faster")["backbone.bn1.bn.2.weight"])
    assert torch.equal(checkpoint.network.state_dict()["backbone.body.bn1.bn.2.weight"], weight)


def test_what_it_says_itself_is_not_told(published: Path) -> None:
    with pytest.raises(UserError, match=r"says itself what it is. Leave --network, --switches out"):
        slimtrain.open_checkpoint(published, network="s_resnet50", switches=(0.5, 1.0))


def test_a_network_that_our_own_detector_is_not_is_refused(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path)
    name = slimtrain.open_checkpoint(path).spec.name
    assert slimtrain.open_checkpoint(path, network=name).spec.name == name
    said = rf"{FASTER}\.pt: holds a {name}, a detector, not a us_mobilenet_v1\. Leave --network out"
    with pytest.raises(CheckpointError, match=said):
        slimtrain.open_checkpoint(path, network="us_mobilenet_v1")


def test_one_opened_twice_shares_nothing(published: Path) -> None:
    first, second = (slimtrain.open_checkpoint(published).network for _ in range(2))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(parameter.any() for name, parameter in second.named_parameters() if name.endswith("conv1.weight"))


def test_other_numbers_of_classes_have_no_names_of_coco_s() -> None:
    assert coco_class_names(79) == () and len(set(coco_class_names(80))) == 80


def test_absurd_sizes_are_refused_before_anything_is_made_of_them(tmp_path: Path) -> None:
    state = {key: torch.from_numpy(value) for key, value in make_detection.state_dict("faster").items()}
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(200_000, 1, 1, 1)
    del state["bbox_head.shared_fcs.1.weight"]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd.pth: looks like .* 200000 channels in its neck, 0 in its box head"):
        slimtrain.open_checkpoint(tmp_path / "odd.pth")
