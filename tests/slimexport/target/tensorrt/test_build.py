"""ONNX to plan: on stand-ins how each version is asked, and with NVIDIA's own parser and builder, TensorRT-RTX, all else."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.tensorrt import build as building
from slimexport.target.tensorrt.api import Emission, emission
from slimexport.target.tensorrt.build import BuildFailed, Built, build, configure, monitor, own_tactics
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings, parse_batch, parse_targets
from slimexport.target.tensorrt.libraries import RTX_LIBRARY
from slimexport.target.tensorrt.plan_header import read_header, same_version
from tests.support.rtx import SIZE, require_rtx, small_onnx, written
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


LACKS = "Unable to open library: libnvinfer_vc_plugin.so.8 due to libnvinfer_vc_plugin.so.8: cannot open shared object file"


def test_a_library_that_the_wheel_lacks_is_told_with_what_helps(
    board: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT 8.6.0 said of a network with RoiAlign."""

    def parse(self: Any, content: bytes) -> bool:
        raise RuntimeError(LACKS)

    monkeypatch.setattr(board.trt.OnnxParser, "parse", parse)
    with pytest.raises(MissingBackend, match=r"without libnvinfer_vc_plugin\.so\.8, which its wheels lack") as caught:
        built_from(board, tmp_path)
    assert caught.value.exit_code == 3
    assert "ln -s libnvinfer_plugin.so.8" in str(caught.value)


def test_another_exception_of_the_parser_is_its_refusal(
    board: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(self: Any, content: bytes) -> bool:
        raise RuntimeError("std::bad_cast")

    monkeypatch.setattr(board.trt.OnnxParser, "parse", parse)
    with pytest.raises(BuildFailed, match=r"net_x0_5\.onnx: TensorRT \S+ does not read it \(std::bad_cast\)"):
        built_from(board, tmp_path)


# ------------------------------------------------------------------------------------------- NVIDIA's own, without a GPU


def built_for_real(folder: Path, model: onnx.ModelProto, settings: BuildSettings = SETTINGS, **options: Any) -> Built:
    trt = require_rtx()
    return build(trt, written(folder, model), FP32, settings, **options)


def test_an_engine_of_the_real_builder_has_a_header_of_its_version(tmp_path: Path) -> None:
    built = built_for_real(tmp_path, small_onnx())
    assert read_header(built.plan, "x", RTX_LIBRARY).tensorrt == require_rtx().__version__
    assert (built.flags, built.warnings, built.timing_cache) == (("STRONGLY_TYPED",), (), None)
    with pytest.raises(BundleError, match=r"x: is a TensorRT-RTX plan, expected one of TensorRT\. Run it with tensorrt-rtx"):
        read_header(built.plan, "x")


def test_settings_reach_the_real_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = require_rtx()
    kept: list[Any] = []

    def keeping(trt: Any, config: Any, wanted: Emission, settings: BuildSettings) -> tuple[str, ...]:
        kept.append(config)
        return configure(trt, config, wanted, settings)

    monkeypatch.setattr(building, "configure", keeping)
    settings = BuildSettings(BatchRange(2, 3, 5), 1 << 26, 1, 2, targets=("8.6", "12.0"))
    built_for_real(tmp_path, small_onnx(), settings)
    (config,) = kept
    assert (config.builder_optimization_level, config.max_aux_streams, config.num_optimization_profiles) == (1, 2, 1)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 26
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert not config.get_flag(trt.BuilderFlag.TF32)
    chosen = [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)]
    assert chosen == [trt.ComputeCapability.SM86, trt.ComputeCapability.SM120]
    assert config.get_tactic_sources() == own_tactics(trt, config.get_tactic_sources()) != 0


def test_a_capability_that_the_library_does_not_take_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = require_rtx()
    monkeypatch.setattr(building, "target", lambda trt, capability: trt.ComputeCapability.NONE)
    with pytest.raises(BuildFailed, match=r"TensorRT-RTX \S+ does not take compute capability 8\.6"):
        built_for_real(tmp_path, small_onnx(), BuildSettings(targets=("8.6",)))
    assert trt.ComputeCapability.NONE.name == "NONE"


def test_a_file_that_the_parser_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        built_for_real(tmp_path, small_onnx(operator="RoiPool"))
    assert caught.value.exit_code == 1
    assert re.match(r"net_x0_5\.onnx: TensorRT-RTX \S+ does not read it \(RoiPool act: .*Plugin not found", str(caught.value))


def test_a_file_that_is_cut_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, small_onnx())
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(BuildFailed, match=r"net_x0_5\.onnx: TensorRT-RTX \S+ does not read it \("):
        build(require_rtx(), path, FP32, SETTINGS)


def test_too_small_a_workspace_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"built no fp32 engine of it\. More workspace .* TensorRT says: .*workspace limit"):
        built_for_real(tmp_path, small_onnx(64), BuildSettings(workspace_bytes=1))


@pytest.mark.parametrize(("size", "batch"), [(SIZE, 1), (SIZE, 4)])
def test_a_network_of_another_input_is_refused(size: int, batch: int, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=rf"its input is \({batch}, 3, 32, 32\), expected a dynamic batch of images"):
        built_for_real(tmp_path, small_onnx(size=size, batch=batch))


def test_an_unexpected_failure_passes_through_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "configure", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built_for_real(tmp_path, small_onnx())


# -------------------------------------------------------------------------------------------------------- interruption


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_a_build_where_tensorrt_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the real builder has begun: it tells its steps, and asks after each whether it is to go on."""
    steps: list[bool] = []

    def interrupting(trt: Any, cancelled: threading.Event) -> Any:
        real = monitor(trt, cancelled)

        class Interrupting(type(real)):  # type: ignore[misc]
            def step_complete(self, phase_name: str, step: int) -> bool:
                if not steps:
                    interrupt()
                    cancelled.wait(5)
                steps.append(bool(super().step_complete(phase_name, step)))
                return steps[-1]

        return Interrupting()

    monkeypatch.setattr(building, "monitor", interrupting)
    with pytest.raises(KeyboardInterrupt):
        built_for_real(tmp_path, small_onnx())
    assert steps and not any(steps)


def test_a_build_that_is_left_alone_tells_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []

    def listening(trt: Any, cancelled: threading.Event) -> Any:
        class Listening(type(monitor(trt, cancelled))):  # type: ignore[misc]
            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                phases.append(phase_name)

        return Listening()

    monkeypatch.setattr(building, "monitor", listening)
    assert built_for_real(tmp_path, small_onnx()).plan
    assert phases[0] == "Building engine"


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


@pytest.mark.parametrize("text", ["8.6,12.0", "86,120", "sm_120, SM86,8.6", "compute_86,12.0"])
def test_targets_are_read(text: str) -> None:
    assert parse_targets(text) == ("8.6", "12.0")


@pytest.mark.parametrize("text", ["", "8", "8.6,", "ampere", "8.6.1", "-8.6"])
def test_impossible_targets_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"target .*expected a GPU's compute capability, as in 8\.6,8\.9,12\.0"):
        parse_targets(text)


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
