"""Triton's repositories of a detector: every output with its type and shape, and the model that chooses a width gives all of
them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.manifest import read_manifest
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.serving.triton.repository import write_repository
from tests.support.exported_detectors import DETECTIONS, assert_alike, given_by, noise
from tests.support.pbtxt import parse
from tests.support.triton_backend import NAME, Backend, Request, arguments, model_module

ALONE = {"dims": [1], "reshape": {"shape": []}}  # a number of every image
OUTPUTS: list[dict[str, Any]] = [
    {"name": "boxes", "data_type": "TYPE_FP32", "dims": [DETECTIONS, 4]},
    {"name": "scores", "data_type": "TYPE_FP32", "dims": [DETECTIONS]},
    {"name": "labels", "data_type": "TYPE_INT64", "dims": [DETECTIONS]},
    {"name": "count", "data_type": "TYPE_INT64", **ALONE},
    {"name": "settled", "data_type": "TYPE_BOOL", **ALONE},
]
WIDTH = {"name": "width", "data_type": "TYPE_STRING", "dims": [1]}


def config(folder: Path) -> dict[str, Any]:
    return parse((folder / "config.pbtxt").read_text(encoding="ascii"))


def test_every_file_is_a_model_whose_outputs_are_told(detector_bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(detector_bundle)
    names = write_repository(detector_bundle, manifest, tmp_path / "models")
    assert names == [artifact.name for artifact in manifest.artifacts]
    for name, artifact in zip(names, manifest.artifacts, strict=True):
        described = config(tmp_path / "models" / name)
        assert described["output"] == OUTPUTS
        assert described["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [3, 64, 64]}]
        content = (tmp_path / "models" / name / "1" / "model.onnx").read_bytes()
        assert content == (detector_bundle / artifact.file).read_bytes()


def test_one_model_of_all_widths_gives_the_detections_of_the_width_it_names(
    detector_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(detector_bundle)
    (name,) = write_adaptive(detector_bundle, manifest, tmp_path / "models", max_batch=4)
    folder = tmp_path / "models" / name
    assert config(folder)["output"] == [*OUTPUTS, WIDTH]
    monkeypatch.setitem(sys.modules, NAME, Backend())
    model = model_module(folder).TritonPythonModel()
    model.initialize(arguments(folder, slo_ms="60000"))
    try:
        requests = [Request(noise(count, seed=count)) for count in (1, 3)]
        model.execute(requests)
        answers = [request.answer() for request in requests]
    finally:
        model.finalize()
    files = {f"{artifact.width:g}": detector_bundle / artifact.file for artifact in manifest.artifacts}
    for answer, count in zip(answers, (1, 3), strict=True):
        assert answer.error is None, answer.error
        given = dict(answer.outputs)
        (label,) = set(np.ravel(given.pop("width")).tolist())
        assert_alike(given, given_by(files[label], noise(count, seed=count)))
