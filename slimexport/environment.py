"""`slimexport --env`: what is installed, and what it makes possible."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform

from slimexport import __version__
from slimexport.target.errors import MissingBackend
from slimexport.target.runners import onnxruntime_package, require_onnxruntime

PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
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
        lines.append(f"onnxruntime providers built in: {', '.join(providers)} (verification runs on the CPU)")
    except MissingBackend:
        lines.append(f"onnxruntime: not installed, files cannot be verified (pip install {onnxruntime_package()})")
    lines.append(f"GPU: {_gpu()}")
    return "\n".join(lines)


def _gpu() -> str:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "unknown without torch"
    if not torch.cuda.is_available():
        return "none that torch can use; exporting to ONNX and verifying need none"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(i) for i in range(count)) + f" (CUDA {torch.version.cuda})"
