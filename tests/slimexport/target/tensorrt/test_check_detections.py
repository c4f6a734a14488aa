"""Engines of detectors are held to what they detect, at every batch that they are for: on a made-up TensorRT that runs the
exported files themselves, or what a test makes of their outputs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import Artifact, read_manifest
from slimexport.target.near_equals import NearEquals
from slimexport.target.reference import Probes
from slimexport.target.tensorrt.check import check_engine
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.engines import EnginesFailed
from slimexport.target.tensorrt.verification import verify_engines
from slimexport.target.tensors import BoxEntry, DetectorEntry
from slimexport.target.verification import Verification
from tests.support.bundle_helpers import edit_manifest
from tests.support.exported_detectors import assert_alike, given_by, noise, write_detector_bundle
from tests.support.trt_fake import VERSIONS
from tests.support.trt_helpers import Machine, build, engines_of, machine

Defect = Callable[[NDArray[Any], int], NDArray[Any]]
FIRST = "s_faster_rcnn_x0_5"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {nms: write_detector_bundle(tmp_path_factory.mktemp(nms), nms) for nms in ("fixed", "none", "trt")}


@pytest.fixture
def bundle_of(exported: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda nms: Path(shutil.copytree(exported[nms], tmp_path / nms))


def first_of(bundle: Path) -> Artifact:
    return next(artifact for artifact in engines_of(bundle).values() if artifact.width == 0.5)


def wrong(defects: dict[str, Defect], board: Machine, bundle: Path, **options: Any) -> str:
    """What is said of a build whose engines have these defects; nothing of them stays in the bundle."""
    board.behaviour.defects = defects
    with pytest.raises(EnginesFailed) as caught:
        build(bundle, **options)
    assert not engines_of(bundle) and not list(bundle.glob("*.plan"))
    return str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_detects_what_the_network_does(
    version: str, bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, bundle = machine(monkeypatch, version), bundle_of("fixed")
    build(bundle)
    for artifact in engines_of(bundle).values():
        check = artifact.verification
        assert (check.status, check.backend, check.batches) == ("passed", "tensorrt", (1, 4, 6))
        assert check.detections and check.box_error is not None and check.box_error < 1e-2
    images = noise(7)
    with TensorRTRunner(bundle / f"{FIRST}.plan", first_of(bundle)) as runner:
        given = runner(images)
    whole = "int32" if version.startswith("8") else "int64"
    assert {name: rows.dtype.name for name, rows in given.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": whole,
        "count": whole,
        "settled": "bool",
    }
    assert_alike(given, given_by(bundle / f"{FIRST}.onnx", images))
    assert not board.library.memory
    assert [check.status for _, check in verify_engines(bundle, read_manifest(bundle))] == ["passed"] * 2


def of_batch_of_four(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Defect:
    return lambda values, batch: change(values) if batch == 4 else values


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("labels", lambda labels: np.where(labels > 0, labels % 3 + 1, 0), "it gives class"),
        ("boxes", lambda boxes: boxes + (boxes != 0), "it gives class"),
        ("scores", lambda scores: scores[:, ::-1], "not in descending order"),
        ("count", lambda count: count + 1, "its 4 detections are not zeros|counts 5|below 1|lacks|gives"),
        ("settled", np.logical_not, "it says settled=False, which is wrong"),
        ("boxes", lambda boxes: boxes * np.nan, "its boxes are not finite"),
    ],
)
def test_what_is_wrong_at_one_batch_alone_is_caught(
    name: str,
    change: Callable[[NDArray[Any]], NDArray[Any]],
    said: str,
    bundle_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = wrong({name: of_batch_of_four(change)}, machine(monkeypatch), bundle_of("fixed"))
    assert any(words in message for words in said.split("|")), message


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_an_engine_of_fewer_bits_is_weighed_as_a_whole(
    precision: str, bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, bundle = machine(monkeypatch, "8.6.0"), bundle_of("fixed")
    board.behaviour.defects = {"boxes": lambda boxes, batch: boxes + 0.2 * (boxes != 0)}
    build(bundle, precisions=[precision])
    check = first_of(bundle).verification
    assert check.status == "passed" and check.least_alike == 0.9
    assert check.alike is not None and 0.9 <= check.alike < 0.999 and check.batches == (1, 4, 6)


def test_an_engine_of_fewer_bits_that_names_other_classes_is_caught(
    bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Defect = of_batch_of_four(lambda labels: np.where(labels > 0, labels % 3 + 1, 0))
    message = wrong({"labels": other}, machine(monkeypatch, "8.6.0"), bundle_of("fixed"), precisions=["fp16"])
    assert "failed, its detections are like the network's to 0.00, expected at least 0.9: fp16 is too coarse" in message


@pytest.mark.parametrize("version", ["8.6.0", "10.3.0"])
def test_what_the_plugin_gives_is_held_to_the_network(
    version: str, bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies behind its detections is no matter, and its ONNX file was proven in part: the engine is proven whole."""
    machine(monkeypatch, version)
    bundle = bundle_of("trt")
    assert {artifact.verification.status for artifact in read_manifest(bundle).of_format("onnx")} == {"partly"}
    build(bundle)
    check = first_of(bundle).verification
    assert check.status == "passed" and check.detections and check.reason is None


