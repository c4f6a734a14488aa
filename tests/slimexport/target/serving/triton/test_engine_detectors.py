"""A detector's engine in a Triton model gives every output in the type that the model's configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimexport.target.cuda.runtime import Cuda
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.opening import open_file
from slimexport.target.serving.triton import engine
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.serving.triton.engine import Engine
from slimexport.target.serving.triton.repository import write_repository
from tests.support.exported_detectors import assert_alike, given_by, noise, write_detector_bundle
from tests.support.pbtxt import parse
from tests.support.trt_helpers import Machine, build, machine

KINDS = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}
NAME = "s_faster_rcnn_x0_5"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector_bundle(tmp_path_factory.mktemp("detector"))


@pytest.fixture(params=["8.6.0", "10.3.0"])
def board(request: pytest.FixtureRequest, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    board = machine(monkeypatch, request.param)
    build(exported, widths=[0.5])
    monkeypatch.setattr(engine, "load_cuda", lambda: Cuda(board.library))
    return board


def test_configurations_name_the_types_that_engines_give(exported: Path, board: Machine, tmp_path: Path) -> None:
    board.behaviour.plugins_loaded = 0  # a server's process has not asked for them yet
    running = Engine((exported / f"{NAME}.plan").read_bytes(), NAME, host_code=False)
    given = running(noise(3))
    running.close()
    assert_alike(
        {name: rows.astype("int64") if rows.dtype == "int32" else rows for name, rows in given.items()},
        given_by(exported / f"{NAME}.onnx", noise(3)),
    )
    manifest = read_manifest(exported)
    write_repository(exported, manifest, tmp_path / "models")
    write_adaptive(exported, manifest, tmp_path / "models", backend="tensorrt")
    for model in (f"{NAME}_trt", "s_faster_rcnn"):
        config = parse((tmp_path / "models" / model / "config.pbtxt").read_text())
        kinds = {output["name"]: output["data_type"] for output in config["output"] if output["name"] in given}
        assert kinds == {name: KINDS[rows.dtype.name] for name, rows in given.items()}
    onnx = parse((tmp_path / "models" / NAME / "config.pbtxt").read_text())
    assert "TYPE_INT64" in {output["data_type"] for output in onnx["output"]}


def test_a_runtime_gives_the_types_that_the_manifest_promises(exported: Path, board: Machine) -> None:
    manifest = read_manifest(exported)
    (artifact,) = manifest.of_format("trt")
    file = open_file(exported, manifest, artifact, "tensorrt", None)
    given = file(noise(2))
    file.runner.close()
    assert {name: rows.dtype.name for name, rows in given.items()} == {one.name: one.dtype for one in manifest.results}
