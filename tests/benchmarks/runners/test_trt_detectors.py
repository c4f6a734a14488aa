"""Engines of detectors on a made-up board: outputs of several types, which are moved and checked as what they are."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.backends import TENSORRT
from benchmarks.cells.cell import Cell, Options, WrongOutput
from benchmarks.measure.output_check import Reference, check_output
from benchmarks.runners.opening import open_runner
from slimexport.target.manifest import read_manifest
from slimexport.target.proof.detections import rules_of
from slimexport.target.reference import Probes, probes_of, read_reference
from tests.support.bench_helpers import cell
from tests.support.exported_detectors import assert_alike, given_by, noise, write_detector_bundle
from tests.support.gpu_fakes import Images
from tests.support.trained_detectors import SIZE
from tests.support.trt_helpers import Machine, build, machine


@pytest.fixture(scope="module", params=["fixed", "trt"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector_bundle(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def board(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    board = machine(monkeypatch, "8.6.0")
    build(exported, widths=[0.5])
    return board


def engine_cell(bundle: Path, **changes: Any) -> Cell:
    (artifact,) = read_manifest(bundle).of_format("trt")
    return cell(artifact.name, file=artifact.file, backend=TENSORRT, batch=3, image_size=SIZE, **changes)


def reference_of(bundle: Path) -> tuple[Reference, Probes]:
    manifest = read_manifest(bundle)
    (artifact,) = manifest.of_format("trt")
    probes = probes_of(bundle, manifest, artifact, read_reference(bundle))
    assert manifest.detector is not None
    return Reference(probes, None, rules_of(manifest.detector, manifest.input.image_size)), probes


@pytest.mark.parametrize("transfers", [False, True])
def test_every_output_is_moved_in_its_own_type(exported: Path, board: Machine, transfers: bool) -> None:
    described = engine_cell(exported)
    with closing(open_runner(described, exported, Images(size=SIZE), Options(transfers=transfers))) as runner:
        runner.run(0)
        given = runner.logits(noise(3))
        assert check_output(runner, described, reference_of(exported)[0]) == ""
    kinds = {rows.dtype.name for rows in given.values()}
    assert kinds == {"float32", "int32", "bool"}
    if "labels" in given:
        assert_alike(given, given_by(exported / f"{described.name}.onnx", noise(3)))


def test_an_engine_that_detects_otherwise_is_not_measured(exported: Path, board: Machine) -> None:
    described, (reference, probes) = engine_cell(exported), reference_of(exported)
    labels = "labels" if "labels" in [part.name for part in probes.expected] else "detection_classes"
    board.behaviour.defects = {labels: lambda values, batch: np.where(values > 0, values + 1, 0)}
    with closing(open_runner(described, exported, Images(size=SIZE), Options())) as runner:
        with pytest.raises(WrongOutput, match="its detections are not the bundle's reference's: image"):
            check_output(runner, described, reference)
        with pytest.raises(WrongOutput, match="fp16 is too coarse"):
            check_output(runner, replace(described, precision="fp16"), reference)
        boxes = labels.replace("labels", "boxes").replace("classes", "boxes")
        board.behaviour.defects = {boxes: lambda values, batch: values + 0.1 * (values != 0)}
        with pytest.raises(WrongOutput):
            check_output(runner, described, reference)
        assert check_output(runner, replace(described, precision="fp16"), reference) == ""
