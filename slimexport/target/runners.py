"""Running a bundle's files. A runner takes float32 images [N, C, H, W], or whatever the network takes, and gives logits
[N, classes], or whatever it gives: its output, or, where there are several, each by its name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU, CUDA
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.precision import row_of

Given: TypeAlias = Any  # an Array, or of several outputs a dict[str, Array]


def alone(outputs: dict[str, Array]) -> Given:
    """A network's outputs as a runner gives them."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class Runner(Protocol):
    """Something that runs one network."""

    backend: str

    def __call__(self, images: Array) -> Given: ...


def onnxruntime_package() -> str:
    """What to install: the GPU build runs on CPUs too, where there is a wheel of it."""
    import platform

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return "onnxruntime-gpu" if x86 and sys.platform in ("linux", "win32") else "onnxruntime"


def require_onnxruntime() -> Any:
    """The onnxruntime module; MissingBackend, with the command that installs it, where there is none."""
    try:
        installed = importlib.util.find_spec("onnxruntime") is not None
    except ValueError:  # a broken entry in sys.modules
        installed = False
    if not installed:
        raise MissingBackend(
            f"onnxruntime is not installed, so exported files cannot be verified: pip install {onnxruntime_package()}. "
            "Or export without proof: --no-verify."
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingBackend(
            f"onnxruntime is installed but does not load ({error}). Reinstall {onnxruntime_package()}."
        ) from error
    return onnxruntime


def runs_on_cpu(precision: str) -> bool:
    """Whether this onnxruntime computes files of `precision` rightly on a CPU."""
    since = row_of(precision).cpu_since
    if since is None:
        return False
    version = require_onnxruntime().__version__.split(".")
    return tuple(int(part) for part in version[:2]) >= since


PROVIDERS: dict[str, list[Any]] = {
    CPU: ["CPUExecutionProvider"],
    CUDA: [("CUDAExecutionProvider", {"use_tf32": "0"})],  # fp32 is fp32
}


class OnnxRuntimeRunner:
    """An ONNX file in onnxruntime with its default settings, as users run it, on the CPU or on a GPU (`device`).

    `content` is what is run in the file's place, under the name `backend`, where the CPU cannot run the file itself.
    Raises MissingBackend where CUDA is asked for and onnxruntime falls back to the CPU.
    """

    def __init__(self, path: Path, content: bytes | None = None, backend: str = "", device: str = CPU) -> None:
        self.backend = backend or device
        onnxruntime = require_onnxruntime()
        if device == CUDA:
            onnxruntime.set_default_logger_severity(4)  # why CUDA cannot load is told below, in words
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings belong to no table
        try:
            self.session = onnxruntime.InferenceSession(content or str(path), options, providers=PROVIDERS[device])
        except Exception as error:  # onnxruntime has a dozen exception types, all derived from Exception alone
            raise BundleError(f"{path.name}: onnxruntime does not load it ({str(error).splitlines()[0]}).") from error
        wanted, provider = _provider(device), self.session.get_providers()[0]
        if provider != wanted:
            raise MissingBackend(
                f"{device}: onnxruntime could not load {wanted} and would use {provider} in its place. Install "
                f"{onnxruntime_package()}, CUDA and cuDNN for it, or verify with --backend {CPU}."
            )
        self.name = path.name
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: Array) -> Given:
        try:
            arrays = [np.asarray(array) for array in self.session.run(None, {self.input: images})]
            return alone(dict(zip(self.outputs, arrays, strict=True)))
        except Exception as error:  # as above: such as images of another size
            raise BundleError(f"{self.name}: onnxruntime does not run it ({str(error).splitlines()[0]}).") from error


def _provider(device: str) -> str:
    """The execution provider that `device` stands for."""
    first = PROVIDERS[device][0]
    return str(first if isinstance(first, str) else first[0])
