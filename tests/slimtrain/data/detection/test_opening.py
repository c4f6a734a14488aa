"""Detection sets by their names: every row opens, and what does not fit is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.data.catalog import CATALOG, DETECTION_SETS, DetectionRequest
from slimtrain.data.detection.opening import open_detection_data
from tests.support.coco_folders import annotation, content, write_coco


def request(folder: Path | str = "", **changes: object) -> DetectionRequest:
    values = {"masks": False, "keypoints": False, "seed": 3, "image_size": 64, "train": 5, "test": 2}
    return DetectionRequest(str(folder), **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DETECTION_SETS)
def test_a_row_opens(name: str, tmp_path: Path) -> None:
    row = DETECTION_SETS[name]
    assert row.name == name not in CATALOG and row.title
    if row.source == "data_dir":
        write_coco(tmp_path, content([annotation(1), annotation(2, 2)], images=3))
    data = open_detection_data(name, request(tmp_path if row.source == "data_dir" else ""))
    assert len(data.classes) == (row.classes or len(data.classes))
    assert len(data.train.targets(0)) and len(data.test)


def test_scenes_are_as_many_and_as_large_as_asked_and_drawn_from_the_seed() -> None:
    data, other = (open_detection_data("scenes", request(seed=seed)) for seed in (3, 4))
    assert (len(data.train), len(data.test)) == (5, 2) and data.train.targets(0).height == 64
    same = open_detection_data("scenes", request(seed=3))
    assert data.train.targets(1).boxes.equal(same.train.targets(1).boxes)
    assert not data.train.targets(1).boxes.equal(other.train.targets(1).boxes)


def test_no_folder_and_another_number_of_classes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data_dir is not set, expected the folder that holds COCO's annotations"):
        open_detection_data("coco", request())
    with pytest.raises(UserError, match=r"classes is 9, but the data has 10. Leave classes out"):
        open_detection_data("scenes", request(), classes=9)
    with pytest.raises(UserError, match=r"holds no annotations of train images. Expected annotations/instances_"):
        open_detection_data("coco", request(tmp_path))
