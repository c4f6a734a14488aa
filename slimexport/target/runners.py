"""Running a bundle's files. A runner takes float32 images [N, C, H, W], or whatever the network takes, and gives logits
[N, classes], or whatever it gives: its output, or, where there are several, each by its name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU, CUDA
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.limits import Budget, FirstRuns
from slimexport.target.manifest import Artifact
from slimexport.target.precision import row_of
from slimtrain.base.files import library_name
from slimtrain.base.untrusted.quoting import quoted, shortened

MOST_REASON = 300  # letters of what onnxruntime says
Given: TypeAlias = Any  # an Array, or of several outputs a dict[str, Array]


def alone(outputs: dict[str, Array]) -> Given:
    """A network's outputs as a runner gives them."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class Runner(Protocol):
    """Something that runs one network."""

    backend: str

    def __call__(self, images: Array, /) -> Given: ...


class OpenRunner(Runner, Protocol):
    """One that holds what it runs."""

    def close(self) -> None:
        """Free what it holds; it cannot run again."""


@runtime_checkable
class FileRunner(Runner, Protocol):
    """One that opens other networks as it opened its file: `content` is what it runs, its one input `input`. `stands_in`:
    that is a file in float32 in the place of one that cannot be run."""

    @property
    def input(self) -> str: ...

    @property
    def content(self) -> bytes: ...

    @property
    def stands_in(self) -> bool: ...

    def opened(self, content: bytes, /) -> OpenRunner: ...


def onnxruntime_package() -> str:
    """What to install: the GPU build runs on CPUs too, where there is a wheel of it."""
    import platform

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return "onnxruntime-gpu" if x86 and sys.platform in ("linux", "win32") else "onnxruntime"


def require_module(name: str, missing: str, broken: str) -> Any:
    """A package's module. MissingBackend where it is not installed, which says `missing`, or does not load: what to do is in
    `broken`."""
    try:
        installed = importlib.util.find_spec(name) is not None
    except ValueError:  # a broken entry in sys.modules
        installed = False
    if not installed:
        raise MissingBackend(missing)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingBackend(f"{name} is installed but does not load ({error}). {broken}") from error


def require_onnxruntime() -> Any:
    """The onnxruntime module; MissingBackend, with the command that installs it, where there is none."""
    return require_module(
        "onnxruntime",
        missing=f"onnxruntime is not installed, so exported files cannot be verified: pip install {onnxruntime_package()}. "
        "Or export without proof: --no-verify.",
        broken=f"Reinstall {onnxruntime_package()}.",
    )


def runs_on_cpu(precision: str) -> bool:
    """Whether this onnxruntime computes files of `precision` rightly on a CPU."""
    since = row_of(precision).cpu_since
    if since is None:
        return False
    version = require_onnxruntime().__version__.split(".")
    return tuple(int(part) for part in version[:2]) >= since


def lacks_on_cpu(precision: str) -> str:
    """Why this onnxruntime runs no files of `precision` on a CPU, or nothing."""
    return "" if runs_on_cpu(precision) else f"this onnxruntime's CPU has no kernels for {precision}, or wrong ones"


def lacks_on_cuda(precision: str) -> str:
    """Why onnxruntime loads no files of `precision` on a GPU, or nothing."""
    return "" if row_of(precision).on_cuda else f"onnxruntime's CUDA lacks kernels for {precision}"


PROVIDERS: dict[str, list[Any]] = {
    CPU: ["CPUExecutionProvider"],
    CUDA: [("CUDAExecutionProvider", {"use_tf32": "0"})],  # fp32 is fp32
}
UNTUNED = {"cudnn_conv_algo_search": "HEURISTIC"}  # of a provider that would try them all by default


