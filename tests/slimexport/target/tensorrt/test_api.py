"""What is built on which TensorRT, and what is said where there is none that serves."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slimexport.environment import engine_lines
from slimexport.target.errors import MissingBackend
from slimexport.target.tensorrt import api as tensorrt_api
from slimexport.target.tensorrt.api import create, emission, logger, messages, require_tensorrt, said, supported
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_fake import VERSIONS
from tests.support.trt_helpers import machine

OLD, *NEW = VERSIONS


# ---------------------------------------------------------------------------------------------------------- emissions


@pytest.mark.parametrize(
    ("precision", "old", "new"),
    [
        ("fp32", ("fp32", ()), ("fp32", ())),
        ("tf32", ("fp32", ("TF32",)), ("fp32", ("TF32",))),
        ("fp16", ("fp32", ("TF32", "FP16")), ("fp16", ("TF32",))),
        ("bf16", None, ("bf16", ("TF32",))),
        ("int8", ("int8", ("TF32", "FP16", "INT8")), ("int8-fp16", ("TF32",))),
    ],
)
def test_a_target_takes_the_file_that_it_can_read(monkeypatch: pytest.MonkeyPatch, precision: str, old: Any, new: Any) -> None:
    for version in VERSIONS:
        trt = machine(monkeypatch, version).trt
        expected = old if version == OLD else new
        assert (precision in supported(trt)) == (expected is not None)
        if expected is None:
            with pytest.raises(MissingBackend, match=r"bf16: TensorRT 8\.6\.0 builds no bf16 engines.*fp32, tf32, fp16, int8"):
                emission(trt, precision)
        else:
            recipe = emission(trt, precision)
            assert (recipe.onnx, recipe.flags) == expected


def test_the_environment_says_what_each_version_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [tensorrt_api.describe(machine(monkeypatch, version).trt) for version in (OLD, NEW[-1])]
    assert lines == [
        "TensorRT 8.6.0: engines in fp32, tf32, fp16, int8 (no bf16 before TensorRT 10)",
        "TensorRT 11.4.0.106: engines in fp32, tf32, fp16, bf16, int8",
    ]


# ------------------------------------------------------------------------------------------------------ no TensorRT


def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorrt" else find(name, *rest))


class Driver:
    """A driver's library that knows one CUDA version."""

    def __init__(self, version: int) -> None:
        self.version = version

    def cuDriverGetVersion(self, target: Any) -> int:  # as the driver calls it
        target._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    ("driver", "package"), [(None, "tensorrt-cu13"), (Driver(12080), "tensorrt-cu12"), (Driver(13000), "tensorrt-cu13")]
)
def test_without_tensorrt_its_package_for_this_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, package: str
) -> None:
    without_tensorrt(monkeypatch)
    monkeypatch.setattr(tensorrt_api, "driver_library", lambda: driver)
    with pytest.raises(MissingBackend) as caught:
        require_tensorrt("The ONNX files are written; run again with --format trt.")
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        f"TensorRT is not installed: pip install {package} (its libraries come from NVIDIA's package index). The ONNX files "
        "are written; run again with --format trt."
    )


def test_on_a_jetson_it_comes_with_jetpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(tensorrt_api, "JETSON", tmp_path)
    assert "apt install python3-libnvinfer" in tensorrt_api.install_hint()


def test_a_tensorrt_that_does_not_load_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    module = Broken("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", module)

    def fails(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(MissingBackend, match=r"installed but does not load \(libnvinfer\.so\.10: cannot open"):
        require_tensorrt()


def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("tensorrt")
    module.__spec__, module.__version__, module.IBuilderConfig = ModuleSpec("tensorrt", None), "8.5.3", object
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(MissingBackend, match=r"TensorRT 8\.5\.3 is too old, expected 8\.6 or later"):
        require_tensorrt()


# ------------------------------------------------------------------------------------------------------------ logger


def test_there_is_one_logger_and_it_keeps_errors_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = machine(monkeypatch).trt
    assert logger(trt) is logger(trt)
    with messages(trt) as outer:
        logger(trt).log(trt.ILogger.WARNING, "one")
        with messages(trt) as inner:
            logger(trt).log(trt.ILogger.ERROR, "two\n  lines")
            logger(trt).log(trt.ILogger.INFO, "nothing")
        logger(trt).log(trt.ILogger.INTERNAL_ERROR, "three")
    assert outer == [("warning", "one"), ("error", "three")]
    assert said(inner) == "two lines"


def test_what_tensorrt_fails_to_make_is_an_error_of_the_environment() -> None:
    def null() -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    for fails in (null, lambda: None):
        with pytest.raises(MissingBackend, match="TensorRT cannot make a builder here"):
            create("a builder", fails)
    assert create("a thing", lambda: SimpleNamespace(x=1)).x == 1


# -------------------------------------------------------------------------------------------------- what --env prints


def test_what_a_machine_has_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "8.6.0")
    monkeypatch.setattr("slimexport.target.cuda.device.DRIVER_FILES", ())
    gpu, tensorrt = engine_lines()
    assert gpu == "GPU for engines: NVIDIA Test GPU (sm_90, 0 GiB), CUDA runtime 12.4, the driver runs CUDA up to 12.8"
    assert tensorrt.startswith("TensorRT 8.6.0: engines in fp32,")


def test_what_a_machine_lacks_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, library=FakeCudart(devices=0))
    without_tensorrt(monkeypatch)
    gpu, tensorrt = engine_lines()
    assert gpu.startswith("GPU for engines: no GPU is visible here")
    assert tensorrt.startswith("no engines: TensorRT is not installed: pip install tensorrt")
