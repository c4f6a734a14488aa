"""What this machine has for engines, a line each, and what that makes possible: a part of `slimexport --env`."""

from __future__ import annotations

from slimexport.target.cuda.device import require_gpu
from slimexport.target.errors import MissingBackend
from slimexport.target.tensorrt.api import describe, require_tensorrt


def engine_lines() -> list[str]:
    """The GPU with driver and CUDA runtime, and TensorRT. Nothing that is missing is an error here."""
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
    try:
        lines.append(describe(require_tensorrt()))
    except MissingBackend as error:
        lines.append(f"no engines: {error}")
    return lines
