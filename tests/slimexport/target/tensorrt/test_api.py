"""What is built on which TensorRT, and what is said where there is none that serves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slimexport.environment import engine_lines
from slimexport.target.errors import MissingBackend
from slimexport.target.tensorrt import api as tensorrt_api
from slimexport.target.tensorrt.api import (
    check_settings,
    create,
    emission,
    logger,
    messages,
    said,
    supported,
    target,
    targets,
)
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimtrain.base.errors import UserError
from tests.support.rtx import require_rtx
from tests.support.trt_fake import RTX, VERSIONS, inventory
from tests.support.trt_helpers import machine, without_gpu, without_modules

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
    gpu, tensorrt, _ = engine_lines()
    assert gpu == "GPU for engines: NVIDIA Test GPU (sm_90, 0 GiB), CUDA runtime 12.4, the driver runs CUDA up to 12.8"
    assert tensorrt.startswith("TensorRT 8.6.0: engines in fp32,")


def test_what_a_machine_lacks_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    without_modules(monkeypatch, "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    gpu, tensorrt, rtx = engine_lines()
    assert gpu.startswith("GPU for engines: no GPU is visible here")
    assert tensorrt.startswith("no engines: TensorRT is not installed: pip install tensorrt")
    assert rtx.startswith("no TensorRT-RTX engines: TensorRT-RTX is not installed: pip install 'slimmable-deploy[trt-rtx]'")


# ---------------------------------------------------------------------------------------------------------------- RTX


def test_the_real_rtx_builds_every_precision_for_every_generation() -> None:
    trt = require_rtx()
    assert tensorrt_api.describe(trt) == (
        f"TensorRT-RTX {trt.__version__}: engines in fp32, tf32, fp16, bf16, int8, built without a GPU, for compute "
        f"capability {', '.join(targets(trt))}"
    )
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(targets(trt))
    assert all(target(trt, capability).name == "SM" + capability.replace(".", "") for capability in targets(trt))


@pytest.mark.parametrize(
    ("version", "settings", "message"),
    [
        ("11.4.0", {"targets": ("8.6",)}, r"targets 8\.6: TensorRT builds for the GPU of its machine.*--format trt-rtx"),
        (RTX, {"targets": ("8.6", "9.0")}, r"compute capability 9\.0: TensorRT-RTX \S+ builds for 7\.5, 8\.0, 8\.6"),
        (RTX, {"version_compatible": True}, "builds no version-compatible or hardware-compatible engines"),
        (RTX, {"hardware_compatible": True}, "builds no version-compatible or hardware-compatible engines"),
    ],
)
def test_settings_that_a_library_lacks_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, settings: dict[str, Any], message: str
) -> None:
    trt = machine(monkeypatch, version).trt
    with pytest.raises(UserError, match=message) as caught:
        check_settings(trt, BuildSettings(**settings))
    assert caught.value.exit_code == 2


def test_the_inventory_of_rtx_is_what_it_has() -> None:
    trt = require_rtx()
    if trt.__version__ != RTX:
        pytest.skip(f"the inventory is of {RTX}")
    classes = {name: members for name, members in inventory(RTX).items() if isinstance(members, list)}
    named = [(getattr(trt, name), member) for name, listed in classes.items() for member in listed]
    assert len(classes) > 100 and [member for owner, member in named if not hasattr(owner, member)] == []
