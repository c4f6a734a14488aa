"""What a plan file was built for, told from the manifest or from its first bytes, before TensorRT is given it.

A plan begins with a tag and the version of its serialization; with version 0, bytes 24 to 27 are TensorRT's version. (From
the samples that come with TensorRT, `sampleEngines.cpp`; TensorRT-RTX writes the same with a tag of its own.)
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from slimexport.target.cuda.device import GpuDevice, sm
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import Engine
from slimexport.target.tensorrt.libraries import LIBRARIES, TRT_LIBRARY, Library

HEADER_BYTES = 28
AMPERE = (8, 0)
VERSION_COMPATIBLE = ((8, 10), (10, 11))  # majors: a version-compatible plan of the one runs on the other
LEAST_NUMBERS = 3


class PlanMismatch(MissingBackend):
    """A plan that is whole, but not for this machine."""


@dataclass(frozen=True)
class PlanHeader:
    """`tensorrt` as `8.6.0.12`; None where this serialization version is not known."""

    serialization: int
    tensorrt: str | None


def read_header(plan: bytes, name: str, library: Library = TRT_LIBRARY) -> PlanHeader:
    """The header of a plan's bytes. BundleError where they are none of this library."""
    title = library.title
    if len(plan) < HEADER_BYTES:
        raise BundleError(f"{name}: {len(plan)} bytes are no {title} plan. The file is damaged, build it again.")
    tag, serialization = struct.unpack_from("<4sI", plan)
    if tag != library.tag:
        if owner := next((row for row in LIBRARIES.values() if row.tag == tag), None):
            raise BundleError(f"{name}: is a {owner.title} plan, expected one of {title}. Run it with {owner.backend}.")
        raise BundleError(
            f"{name}: begins with {plan[:4]!r}, a {title} plan begins with {library.tag!r}. It is no plan, or "
            "something was put before it: build it again."
        )
    version = ".".join(map(str, plan[HEADER_BYTES - 4 : HEADER_BYTES])) if serialization == 0 else None
    return PlanHeader(serialization, version)


def numbers(version: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) for `10.13.3.9`; a suffix such as `.post1` ends it."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading.group().split("."))) if leading else ()


def same_version(one: str, other: str) -> bool:
    """Whether two versions are one: some say three numbers where others say four."""
    count = min(len(numbers(one)), len(numbers(other)))
    return count >= LEAST_NUMBERS and numbers(one)[:count] == numbers(other)[:count]


def check_plan(
    plan: bytes, name: str, engine: Engine | None, tensorrt: str, device: GpuDevice, library: Library = TRT_LIBRARY
) -> None:
    """PlanMismatch unless a plan can run on this machine, as far as can be told; BundleError where it is none.

    `engine`: the manifest's entry, where there is one. `tensorrt`: the version of `library` that is installed.
    """
    header = read_header(plan, name, library)
    flags = engine.flags if engine else ()
    built = engine.tensorrt if engine else header.tensorrt
    capability = engine.compute_capability if engine else None
    if library.builds_anywhere:
        fits = engine is None or runs_on(engine.targets, device.compute_capability)
        target = f" for {_names(engine.targets)}" if engine else ""
    else:
        fits = _gpu_fits(capability, device.compute_capability, "AMPERE_PLUS" in flags)
        target = f" for {sm(capability)}" if capability else ""
    if fits and _version_fits(built, tensorrt, "VERSION_COMPATIBLE" in flags):
        return
    source = engine.onnx if engine else f"{name.split('.', 1)[0]}.onnx"
    raise PlanMismatch(
        f"engine {name} was built with {library.title} {built}{target}; this machine has {tensorrt} and {device.sm}. Engines "
        f"are not portable: rebuild from {source}."
    )


def fit_together(engines: Sequence[Engine]) -> bool:
    """Whether some machine can run all of these, as far as can be told: with the TensorRT that the latest was built with, on
    the GPU of one of them."""
    latest = max((engine.tensorrt for engine in engines), key=numbers, default="")
    gpus = [engine.compute_capability for engine in engines if engine.compute_capability is not None]
    return all(_version_fits(engine.tensorrt, latest, "VERSION_COMPATIBLE" in engine.flags) for engine in engines) and (
        not gpus
        or any(
            all(_gpu_fits(engine.compute_capability, gpu, "AMPERE_PLUS" in engine.flags) for engine in engines) for gpu in gpus
        )
    )


def runs_on(targets: Sequence[str], capability: str) -> bool:
    """Whether an engine for these compute capabilities (none: from Ampere on) runs on a GPU of this one."""
    return capability in targets if targets else numbers(capability) >= AMPERE


def _names(targets: Sequence[str]) -> str:
    return ", ".join(map(sm, targets)) or f"{sm('.'.join(map(str, AMPERE)))} and later"


def _version_fits(built: str | None, installed: str, compatible: bool) -> bool:
    if built is None or same_version(built, installed):
        return True
    old, new = numbers(built), numbers(installed)
    if not compatible or not old or old > new:
        return False
    return old[0] == new[0] or (old[0], new[0]) in VERSION_COMPATIBLE


def _gpu_fits(built: str | None, here: str, compatible: bool) -> bool:
    if built is None or built == here:
        return True
    return compatible and numbers(built) >= AMPERE and numbers(here) >= AMPERE
