"""What differs between TensorRT 8.6, 10 and 11: names that a version has or lacks, asked for with `hasattr`.

Values of TensorRT's enumerations differ between versions too and are never stored. 8.6 types a network's tensors itself, as
flags permit (weak typing); 10 and 11 are given networks whose tensors have types (strong typing), and nothing is left
to them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimexport.target.cuda.library import driver_library
from slimexport.target.errors import MissingBackend
from slimexport.target.precision import PRECISIONS, Precision, Recipe

JETSON = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Emission:
    """What an engine of `precision` is built from here: the bundle's ONNX file of precision `onnx`, with builder flags (by
    name) where the network itself does not say all."""

    precision: str
    onnx: str
    flags: tuple[str, ...] = ()


def install_hint() -> str:
    """What installs TensorRT here; wheels are for one CUDA, and the driver says which one runs."""
    if sys.platform == "linux" and platform.machine() == "aarch64" and JETSON.exists():
        return "sudo apt install python3-libnvinfer (JetPack's; a virtual environment needs --system-site-packages)"
    package = "tensorrt-cu12" if _driver_cuda_major() == 12 else "tensorrt-cu13"
    return f"pip install {package} (its libraries come from NVIDIA's package index)"


def _driver_cuda_major() -> int | None:
    driver, version = driver_library(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000


def require_tensorrt(after: str = "") -> Any:
    """The tensorrt module. MissingBackend, with what installs it and then `after`, where there is none that serves."""
    try:
        installed = importlib.util.find_spec("tensorrt") is not None
    except ValueError:  # a broken entry in sys.modules
        installed = False
    if not installed:
        raise _missing(f"TensorRT is not installed: {install_hint()}.", after)
    try:
        tensorrt = importlib.import_module("tensorrt")
    except Exception as error:  # its loader raises ImportError, OSError, RuntimeError and others for missing libraries
        raise _missing(f"TensorRT is installed but does not load ({error}): {install_hint()}.", after) from error
    if not hasattr(tensorrt.IBuilderConfig, "builder_optimization_level"):
        raise _missing(f"TensorRT {tensorrt.__version__} is too old, expected 8.6 or later: {install_hint()}.", after)
    return tensorrt


def _missing(message: str, after: str) -> MissingBackend:
    return MissingBackend(f"{message} {after}".rstrip())


def strongly_typed(trt: Any) -> bool:
    """Whether this TensorRT takes the types that a network's tensors have; 8.6 does not."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def bit(value: Any) -> int:
    """The bit of an enumeration's value in a mask."""
    return 1 << int(value)


def network_flags(trt: Any) -> int:
    """For `create_network`."""
    if strongly_typed(trt):
        return bit(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return bit(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


def emission(trt: Any, precision: str) -> Emission:
    """Which ONNX file an engine of `precision` is built from here, and how. MissingBackend where this TensorRT cannot."""
    recipe = _recipe(trt, PRECISIONS[precision])
    if recipe is None:
        raise MissingBackend(
            f"{precision}: TensorRT {trt.__version__} builds no {precision} engines, TensorRT 10 and later do. Choose from "
            f"{', '.join(supported(trt))}."
        )
    return Emission(precision, recipe.onnx, recipe.flags)


def _recipe(trt: Any, row: Precision) -> Recipe | None:
    return row.strong if strongly_typed(trt) else row.weak


def supported(trt: Any) -> tuple[str, ...]:
    """The precisions that this TensorRT builds."""
    return tuple(name for name, row in PRECISIONS.items() if _recipe(trt, row))


def describe(trt: Any) -> str:
    """A line for `slimexport --env`."""
    there = supported(trt)
    lacking = [name for name, row in PRECISIONS.items() if row.strong and name not in there]
    without = f" (no {', '.join(lacking)} before TensorRT 10)" if lacking else ""
    return f"TensorRT {trt.__version__}: engines in {', '.join(there)}{without}"


@functools.cache
def logger(trt: Any) -> Any:
    """The process's one logger (TensorRT keeps the first it is given): an `ILogger` that collects in `messages`."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        """Errors and warnings as (level, text); `log` is called by TensorRT, from any of its threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.messages.append(("error", msg))
            elif severity == trt.ILogger.WARNING:
                self.messages.append(("warning", msg))

    return Collector()


@contextmanager
def messages(trt: Any) -> Iterator[list[tuple[str, str]]]:
    """What TensorRT says in a `with` block: a list of (level, text) that grows."""
    collector = logger(trt)
    before, collector.messages = collector.messages, []
    try:
        yield collector.messages
    finally:
        collector.messages = before


def said(collected: list[tuple[str, str]], level: str = "error", most: int = 3) -> str:
    """The last `most` messages of a level as one line."""
    return " | ".join([" ".join(text.split()) for kind, text in collected if kind == level][-most:])


def create(what: str, factory: Any, *arguments: Any) -> Any:
    """`factory(*arguments)` for objects that TensorRT fails to make where the GPU or its driver does not serve."""
    try:
        instance = factory(*arguments)
    except TypeError as error:  # pybind11's word for a null pointer
        raise MissingBackend(
            f"TensorRT cannot make {what} here ({error}). Does the GPU's driver fit this TensorRT?"
        ) from error
    if instance is None:
        raise MissingBackend(f"TensorRT cannot make {what} here. Is there memory left on the GPU, does its driver fit?")
    return instance
