"""Checkpoints of detectors: what they are beside their weights comes back with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import slimtrain
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.reading import read_content
from slimtrain.detection.making import slimmable_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.small_detectors import small_detector


def slimmable_small() -> SlimmableNetwork:
    return slimmable_detector(small_detector(FASTER), (0.5, 1.0), image_size=64, check=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detectors") / "mine.pt"
    slimtrain.save(slimmable_small(), path, image_size=(64, 96))
    return path


def test_a_detector_comes_back_as_it_was(saved: Path) -> None:
    before, checkpoint = slimmable_small(), slimtrain.open_checkpoint(saved)
    assert isinstance(before.spec, GraphSpec) and isinstance(checkpoint.spec, GraphSpec)
    assert checkpoint.spec.detector == before.spec.detector is not None
    assert checkpoint.image_size == (64, 96)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(checkpoint.network.state_dict()[name], value)


def test_damaged_settings_are_refused(saved: Path, tmp_path: Path) -> None:
    content = read_content(saved)
    content["network"]["detector"]["kind"] = "yolo"
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="yolo"):
        slimtrain.open_checkpoint(tmp_path / "bad.pt")


def test_images_whose_sides_no_stride_divides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiples of"):
        slimtrain.save(slimmable_small(), tmp_path / "mine.pt", image_size=(64, 100))