NUMBERS = {f"tensor({name})" for name in ("float", "float16", "double", "bfloat16", "bool")} | {
    f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def tensor_names(session: Any, file: str) -> tuple[str, list[str]]:
    """What a session's input and outputs are called. BundleError where it has not one input, of float32, or gives something
    else than numbers."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [given.type for given in inputs] != ["tensor(float)"]:
        takes = ", ".join(f"{given.name} {given.type}" for given in inputs)
        raise BundleError(f"{file}: takes {quoted(takes)}, expected one input, tensor(float). Export again.")
    if others := [output for output in outputs if output.type not in NUMBERS]:
        raise BundleError(f"{file}: gives {quoted(others[0].name)} {quoted(others[0].type)}, expected numbers. Export again.")
    return inputs[0].name, [output.name for output in outputs]


class OnnxRuntimeRunner:
    """An ONNX file in onnxruntime with its default settings, as users run it, on the CPU or on a GPU (`device`).

    `content` is what is run in the file's place, under the name `backend`, where the CPU cannot run the file itself.
    `threads`: of a run on the CPU, by default what onnxruntime takes; they wait for work `spinning`, which is quickest where
    they have the CPU to themselves. On a GPU the first run of every batch size times all algorithms that cuDNN has, which
    takes seconds; without `tuning` cuDNN's own guess is taken. `frugal`: it holds no memory between runs. With a `budget`,
    loading and the first run of every batch size take no more than it explains. Raises BundleError for a file that is no
    network of one input, MissingBackend where CUDA is asked for and onnxruntime falls back to the CPU."""

    def __init__(
        self,
        path: Path,
        content: bytes | None = None,
        backend: str = "",
        device: str = CPU,
        budget: Budget | None = None,
        threads: int | None = None,
        spinning: bool = True,
        tuning: bool = True,
        frugal: bool = False,
    ) -> None:
        self.backend = backend or device
        self.name = path.name
        self._path, self._content = path, content
        self._settings: dict[str, Any] = {
            "device": device,
            "budget": budget,
            "threads": threads,
            "spinning": spinning,
            "tuning": tuning,
        }
        self._first = FirstRuns(self.name, budget)
        onnxruntime = require_onnxruntime()
        self._run_options = onnxruntime.RunOptions  # looking for the module takes longer than a small network does
        if device == CUDA:
            onnxruntime.set_default_logger_severity(4)  # why CUDA cannot load is told below, in words
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings belong to no table
        if threads is not None:
            options.intra_op_num_threads = threads
        if frugal:
            make_frugal(options)
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            with library_name(path) as name:
                self.session: Any = self._first.load(
                    lambda: onnxruntime.InferenceSession(content or name, options, providers=_providers(device, tuning))
                )
        except BundleError:
            raise
        except Exception as error:  # onnxruntime has a dozen exception types, all derived from Exception alone
            raise BundleError(f"{path.name}: onnxruntime does not load it ({_first_line(error)}).") from error
        wanted, provider = _provider(device), self.session.get_providers()[0]
        if provider != wanted:
            raise MissingBackend(
                f"{device}: onnxruntime could not load {wanted} and would use {provider} in its place. Install "
                f"{onnxruntime_package()}, CUDA and cuDNN for it, or verify with --backend {CPU}."
            )
        self.input, self.outputs = tensor_names(self.session, self.name)

    def __call__(self, images: Array) -> Given:
        options, session = self._run_options(), self.session

        def stop() -> None:
            options.terminate = True

        try:
            given = self._first.run(len(images), lambda: session.run(None, {self.input: images}, options), stop)
            return alone(dict(zip(self.outputs, map(np.asarray, given), strict=True)))
        except BundleError:
            raise
        except Exception as error:  # as above: such as images of another size
            raise BundleError(f"{self.name}: onnxruntime does not run it ({_first_line(error)}).") from error

    @property
    def content(self) -> bytes:
        """What is run, as a file has it."""
        return self._path.read_bytes() if self._content is None else self._content

    @property
    def stands_in(self) -> bool:
        """Whether that is not the file itself."""
        return self._content is not None

    def opened(self, content: bytes) -> OnnxRuntimeRunner:
        """Another network, run as this one is."""
        return OnnxRuntimeRunner(self._path, content, self.backend, **self._settings)

    def close(self) -> None:
        """Free the session's memory; it cannot run again."""
        self.session = None


def open_on_cpu(path: Path, artifact: Artifact) -> OnnxRuntimeRunner:
    """A bundle's ONNX file on the CPU."""
    return OnnxRuntimeRunner(path, budget=Budget.of(artifact))


def open_on_cuda(path: Path, artifact: Artifact) -> OnnxRuntimeRunner:
    """A bundle's ONNX file on a GPU, by cuDNN's own guess: a proof runs each batch size a few times, for which trying all
    algorithms does not pay, and which of them is the quickest changes from run to run."""
    return OnnxRuntimeRunner(path, device=CUDA, budget=Budget.of(artifact), tuning=False)


def make_frugal(options: Any) -> None:
    """Let sessions of these options give memory back as soon as nothing is in it: what they compute is the same. An arena
    grows by doubling, and keeps what its largest batch took."""
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False


def _first_line(error: Exception) -> str:
    return shortened((str(error) or type(error).__name__).splitlines()[0], MOST_REASON)


def _providers(device: str, tuning: bool) -> list[Any]:
    """What a session of `device` is opened with."""
    if tuning or device != CUDA:
        return PROVIDERS[device]
    return [(name, {**options, **UNTUNED}) for name, options in PROVIDERS[device]]


def _provider(device: str) -> str:
    """The execution provider that `device` stands for."""
    first = PROVIDERS[device][0]
    return str(first if isinstance(first, str) else first[0])
