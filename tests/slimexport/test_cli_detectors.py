"""`slimexport` on detectors: their options, what `--predict` finds, and what cannot be, with one message each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimexport.target.manifest import read_manifest
from slimtrain.base.packages import is_installed
from slimtrain.data.detection.masks import mask_of_runs, runs_of_text
from slimtrain.models.detector import KEYPOINT, MASK
from tests.support.export_helpers import refused, run, small_spec, tree, write_checkpoint
from tests.support.exported_detectors import (
    DETECTIONS,
    NAMES,
    detector_checkpoint,
    given_by,
    noise,
    write_detector_bundle,
)

DATA_DEPENDENT = {"If", "Loop", "NonZero", "NonMaxSuppression"}  # operators whose outputs' shapes images decide on
PHOTOS = {"larger.png": (150, 100), "smaller.png": (20, 30), "wide.png": (200, 10)}  # than files take, which is 64 x 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_checkpoint(tmp_path_factory.mktemp("checkpoint"), class_names=NAMES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for name, (width, height) in PHOTOS.items():
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    return [folder / name for name in PHOTOS]


def described(checkpoint: Path, *options: str) -> dict[str, Any]:
    outcome = run("--ckpt", checkpoint, "--dry-run", "--json", *options)
    assert outcome.code == 0, outcome
    return outcome.manifest


# ------------------------------------------------------------------------------------------------------------- options


def test_without_a_word_files_end_as_the_checkpoint_says(checkpoint: Path) -> None:
    detector = described(checkpoint)["detector"]
    assert (detector["nms"], detector["box"]["score"], detector["box"]["detections"]) == ("fixed", 0.0, 5)


def test_the_options_of_detectors_come_to_manifest_and_shapes(checkpoint: Path) -> None:
    options = ("--nms", "onnx", "--score-threshold", "0.2", "--detections", "3", "--image-size", "96x64")
    manifest = described(checkpoint, *options)
    detector = manifest["detector"]
    assert (detector["nms"], detector["box"]["score"], detector["box"]["detections"]) == ("onnx", 0.2, 3)
    assert manifest["input"]["image_size"] == [96, 64]
    assert {output["name"]: output["shape"] for output in manifest["outputs"]}["boxes"] == ["batch", 3, 4]


@pytest.mark.parametrize(("nms", "operators"), [("fixed", set()), ("onnx", {"NonMaxSuppression"}), ("none", set())])
def test_files_end_as_nms_says(checkpoint: Path, tmp_path: Path, nms: str, operators: set[str]) -> None:
    outcome = run("--ckpt", checkpoint, "--widths", "0.5", "--no-verify", "--nms", nms, "--output-dir", tmp_path / "b")
    assert outcome.code == 0, outcome
    (file,) = (tmp_path / "b").glob("*.onnx")
    model = onnx.load(file)
    present = {node.op_type for node in model.graph.node}
    assert "RoiAlign" in present
    if nms != "onnx":  # its operator gives as many rows as it finds
        assert not present & DATA_DEPENDENT
    assert operators <= present
    assert {entry.key: entry.value for entry in model.metadata_props}["nms"] == nms


def test_a_table_of_detectors_has_no_columns_of_classifiers(checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("--ckpt", checkpoint, "--output-dir", tmp_path / "b", "--probes", "2", "--score-threshold", "0.3")
    assert outcome.code == 0, outcome
    assert outcome.lines[0].split() == ["width", "MACs", "params", "size", "check", "error", "tolerance"]
    assert "matched one to one with the checkpoint's" in outcome.out


# ------------------------------------------------------------------------------------------------------------- predict


def letterboxed(photo: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """[1, 3, 64, 64] of a photograph in its proportions, zeros to the right and below, and how many times as large it is."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    scale = min(64 / image.width, 64 / image.height)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    whole = np.zeros((3, 64, 64), np.float32)
    whole[:, :height, :width] = (np.asarray(resized, np.float32) / 255 - 0.5).transpose(2, 0, 1) / 0.25
    return whole[None], (width / image.width, height / image.height)


