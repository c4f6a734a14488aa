"""COCO's files: what is right is read as it stands, what is broken is left out and told of, what is hostile ends in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimtrain.base.errors import UserError
from slimtrain.data.detection.coco_file import CocoFile, read_coco
from slimtrain.data.detection.problems import Problems
from tests.support.coco_folders import SQUARE, annotation, content

RUNS = {"size": [10, 20], "counts": [25, 5, 170]}


def read(folder: Path, value: Any, masks: bool = True, keypoints: bool = False) -> tuple[CocoFile, Problems]:
    path = folder / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    problems = Problems()
    return read_coco(path, problems, masks, keypoints), problems


def test_a_right_file_is_read_as_it_stands(tmp_path: Path) -> None:
    crowd = annotation(5, 1, iscrowd=1, category_id=3, segmentation=RUNS, bbox=[15.5, 0, 10, 10], area=99)
    file, problems = read(tmp_path, content([annotation(9, 2, segmentation=[SQUARE, SQUARE[::-1]]), crowd], images=3))
    assert not problems
    assert file.classes == ("cat", "dog") and file.image_ids.tolist() == [1, 2, 3]
    assert [file.file_name(i) for i in range(3)] == ["001.png", "002.png", "003.png"]
    assert file.sizes.tolist() == [[10, 20]] * 3 and file.first.tolist() == [0, 1, 2, 2]
    assert file.boxes.tolist() == [[15.5, 0, 20, 10], [2, 2, 8, 8]], "clipped to the image"
    assert file.labels.tolist() == [1, 2] and file.crowd.tolist() == [True, False] and file.area.tolist() == [99, 36]
    assert [part.tolist() for part in file.parts(0)] == [[25, 5, 170]]
    assert [part.tolist() for part in file.parts(1)] == [SQUARE, SQUARE[::-1]]


BROKEN = [
    ({"bbox": [2, 2, 0, 5]}, "boxes of no size"),
    ({"bbox": [2, 2, 5, -1]}, "boxes of no size"),
    ({"bbox": [2, 2, 1e-30, 5]}, "boxes outside their images"),
    ({"bbox": [30, 2, 5, 5]}, "boxes outside their images"),
    ({"bbox": [2, 2, 5]}, "annotations without id, image_id and bbox"),
    ({"bbox": ["2", 2, 5, 5]}, "annotations without id, image_id and bbox"),
    ({"bbox": [True, 2, 5, 5]}, "annotations without id, image_id and bbox"),
    ({"bbox": [1e300, 2, 5, 5]}, "annotations without id, image_id and bbox"),
    ({"id": None}, "annotations without id, image_id and bbox"),
    ({"id": 1}, "annotation ids that stand twice"),
    ({"image_id": 77}, "annotations of unknown images"),
    ({"category_id": 8}, "annotations of unknown categories"),
    ({"category_id": [7]}, "annotations of unknown categories"),
    ({"segmentation": []}, "objects without a mask"),
    ({"segmentation": None}, "objects without a mask"),
    ({"segmentation": [[2, 2, 8, 8]]}, "polygons of fewer than three corners"),
    ({"segmentation": [[2, 2, 8, 8, 1, 1, 1]]}, "polygons that are no list of x and y by turns"),
    ({"segmentation": [{"a": 1}]}, "polygons that are no list of x and y by turns"),
    ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "polygons far outside their images"),
    ({"segmentation": [[0, 0, 20, 10] * 100_000]}, "polygons far outside their images"),
    ({"segmentation": {"size": [10, 20], "counts": [1, 2]}}, "masks whose runs are wrong"),
    ({"segmentation": {"size": [10, 20], "counts": [2**62] * 4}}, "masks whose runs are wrong"),
    ({"segmentation": {"size": [10, 20], "counts": [-1, 201]}}, "masks whose runs are wrong"),
    ({"segmentation": {"size": [10, 20], "counts": "ooooooooooo"}}, "masks whose runs are wrong"),
    ({"segmentation": {"size": [10**9, 10**9], "counts": "1"}}, "masks whose runs are wrong"),
    ({"segmentation": {"counts": None}}, "masks whose runs are wrong"),
]


@pytest.mark.parametrize(("changes", "kind"), BROKEN)
def test_a_broken_annotation_is_left_out_and_told_of(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    file, problems = read(tmp_path, content([annotation(1), {**annotation(2), **changes}]))
    assert problems.counts == {kind: 1} and len(file.labels) == 1
    assert len(problems.message("a.json")) < 400


def test_masks_that_nobody_asks_for_may_be_broken(tmp_path: Path) -> None:
    for changes in ({"segmentation": [[2, 2, 8, 8]]}, {"segmentation": "?"}):
        file, problems = read(tmp_path, content([annotation(1), annotation(2, **changes)]), masks=False)
        assert not problems and len(file.labels) == 2 and not len(file.outline_values)


def test_of_an_object_the_good_polygons_are_kept(tmp_path: Path) -> None:
    file, problems = read(tmp_path, content([annotation(1, segmentation=[[1, 2], SQUARE])]))
    assert problems.counts == {"polygons of fewer than three corners": 1}
    assert [part.tolist() for part in file.parts(0)] == [SQUARE]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"id": 1}, "image ids that stand twice"),
        ({"width": "20"}, "images without id, file_name, height and width"),
        ({"width": 0}, "images of impossible sizes"),
        ({"width": 10**6, "height": 10**6}, "images of impossible sizes"),
        ({"file_name": "../../etc/passwd"}, "file names that lead out of the folder"),
        ({"file_name": "/etc/passwd"}, "file names that lead out of the folder"),
        ({"file_name": "..\\a.png"}, "file names that lead out of the folder"),
        ({"file_name": "C:a.png"}, "file names that lead out of the folder"),
        ({"file_name": "a\0.png"}, "file names that lead out of the folder"),
        ({"file_name": ""}, "file names that lead out of the folder"),
    ],
)
def test_a_broken_image_is_left_out_with_what_is_in_it(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    value = content([annotation(1)])
    value["images"][1].update(changes)
    if "id" not in changes and kind != "images without id, file_name, height and width":
        value["annotations"].append(annotation(2, 2))  # told of once, with its image
    file, problems = read(tmp_path, value)
    assert problems.counts == {kind: 1} and file.image_ids.tolist() == [1] and len(file.labels) == 1


def test_keypoints_become_places_in_the_coordinates_of_boxes(tmp_path: Path) -> None:
    points = ["nose", "left_eye"]
    value = content([annotation(1, keypoints=[3, 4, 2, 0, 0, 0]), annotation(2)])
    value["categories"] = [{"id": 7, "name": "person", "keypoints": points}]
    file, problems = read(tmp_path, value, keypoints=True)
    assert not problems and file.keypoints == ("nose", "left_eye") and file.points is not None
    assert file.points.tolist() == [[[3.5, 4.5, 2], [0, 0, 0]], [[0, 0, 0]] * 2]
    for wrong in ([1, 2, 2], [1, 2, 3, 1, 2, 2], ["a"] * 6, 5):
        value["annotations"][1]["keypoints"] = wrong
        file, problems = read(tmp_path, value, keypoints=True)
        assert list(problems.counts.values()) == [1] and len(file.labels) == 1
        assert not read(tmp_path, value)[1], "nobody asks for them"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "nested deeper"),
        ("[]", "expected an object with the lists images, annotations, categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "expected an object with the lists"),
        ('{"images": [' + "9" * 5000 + "]}", "out of range"),
        (content([], categories=[]), "lists 0 categories"),
        (content([], categories=[{"id": 1, "name": "a"}] * 2), "an id of its own"),
        (content([], categories=[{"id": 1.5, "name": "a"}]), "an id of its own"),
        (content([], categories=["a" * 100_000]), "an id of its own"),
        ("\ufeff\u0000", "is no JSON"),
    ],
)
def test_another_frame_ends_in_one_short_line(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, value)
    assert str(tmp_path / "a.json") in str(caught.value) and len(str(caught.value)) < 700 and "\n" not in str(caught.value)


def test_what_is_no_file_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xe9")
    for name in ("none.json", "latin.json", ""):
        with pytest.raises(UserError, match="cannot be read"):
            read_coco(tmp_path / name, Problems())


def test_any_value_in_place_of_any_other_is_met(tmp_path: Path) -> None:
    """Every field of a small file, and every entry, replaced by values of another kind: a message or a problem, no more."""
    value = content([annotation(1), annotation(2, segmentation=RUNS)])
    others: list[Any] = [None, True, -1, 2**62, 1e308, "x", [], {}, [[]], [None] * 4, {"id": {}}]
    draw = np.random.default_rng(0)
    places = [(key, row, field) for key in value for row in range(2) for field in (*value[key][row], None)]
    for key, row, field in places:
        changed = json.loads(json.dumps(value))
        other = others[int(draw.integers(len(others)))]
        if field is None:
            changed[key][row] = other
        else:
            changed[key][row][field] = other
        try:
            file, _ = read(tmp_path, changed)
        except UserError:
            continue
        assert len(file.labels) <= 2 and np.isfinite(file.boxes).all()
