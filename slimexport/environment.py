"""`slimexport --env`: what is installed, and what it makes possible."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from slimexport import __version__
from slimexport.target.cuda.device import require_gpu
from slimexport.target.errors import MissingBackend
from slimexport.target.runners import onnxruntime_package, require_onnxruntime
from slimexport.target.tensorrt.api import describe as describe_library
from slimexport.target.tensorrt.libraries import LIBRARIES, require_tensorrt
from slimtrain.base.packages import EXTRAS, is_installed, package_of

CUDA_PROVIDER = "CUDAExecutionProvider"
PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx-cu12-bindings",
    "numpy",
    "safetensors",
    "PyYAML",
    "click",
)


def describe() -> str:
    """Versions, devices and providers, a line each. Nothing that is missing is an error here."""
    lines = [
        f"slimexport {__version__}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            if package not in ("onnxruntime", "onnxruntime-gpu"):
                lines.append(f"{package}: not installed")
    try:
        providers = require_onnxruntime().get_available_providers()
        lines.append(f"onnxruntime providers built in: {', '.join(providers)}")
        lines.append("  verifies on the CPU" + (", with CUDA and cuDNN on a GPU too" if CUDA_PROVIDER in providers else ""))
    except MissingBackend:
        lines.append(f"onnxruntime: not installed, files cannot be verified (pip install {onnxruntime_package()})")

    return "\n".join([*lines, *engine_lines(), "exporting to ONNX and verifying need neither", *extra_lines()])


def extra_lines() -> list[str]:
    """What each extra makes possible: that it can be done here, or what is missing for it and how to install that."""
    lines = []
    for extra in EXTRAS:
        missing = [package_of(module) for module in extra.modules if not is_installed(module)]
        state = f"{', '.join(missing)} missing: {extra.command}" if missing else "everything is installed"
        lines.append(f"to {extra.purpose}: {state}")
    return lines


def engine_lines() -> list[str]:
    """The GPU with driver and CUDA runtime, TensorRT and TensorRT-RTX. Nothing that is missing is an error here."""
    lines = []
    try:
        device = require_gpu()[1]
        driver = f"driver {device.driver}" if device.driver else "the driver"
        lines.append(
            f"GPU for engines: {device.gpu} ({device.sm}, {device.memory_bytes / 2**30:.0f} GiB), CUDA runtime {device.cuda}, "
            f"{driver} runs CUDA up to {device.driver_cuda}"
        )
    except MissingBackend as error:
        lines.append(f"GPU for engines: {error}")
    for library in LIBRARIES.values():
        try:
            lines.append(describe_library(require_tensorrt(library=library)))
        except MissingBackend as error:
            lines.append(f"no {library.engine}s: {error}")
    return lines
