"""What differs between TensorRT 8.6, 10, 11 and TensorRT-RTX: names that a version has or lacks, asked for with `hasattr`.

Values of TensorRT's enumerations differ between versions too and are never stored. 8.6 types a network's tensors itself, as
flags permit (weak typing); 10, 11 and RTX are given networks whose tensors have types (strong typing), and nothing is left
to them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slimexport.target.errors import MissingBackend
from slimexport.target.precision import PRECISIONS, Precision, Recipe
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.libraries import library_of, titled
from slimtrain.base.errors import UserError

NUMBERS = {"FLOAT": "float32", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}  # of outputs; 8.6 has no INT64
EFFICIENT_NMS = "EfficientNMS_TRT"


@dataclass(frozen=True)
class Emission:
    """What an engine of `precision` is built from here: the bundle's ONNX file of precision `onnx`, with builder flags (by
    name) where the network itself does not say all."""

    precision: str
    onnx: str
    flags: tuple[str, ...] = ()


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
            f"{precision}: {titled(trt)} builds no {precision} engines, TensorRT 10 and later do. Choose from "
            f"{', '.join(supported(trt))}."
        )
    return Emission(precision, recipe.onnx, recipe.flags)


def _recipe(trt: Any, row: Precision) -> Recipe | None:
    return row.strong if strongly_typed(trt) else row.weak


def supported(trt: Any) -> tuple[str, ...]:
    """The precisions that this TensorRT builds."""
    return tuple(name for name, row in PRECISIONS.items() if _recipe(trt, row))


def number_of(trt: Any, kind: Any) -> str | None:
    """NumPy's name of a tensor's type; None where outputs of that type are not run here."""
    known = {name: number for name, number in NUMBERS.items() if hasattr(trt.DataType, name)}
    return next((number for name, number in known.items() if kind == getattr(trt.DataType, name)), None)


def load_plugins(trt: Any) -> None:
    """Make TensorRT's own plugins known, before a file or a plan that has some is read: RoiAlign is one. Where that fails,
    what reads one says so."""
    trt.init_libnvinfer_plugins(logger(trt), "")


def has_efficient_nms(trt: Any) -> bool:
    """Whether this library has the plugin EfficientNMS_TRT, of an interface that 11 and RTX lack."""
    if not hasattr(trt.IPluginRegistry, "get_plugin_creator"):
        return False
    load_plugins(trt)
    return trt.get_plugin_registry().get_plugin_creator(EFFICIENT_NMS, "1", "") is not None


def describe(trt: Any) -> str:
    """A line for `slimexport --env`."""
    there = supported(trt)
    lacking = [name for name, row in PRECISIONS.items() if row.strong and name not in there]
    without = f" (no {', '.join(lacking)} before TensorRT 10)" if lacking else ""
    anywhere = (
        f", built without a GPU, for compute capability {', '.join(targets(trt))}" if library_of(trt).builds_anywhere else ""
    )
    return f"{titled(trt)}: engines in {', '.join(there)}{without}{anywhere}"


def targets(trt: Any) -> tuple[str, ...]:
    """The compute capabilities that engines can be built for where that is a choice, as `8.6`, ascending."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    numbers = sorted(int(name[2:]) for name in members if re.fullmatch(r"SM\d+", name))
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def check_settings(trt: Any, settings: BuildSettings) -> None:
    """UserError for settings that this library does not have, before anything is built."""
    library, known = library_of(trt), targets(trt)
    if not library.builds_anywhere:
        if settings.targets:
            raise UserError(
                f"targets {', '.join(settings.targets)}: TensorRT builds for the GPU of its machine. Leave out --targets, or "
                "build for other GPUs with --format trt-rtx."
            )
        return
    if settings.version_compatible or settings.hardware_compatible:
        raise UserError(
            f"{titled(trt)} builds no version-compatible or hardware-compatible engines: those of one version run on all "
            "GPUs that --targets names, from Ampere on by default. Leave out --version-compatible and --hardware-compatible."
        )
    if missing := [wanted for wanted in settings.targets if wanted not in known]:
        raise UserError(
            f"compute capability {', '.join(missing)}: {titled(trt)} builds for {', '.join(known)}. Choose from these with "
            "--targets, or leave it out for all from 8.0 on."
        )


def target(trt: Any, capability: str) -> Any:
    """The library's name of a compute capability."""
    return trt.ComputeCapability.__members__["SM" + capability.replace(".", "")]


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
