"""ONNX to plan, on stand-ins for five versions: settings, what TensorRT refuses, interruptions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimexport.target.errors import BundleError
from slimexport.target.tensorrt.api import Emission, emission
from slimexport.target.tensorrt.build import BuildFailed, Built, build
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings, parse_batch
from slimexport.target.tensorrt.plan_header import read_header, same_version
from tests.support.trt_fake import VERSIONS, network
from tests.support.trt_helpers import SETTINGS, Machine, machine

FP32 = Emission("fp32", "fp32")


def built_from(
    board: Machine, folder: Path, wanted: Emission = FP32, settings: BuildSettings = SETTINGS, **network_: Any
) -> Built:
    path = folder / "net_x0_5.onnx"
    path.write_bytes(network(**network_))
    return build(board.trt, path, wanted, settings)


@pytest.fixture(params=VERSIONS)
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, request.param)


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, VERSIONS[-1])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_each_version_is_asked_in_its_own_terms(board: Machine, tmp_path: Path, precision: str) -> None:
    built = built_from(board, tmp_path, emission(board.trt, precision))
    trt, config = board.trt, board.behaviour.configs[-1]
    old = trt.__version__ == "8.6.0"
    flag = trt.NetworkDefinitionCreationFlag
    assert board.behaviour.networks == [1 << int(flag.EXPLICIT_BATCH if old else flag.STRONGLY_TYPED)]
    weak = {"fp16": {"FP16"}, "int8": {"FP16", "INT8"}}.get(precision, set()) if old else set()
    tf32 = set() if precision == "fp32" else {"TF32"}
    assert config._flags == weak | tf32
    assert set(built.flags) == config._flags | (set() if old else {"STRONGLY_TYPED"})
    assert config.builder_optimization_level == 3
    assert config.profiling_verbosity is trt.ProfilingVerbosity.DETAILED
    assert config._limits == {} and config.max_aux_streams is None
    assert config._profiles[0]._shapes == ((1, 3, 4, 4), (4, 3, 4, 4), (6, 3, 4, 4))
    version = read_header(built.plan, "x").tensorrt
    assert version is not None and same_version(version, trt.__version__)


def test_settings_reach_the_configuration(board: Machine, tmp_path: Path) -> None:
    settings = BuildSettings(BatchRange(2, 2, 2), 1 << 30, 5, 2, version_compatible=True, hardware_compatible=True)
    built = built_from(board, tmp_path, settings=settings)
    config = board.behaviour.configs[-1]
    assert (config.builder_optimization_level, config.max_aux_streams) == (5, 2)
    assert config._limits == {"MemoryPoolType.WORKSPACE": 1 << 30}
    assert config.hardware_compatibility_level is board.trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert "VERSION_COMPATIBLE" in config._flags
    assert {"VERSION_COMPATIBLE", "AMPERE_PLUS"} <= set(built.flags)
    assert [shape[0] for shape in config._profiles[0]._shapes] == [2, 2, 2]


@pytest.mark.parametrize("libraries", [False, True])
def test_tactics_of_other_libraries_are_off_unless_asked_for(board: Machine, tmp_path: Path, libraries: bool) -> None:
    """A board need not have cuBLAS and cuDNN; 11 has no such tactics."""
    built_from(board, tmp_path, settings=BuildSettings(library_tactics=libraries))
    sources = board.trt.TacticSource
    on = [
        name
        for name in ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        if hasattr(sources, name) and board.behaviour.configs[-1]._sources & 1 << int(getattr(sources, name))
    ]
    there = [name for name in ("CUBLAS", "CUBLAS_LT", "CUDNN") if hasattr(sources, name)]
    assert [name for name in on if name.startswith("CU")] == (there if libraries else [])
    assert on[-2:] == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]


def test_a_file_that_the_parser_refuses_is_told_in_its_words(board: Machine, tmp_path: Path) -> None:
    board.behaviour.parser_errors = ["no importer\nfor RoiPool", "b", "c", "d"]
    where = "node 7" if board.trt.__version__ == "8.6.0" else "Conv stem"
    with pytest.raises(BuildFailed) as caught:
        built_from(board, tmp_path)
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        f"net_x0_5.onnx: TensorRT {board.trt.__version__} does not read it ({where}: no importer for RoiPool; {where}: b; "
        f"{where}: c)."
    )


def test_a_builder_that_gives_nothing_is_an_error_with_what_it_said(board: Machine, tmp_path: Path) -> None:
    board.behaviour.builds = False
    board.behaviour.says = [("WARNING", "slow"), ("ERROR", "could not find any\nimplementation")]
    with pytest.raises(BuildFailed, match=r"built no fp32 engine of it.* TensorRT says: could not find any implementation$"):
        built_from(board, tmp_path)


def test_warnings_are_recorded_once(newest: Machine, tmp_path: Path) -> None:
    newest.behaviour.says = [("WARNING", "a"), ("WARNING", "b"), ("WARNING", "a"), ("INFO", "c")]
    assert built_from(newest, tmp_path).warnings == ("a", "b")


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (-1, 3, -1, -1), (-1, 3)])
def test_a_network_of_another_input_is_refused(newest: Machine, tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BuildFailed, match="expected a dynamic batch of images of one size"):
        built_from(newest, tmp_path, shape=shape)


def test_an_unexpected_failure_passes_through_the_thread(newest: Machine, tmp_path: Path) -> None:
    def fails(step: Callable[[], bool]) -> bool:
        raise ZeroDivisionError

    newest.behaviour.build_steps = fails
    with pytest.raises(ZeroDivisionError):
        built_from(newest, tmp_path)


# -------------------------------------------------------------------------------------------------------- interruption


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_a_build_where_tensorrt_can_be_stopped(newest: Machine, tmp_path: Path) -> None:
    steps = []

    def long(step: Callable[[], bool]) -> bool:
        interrupt()
        while step():
            steps.append(1)
            threading.Event().wait(0.01)
        steps.append(0)
        return False

    newest.behaviour.build_steps = long
    with pytest.raises(KeyboardInterrupt):
        built_from(newest, tmp_path)
    assert steps[-1] == 0 and len(steps) < 1000


def test_ctrl_c_waits_for_a_build_that_cannot_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    board, done = machine(monkeypatch, "8.6.0"), []

    def long(step: Callable[[], bool]) -> bool:
        interrupt()
        threading.Event().wait(0.3)
        done.append(step())
        return True

    board.behaviour.build_steps = long
    with pytest.raises(KeyboardInterrupt):
        built_from(board, tmp_path)
    assert done == [True]
    assert "cannot stop a build: waiting for its end" in caplog.text


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(("text", "sizes"), [("1:8:32", (1, 8, 32)), ("4", (4,)), ("1:1:2", (1, 2))])
def test_batches_are_read(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_batch(text).sizes() == sizes


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:c", "0:1:2", "2:1:3", "1:8:4", "1:-1:4", "1.5"])
def test_impossible_batches_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"batch .*expected .*1:8:32") as caught:
        parse_batch(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimization_level": 6}, r"optimization level 6: expected 0 .* to 5"),
        ({"optimization_level": -1}, "optimization level"),
        ({"workspace_bytes": 0}, "workspace 0"),
        ({"aux_streams": -1}, "auxiliary streams -1"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        BuildSettings(**wrong)
