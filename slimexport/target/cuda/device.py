"""The GPU of this machine, as a manifest describes it."""

from __future__ import annotations

import contextlib
import ctypes
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimexport.target.cuda.library import driver_library
from slimexport.target.cuda.runtime import Cuda, load_cuda, version_text
from slimexport.target.errors import MissingBackend

DRIVER_FILES = ("/sys/module/nvidia/version", "/proc/driver/nvidia/version")


@dataclass(frozen=True)
class GpuDevice:
    """`compute_capability` as `9.0`, `cuda` (the runtime) and `driver_cuda` (the newest that the driver runs) as `12.4`,
    `driver` as `550.54.15` or None where the system does not tell, memory in bytes."""

    gpu: str
    compute_capability: str
    cuda: str
    driver_cuda: str
    driver: str | None
    memory_bytes: int

    @property
    def sm(self) -> str:
        """`sm_90`."""
        return sm(self.compute_capability)

    def as_dict(self) -> dict[str, Any]:
        """For a record of where something was measured."""
        return asdict(self)


def sm(compute_capability: str) -> str:
    """`sm_90` for `9.0`."""
    return "sm_" + compute_capability.replace(".", "")


def require_gpu(after: str = "") -> tuple[Cuda, GpuDevice]:
    """The CUDA runtime and the first visible GPU. MissingBackend, ending in `after`, where there is none."""
    try:
        cuda = load_cuda()
        if cuda.device_count() == 0:
            raise MissingBackend("no GPU is visible here (CUDA_VISIBLE_DEVICES, a container without --gpus?).")
        device = _describe(cuda)
    except MissingBackend as error:
        if not after:
            raise
        raise MissingBackend(f"{error} {after}") from error
    return cuda, device


def _describe(cuda: Cuda) -> GpuDevice:
    capability = "{}.{}".format(*cuda.compute_capability())
    return GpuDevice(
        gpu=device_name() or sm(capability),
        compute_capability=capability,
        cuda=version_text(cuda.runtime_version()),
        driver_cuda=version_text(cuda.driver_version()),
        driver=_driver_release(),
        memory_bytes=cuda.memory_info()[1],
    )


def device_name(device: int = 0) -> str | None:
    """The driver's name of a GPU, or None where it does not tell."""
    driver = driver_library()
    if driver is None or driver.cuInit(0) != 0:
        return None
    number, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(number), device) != 0 or driver.cuDeviceGetName(text, len(text), number) != 0:
        return None
    return text.value.decode(errors="replace")


def _driver_release() -> str | None:
    for name in DRIVER_FILES:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if release := re.search(r"\d+\.\d+(\.\d+)?", Path(name).read_text(encoding="utf-8")):
                return release.group()
    return None