def test_predict_finds_what_the_file_does_in_the_photographs_own_pixels(detector_bundle: Path, photos: list[Path]) -> None:
    """Whether they are larger or smaller than what files take."""
    outcome = run("--bundle", detector_bundle, "--predict", *photos, "--json")
    assert outcome.code == 0, outcome
    files = {artifact.width: artifact.file for artifact in read_manifest(detector_bundle).artifacts}
    rows = json.loads(outcome.out)
    assert [(row["image"], row["width"]) for row in rows] == [(str(photo), width) for photo in photos for width in (0.5, 1.0)]
    assert any(row["objects"] for row in rows)
    for row in rows:
        pixels, (across, down) = letterboxed(Path(row["image"]))
        given = given_by(detector_bundle / files[row["width"]], pixels)
        count, size = int(given["count"][0]), PHOTOS[Path(row["image"]).name]
        boxes = np.clip(given["boxes"][0, :count] / np.array([across, down, across, down]), 0, (*size, *size))
        within = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])  # what lies in the padding alone is no object
        assert len(row["objects"]) == within.sum()
        boxes = boxes[within]
        np.testing.assert_allclose(
            [detection["box"] for detection in row["objects"]] or np.zeros((0, 4)), boxes, rtol=1e-4, atol=1e-2
        )
        assert [detection["class"] for detection in row["objects"]] == given["labels"][0, :count][within].tolist()
        assert all(detection["name"] == NAMES[detection["class"] - 1] for detection in row["objects"])


def test_predict_tells_masks_and_keypoints_of_files_that_give_them(photos: list[Path], tmp_path: Path) -> None:
    """Against the file's own outputs, pasted by torchvision."""
    for kind in (MASK, KEYPOINT):
        detecting = ("--score-threshold", "0.2", "--detections", "4")
        bundle, path = tmp_path / f"b_{kind}", detector_checkpoint(tmp_path, kind)
        assert run("--ckpt", path, "--widths", "1.0", "--no-verify", *detecting, "--output-dir", bundle).code == 0
        (row, *_) = json.loads(run("--bundle", bundle, "--predict", photos[0], "--json").out)
        pixels, (across, down) = letterboxed(photos[0])
        given = given_by(bundle / row["file"], pixels)
        count, (width, height) = int(given["count"][0]), PHOTOS[photos[0].name]
        boxes = given["boxes"][0, :count] / np.array([across, down, across, down])
        within = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2:] > 0).all(1)
        assert len(row["objects"]) == within.sum() > 0
        if kind == KEYPOINT:
            points = given["keypoints"][0, :count][within][..., :2] / np.array([across, down])
            np.testing.assert_allclose([own["keypoints"] for own in row["objects"]], points, rtol=1e-4, atol=1e-2)
            assert np.shape([own["keypoint_scores"] for own in row["objects"]]) == points.shape[:2]
            continue
        masks = torch.from_numpy(given["masks"][0, :count][within])[:, None]
        pasted = paste_masks_in_image(masks, torch.from_numpy(boxes[within]).float(), (height, width))[:, 0].numpy()
        for own, expected in zip(row["objects"], pasted, strict=True):
            assert own["mask"]["size"] == [height, width]
            mask = mask_of_runs(runs_of_text(own["mask"]["counts"]), height, width)
            assert (mask == (expected > 0.5))[np.abs(expected - 0.5) > 1e-3].all()


def test_predict_prints_a_line_for_each_width(detector_bundle: Path, photos: list[Path]) -> None:
    outcome = run("--bundle", detector_bundle, "--predict", photos[0])
    assert outcome.code == 0 and outcome.lines[0] == str(photos[0])
    assert outcome.lines[1].split() == ["width", "ms", "objects"]
    assert [line.split()[0] for line in outcome.lines[2:4]] == ["0.5", "1.0"]