def test_a_plugin_that_gives_other_classes_is_caught(
    bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = wrong({"detection_classes": lambda classes, batch: classes + 1}, machine(monkeypatch), bundle_of("trt"))
    assert "failed, image 0: it gives class" in message


@pytest.mark.parametrize("version", ["11.4.0"])
def test_a_tensorrt_without_the_plugin_is_told(
    version: str, bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, bundle = machine(monkeypatch, version), bundle_of("trt")
    said = r"its files end in EfficientNMS_TRT, a plugin of TensorRT 8 and 10, which TensorRT 11\.4\.0\.106 lacks"
    with pytest.raises(MissingBackend, match=said):
        build(bundle)
    assert board.behaviour.networks == []


def test_raw_boxes_and_scores_are_held_to_numbers(bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    board, bundle = machine(monkeypatch), bundle_of("none")
    build(bundle)
    check = first_of(bundle).verification
    assert check.status == "passed" and check.detections is None and (check.max_rel_error or 1) < 1e-4
    board.behaviour.defects = {"scores": lambda scores, batch: scores * 1.01}
    assert {check.status for _, check in verify_engines(bundle, read_manifest(bundle))} == {"failed"}


def test_outputs_of_types_that_engines_do_not_give_are_refused(
    bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, bundle = machine(monkeypatch), bundle_of("fixed")
    edit_manifest(bundle, lambda manifest: manifest["outputs"][2].update(dtype="uint8"))
    with pytest.raises(BundleError, match=r"give labels, uint8 .* of float32, int32, int64, bool"):
        build(bundle)
    assert board.behaviour.networks == []


# ------------------------------------------------------------------------------------------------------ without a bundle


def entry(nms: str = "fixed") -> DetectorEntry:
    return DetectorEntry(kind="faster_rcnn", classes=3, box=BoxEntry(score=0.3, nms=0.5, detections=2), nms=nms, slim="all")


class Giving:
    """Gives for each image the rows of its number, which is its only pixel."""

    backend = "tensorrt"

    def __init__(self, **outputs: NDArray[Any]) -> None:
        self.outputs = outputs

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {name: values[images[:, 0, 0, 0].astype(int)] for name, values in self.outputs.items()}


def rows(count: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """So many detections of each image, of two rows."""
    number = np.array(count)
    there = np.arange(2) < number[:, None]
    boxes = np.array([[1.0, 1, 20, 20], [30, 30, 60, 50]]) * there[..., None]
    return {
        "boxes": boxes,
        "scores": np.array([0.9, 0.8]) * there,
        "labels": np.array([1, 2]) * there,
        "count": number,
    }


def probes_of(outputs: dict[str, NDArray[Any]], near: NearEquals | None = None) -> Probes:
    images = np.zeros((len(outputs["count"]), 3, 64, 64), np.float32)
    images[:, 0, 0, 0] = np.arange(len(images))
    probes = Probes.of(images, *outputs.values(), names=tuple(outputs))
    return replace(probes, detector=entry(), near=near)


def test_where_nothing_is_detected_an_engine_is_proven_in_part() -> None:
    nothing = rows((0, 0))
    check = check_engine(Giving(**nothing), probes_of(nothing), "fp32", [1, 2])
    assert check.status == "partly" and "nothing is detected" in (check.reason or "")


def test_what_was_proven_of_the_file_in_part_is_so_of_its_engine() -> None:
    right = rows((2, 1))
    source = Verification(status="partly", reason="why", unexercised=3, watched=5)
    check = check_engine(Giving(**right), probes_of(right), "fp32", [1, 2], source)
    assert (check.status, check.reason, check.unexercised, check.watched) == ("partly", "why", 3, 5)


@pytest.mark.parametrize(("open_row", "status"), [(1, "passed"), (0, "failed")])
def test_what_hangs_on_roundings_is_known_of_every_image_of_a_batch(open_row: int, status: str) -> None:
    """Batches of four show each of three images more than once; of the last one a row may go, which one the reference says."""
    expected, near = rows((2, 1, 2)), np.zeros((3, 2), bool)
    near[2, open_row] = True
    given = rows((2, 1, 1))
    probes = probes_of(expected, NearEquals(near, np.zeros((0, 7))))
    check = check_engine(Giving(**given), probes, "fp32", [4])
    assert check.status == status


def test_outputs_of_another_shape_are_told() -> None:
    right = rows((2, 1))
    cut = {name: values[:, :1] if values.ndim > 1 else values for name, values in right.items()}
    for precision in ("fp32", "fp16", "int8"):
        check = check_engine(Giving(**cut), probes_of(right), precision, [1, 2])
        assert check.status == "failed" and ("expected [2, 2" in (check.reason or "") or "shape" in (check.reason or ""))
