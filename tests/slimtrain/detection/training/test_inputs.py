"""A configuration's images with objects: how many, how large, and which a checkpoint carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.base.packages import is_installed
from slimtrain.data.detection.coco import DetectionData
from slimtrain.detection.training.inputs import (
    DetectionImages,
    carried_scenes,
    data_of,
    framed,
    test_transform_of,
    train_transform_of,
)
from tests.support.coco_folders import annotation, content, write_coco
from tests.support.detector_runs import detector_config
from tests.support.run_helpers import ALONE


def images_of(folder: Path, **changes: Any) -> DetectionImages:
    config = detector_config(folder, **changes)
    return DetectionImages(config, data_of(config), ALONE, 16)


def test_batches_begin_where_a_run_left_off_and_tests_see_every_scene_once(tmp_path: Path) -> None:
    images = images_of(tmp_path)
    batches = list(images.training())
    assert [batch.step for batch in batches] == list(range(6)) and {len(batch.targets) for batch in batches} == {4}
    later = list(images.training(4))
    assert [batch.step for batch in later] == [4, 5] and all(
        torch.equal(a.images, b.images) for a, b in zip(later, batches[4:], strict=True)
    )
    tested = [target.image_id for batch in images.testing() for target in batch.targets]
    assert tested == [0, 1, 2, 3]
    assert len(list(images.calibrating())) == 0 and "0 batches of 4 of the 12" in images.describe_calibration()


def test_one_of_several_sides_is_drawn_and_the_last_one_tests(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)]))
    own = {"scales": [16, 32], "longest": 50}
    images = images_of(tmp_path, data="coco", data_dir=str(tmp_path / "coco"), batch_size=1, epochs=8, detector=own)
    heights = {target.height for batch in images.training() for target in batch.targets}
    widths = {target.width for batch in images.training() for target in batch.targets}
    assert heights == {16, 25} and widths == {32, 50}, "20 x 10 pixels, the longer side of at most 50"
    (batch,) = images.testing() if images.config.test_batch_size else list(images.testing())[:1]
    assert (batch.targets[0].height, batch.targets[0].width) == (25, 50) and batch.images.shape[2:] == (32, 64)
    assert (batch.originals[0].height, batch.originals[0].width) == (10, 20)


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_masks_and_keypoints_are_read_for_those_who_learn_them(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)]))
    config = detector_config(tmp_path, network="s_mask_rcnn", data="coco", data_dir=str(folder))
    assert data_of(config).train.targets(0).masks is not None
    plain = detector_config(tmp_path, data="coco", data_dir=str(folder))
    data = data_of(plain)
    assert data.train.targets(0).masks is None
    assert train_transform_of(plain, data).mirror == 0.5 and test_transform_of(plain).mirror == 0


def test_everybody_s_scenes_are_carried_and_nobody_s_own_photographs(tmp_path: Path) -> None:
    scenes = detector_config(tmp_path)
    samples = data_of(scenes).test
    carried = carried_scenes(scenes, samples)
    assert carried is not None and carried.shape == (4, 3, 64, 64) and carried.dtype == torch.uint8
    assert torch.equal(carried[1], torch.as_tensor(samples.image(1)))
    assert carried_scenes(detector_config(tmp_path, probe_images="no"), samples) is None
    folder = write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)]))
    config = detector_config(tmp_path, data="coco", data_dir=str(folder))
    data: DetectionData = data_of(config)
    assert carried_scenes(config, data.test) is None
    asked = carried_scenes(detector_config(tmp_path, data="coco", data_dir=str(folder), probe_images="yes"), data.test)
    assert asked is not None and asked.shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("size", "width", "height"), [(64, 64, 32), ((32, 96), 64, 32), ((8, 40), 16, 8)])
def test_a_photograph_is_as_large_as_it_can_be_with_black_beside(
    tmp_path: Path, size: int | tuple[int, int], width: int, height: int
) -> None:
    """Of 20 x 10 pixels."""
    folder = write_coco(tmp_path / "coco", content([annotation(1)], images=1))
    white = np.full((10, 20, 3), 255, np.uint8)
    Image.fromarray(white).save(folder / "val2017" / "001.png")
    samples = data_of(detector_config(tmp_path, data="coco", data_dir=str(folder))).test
    image = framed(samples, 0, size)
    assert (image[:, :height, :width] == 255).all() and not image[:, height:].any() and not image[:, :, width:].any()
