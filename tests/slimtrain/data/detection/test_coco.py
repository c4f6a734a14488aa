"""Folders of COCO's files: found in every layout, opened as they say, their defects told of in one warning."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.data.detection.coco import CocoSamples, mirrored, open_coco, open_coco_file
from slimtrain.data.opening import ImageRefused
from tests.support.coco_folders import annotation, content, write_coco, write_images


def test_coco_s_own_layout_is_read(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="the extra detection is not installed")
    crowd = annotation(2, 1, iscrowd=1, segmentation={"size": [10, 20], "counts": [0, 200]}, category_id=3)
    folder = write_coco(tmp_path, content([annotation(1), crowd, annotation(3, 2, iscrowd=1)], images=3))
    data = open_coco(folder, masks=True)
    assert data.classes == ("cat", "dog") and len(data.test) == 3
    assert len(data.train) == 1, "the others show nothing, or a crowd alone"
    assert data.train.name(0) == str(folder / "train2017" / "001.png")
    image, targets = data.train.image(0), data.train.targets(0)
    assert isinstance(image, Image.Image) and image.size == (targets.width, targets.height) == (20, 10)
    assert targets.labels.tolist() == [2, 1] and targets.crowd.tolist() == [False, True] and targets.image_id == 1
    assert targets.masks is not None and targets.masks.shape == (2, 10, 20) and targets.masks[1].all()
    square = np.zeros((10, 20), bool)
    square[2:8, 2:8] = True
    assert (targets.masks[0].numpy() == square).all()
    empty = data.test.targets(2)
    assert len(empty) == 0 and empty.boxes.shape == (0, 4)
    assert empty.masks is not None and empty.masks.shape == (0, 10, 20)


@pytest.mark.parametrize(
    ("files", "images"),
    [
        ("{}.json", "{}"),
        ("{}.json", "images"),
        ("{}.json", "images/{}"),
        ("{}.json", "."),
        ("annotations/{}.json", "images"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_other_layouts_are_read(tmp_path: Path, files: str, images: str) -> None:
    for split in ("train", "val"):
        path = tmp_path / files.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content([annotation(1)])))
        write_images(tmp_path / images.format(split))
    data = open_coco(tmp_path)
    assert Path(data.train.name(0)) == tmp_path / images.format("train") / "001.png"
    assert Path(data.test.name(1)) == tmp_path / images.format("val") / "002.png"
    assert data.train.targets(0).masks is None and data.train.targets(0).keypoints is None


def test_all_defects_of_a_file_are_told_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = content([annotation(1), annotation(2, bbox=[1, 1, 0, 0]), annotation(3, category_id=99)], images=3)
    folder = write_coco(tmp_path, value, content([annotation(1)]))
    (folder / "train2017" / "003.png").unlink()
    with caplog.at_level(logging.WARNING):
        data = open_coco(folder)
    (record,) = caplog.records
    path = folder / "annotations" / "instances_train2017.json"
    assert record.getMessage() == (
        f"{path}: 3 entries are broken and left out: boxes of no size: 1 (annotation 2: [1, 1, 0, 0]); annotations of "
        f"unknown categories: 1 (annotation 3: 99); images that are not in {folder / 'train2017'}: 1 (image 3: '003.png')."
    )
    assert len(data.train) == 1


def test_keypoints_come_with_the_pairs_that_a_mirror_exchanges(tmp_path: Path) -> None:
    names = ["nose", "left_eye", "right_eye", "right_ear", "left_ear", "left_tail"]
    value: dict[str, Any] = content([annotation(1, keypoints=[1, 1, 2] * 6)])
    value["categories"] = [{"id": 7, "name": "person", "keypoints": names}]
    data = open_coco(write_coco(tmp_path, value, kind="person_keypoints"), keypoints=True)
    assert data.keypoints == tuple(names) and data.pairs == ((1, 2), (4, 3)) == mirrored(tuple(names))
    points = data.train.targets(0).keypoints
    assert points is not None and points.shape == (1, 6, 3)


def test_folders_without_what_is_needed_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotations of train images. Expected annotations/instances_train2017.json"):
        open_coco(tmp_path)
    folder = write_coco(tmp_path / "two", content([annotation(1)]))
    (folder / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(UserError, match="several files are"):
        open_coco(folder)
    lost = write_coco(tmp_path / "lost", content([annotation(1)]))
    for path in lost.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"none of its 2 images is left\. Looked for them in .*train2017"):
        open_coco(lost)
    with pytest.raises(UserError, match="no image to train on has an object"):
        open_coco(write_coco(tmp_path / "empty", content([])))
    others = content([annotation(1)], categories=[{"id": 7, "name": "dog"}])
    with pytest.raises(UserError, match="the classes to train on are cat, dog, those to test on dog"):
        open_coco(write_coco(tmp_path / "others", content([annotation(1)]), others))
    with pytest.raises(UserError, match="none of its 0 images is left"):
        open_coco(write_coco(tmp_path / "none", content([], images=0)))


def test_an_image_of_another_size_than_its_annotations_say_is_refused(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, content([annotation(1)]))
    Image.new("RGB", (10, 20)).save(folder / "train2017" / "001.png")
    with pytest.raises(ImageRefused, match="has 10 x 20 pixels, its annotations are for 20 x 10"):
        open_coco(folder).train.image(0)


def test_masks_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="the extra detection is not installed")
    value = content([annotation(number, 1) for number in range(1, 60)], images=1)
    value["images"][0].update(width=10_000, height=10_000)
    (tmp_path / "train.json").write_text(json.dumps(value))
    write_images(tmp_path, 1)
    samples = open_coco_file(tmp_path / "train.json", tmp_path, masks=True)
    assert isinstance(samples, CocoSamples)
    with pytest.raises(ImageRefused, match="has 59 masks of 10000 x 10000 pixels, more than 4 GiB"):
        samples.targets(0)