def test_an_image_without_objects_has_none(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    bundle = write_detector_bundle(tmp_path, score=0.9999)
    outcome = run("--bundle", bundle, "--predict", photos[0], "--widths", "0.5")
    assert outcome.code == 0 and outcome.lines[2].split()[-1] == "nothing"
    assert json.loads(run("--bundle", bundle, "--predict", photos[0], "--widths", "0.5", "--json").out)[0]["objects"] == []


def test_of_more_objects_than_a_file_has_rows_the_surest_are_given(tmp_path: Path) -> None:
    """With a threshold of 0 every proposal is one of each class."""
    few = write_detector_bundle(tmp_path / "few", score=0.0)
    (tmp_path / "many").mkdir()
    words = ("--score-threshold", "0", "--detections", "60", "--no-verify", "--output-dir", tmp_path / "many" / "b")
    assert run("--ckpt", detector_checkpoint(tmp_path / "many"), *words).code == 0
    image = noise(1)
    for artifact in read_manifest(few).artifacts:
        given, more = given_by(few / artifact.file, image), given_by(tmp_path / "many" / "b" / artifact.file, image)
        assert int(given["count"][0]) == DETECTIONS < int(more["count"][0])
        np.testing.assert_allclose(given["scores"][0], more["scores"][0, :DETECTIONS], rtol=1e-5)
        np.testing.assert_allclose(given["boxes"][0], more["boxes"][0, :DETECTIONS], rtol=1e-5, atol=1e-3)


# -------------------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--nms", "fast"), ("nms 'fast': not known", "fixed, onnx, none")),
        (("--score-threshold", "1.5"), ("score threshold 1.5", "from 0 to below 1")),
        (("--score-threshold", "nan"), ("score threshold nan", "from 0 to below 1")),
        (("--detections", "0"), ("0 detections", "expected 1 to 10,000")),
        (("--detections", "1000000"), ("1000000 detections", "expected 1 to 10,000")),
        (("--image-size", "60"), ("multiples of 16",)),
        (("--accuracy-data", "digits"), ("have classes and no boxes", "`scenes`", "COCO")),
        (("--accuracy-data", "nowhere"), ("nowhere", "no such folder")),
        (("--nms", "none", "--accuracy-data", "scenes"), ("--nms none leaves them to you",)),
    ],
)
def test_options_that_cannot_be_are_one_message(
    checkpoint: Path, out: Path, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    if "--accuracy-data" in options and not is_installed("faster_coco_eval"):
        pytest.skip("needs the extra detection")
    outcome = run("--ckpt", checkpoint, "--output-dir", out / "b", *options)
    refused(outcome, 2, *parts)
    assert outcome.out == "" and list(out.iterdir()) == []


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="needs the extra detection")
def test_data_of_another_number_of_classes_is_refused(checkpoint: Path, out: Path) -> None:
    outcome = run("--ckpt", checkpoint, "--output-dir", out / "b", "--accuracy-data", "scenes")
    refused(outcome, 2, "scenes: has 10 classes, faster_rcnn.pt has 3")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("options", [("--nms", "onnx"), ("--score-threshold", "0.5"), ("--detections", "5")])
def test_how_files_end_is_settled_when_they_are_written(detector_bundle: Path, options: tuple[str, ...]) -> None:
    refused(run("--bundle", detector_bundle, "--verify-only", *options), 2, f"{options[0]} goes with --ckpt")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--nms", "onnx"), "is no detector"),
        (("--detections", "5"), "is no detector"),
        (("--accuracy-data", "scenes"), "scenes: show objects for detectors"),
        (("--verify-data", "scenes"), "scenes: show objects for detectors"),
        (("--calibration-data", "scenes"), "scenes: show objects for detectors"),
    ],
)
def test_a_classifier_where_a_detector_is_expected_is_told(out: Path, options: tuple[str, ...], part: str) -> None:
    classifier = write_checkpoint(out.parent / "classifier.pt", small_spec())
    outcome = run("--ckpt", classifier, "--image-size", "64", "--output-dir", out / "b", *options)
    refused(outcome, 2, part, "classifier.pt")
    assert list(out.iterdir()) == []


def test_raw_boxes_are_for_a_suppression_of_ones_own(photos: list[Path], tmp_path: Path) -> None:
    bundle = write_detector_bundle(tmp_path, nms="none")
    before = tree(bundle)
    refused(run("--bundle", bundle, "--predict", photos[0]), 2, "slimexport.open_network")
    assert tree(bundle) == before
