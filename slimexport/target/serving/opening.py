"""The files of a bundle that a runtime serves, opened: which of them, on which backend."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import BACKENDS, CPU, CUDA, ENGINES, ONNX, backend_for
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.limits import Budget
from slimexport.target.manifest import Artifact, Manifest, artifact_path
from slimexport.target.runners import Given, OnnxRuntimeRunner, OpenRunner
from slimexport.target.serving.answer import WidthInfo, WidthState
from slimexport.target.serving.by_size import BySize
from slimexport.target.timings.kept import cpu_name
from slimexport.target.verification import PASSED
from slimtrain.base.errors import nearest
from slimtrain.base.text import some
from slimtrain.base.untrusted.quoting import reason

log = logging.getLogger(__name__)

MOST_IMAGES = 4096  # of a run
FAILURES = 3  # in a row take a width out


@dataclass(frozen=True)
class OpenFile:
    """A file that runs: `label` is what policies, metrics and options call its width. `sizes`: batches that have run, where
    others would have to be prepared for first; what is asked for runs in the next larger one of these, filled with zeros.
    `numbers`: the types of outputs by name, where a runner gives others."""

    label: str
    artifact: Artifact
    runner: OpenRunner
    sizes: tuple[int, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *images: Array) -> Given:
        """Of one array [N, ...], or of several after each other, in one run."""
        if len(images) == 1 and not self.sizes:
            return self._run(images[0])  # as mostly
        if (together := getattr(self.runner, "together", None)) is not None:  # an engine, which takes every size
            return self._typed(together(images))
        count = sum(map(len, images))
        size = next((size for size in self.sizes if size >= count), count)
        if size > count:
            filling = np.zeros((size - count, *images[0].shape[1:]), images[0].dtype)
            return _first(self._run(np.concatenate([*images, filling])), count)
        return self._run(images[0] if len(images) == 1 else np.concatenate(images))

    def _run(self, images: Array) -> Given:
        return self._typed(self.runner(images))

    def _typed(self, given: Given) -> Given:
        if not self.numbers or not isinstance(given, dict):
            return given
        return {name: rows.astype(self.numbers.get(name, rows.dtype), copy=False) for name, rows in given.items()}


class OpenFiles:
    """The files that `serve`, as latencies count them; those that are `out`, by label, with the reason. A file goes out where
    a run of it hangs, or FAILURES in a row fail while others are left. Whoever uses it holds the runtime's lock."""

    def __init__(self, files: Sequence[OpenFile]) -> None:
        self.serve = list(files)
        self.out: dict[str, str] = {}
        self._failures: Counter[str] = Counter()  # in a row
        self._too_often: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.serve)

    def is_at(self, file: OpenFile, width: int) -> bool:
        """Whether a file is still the one of number `width`: others may have gone out since."""
        return width < len(self.serve) and self.serve[width] is file

    def ended(self, file: OpenFile, failure: BaseException | None) -> None:
        """A run of it did. What a signal's handler raises, as Ctrl-C does, is no failure."""
        if failure is None:
            self._failures[file.label] = 0
            self._too_often.pop(file.label, None)
        elif isinstance(failure, Exception):
            self._failures[file.label] += 1
            if self._failures[file.label] >= FAILURES:
                self._too_often[file.label] = f"{FAILURES} runs in a row failed ({reason(failure)})"

    def to_go(self) -> tuple[int, str] | None:
        """A width that failed too often, and why, while others are left. A thread of the runtime's takes it out: Ctrl-C in the
        midst of that would leave files and latencies of different widths."""
        if not self._too_often:
            return None  # as mostly
        failing = ((number, self._too_often.get(file.label)) for number, file in enumerate(self.serve))
        return next(((number, why) for number, why in failing if why), None) if len(self.serve) > 1 else None

    def take_out(self, width: int, why: str) -> OpenFile:
        file = self.serve.pop(width)
        self.out[file.label] = why
        log.error("width %s is taken out: %s", file.label, why)
        return file

    def states(self, widths: Sequence[WidthInfo], answered: Mapping[str, int]) -> list[WidthState]:
        return [WidthState(info.label, info.accuracy, answered[info.label], self.out.get(info.label, "")) for info in widths]

    def none_left(self) -> str:
        return "no width is left: " + "; ".join(f"{label}: {why}" for label, why in self.out.items())

    def close(self) -> None:
        files, self.serve = self.serve, []
        for file in files:
            file.runner.close()


def _first(given: Given, count: int) -> Given:
    """The rows of the first so many images."""
    return {name: rows[:count] for name, rows in given.items()} if isinstance(given, dict) else given[:count]


def accuracy_of(artifact: Artifact) -> float | None:
    """Its share of right answers, or average precision, where the manifest knows it of this very file."""
    accuracy = artifact.own_accuracy
    return None if accuracy is None else accuracy.share


def info_of(file: OpenFile) -> WidthInfo:
    """What a runtime says of an open width."""
    return WidthInfo(file.label, file.artifact.width, file.artifact.name, accuracy_of(file.artifact))


def label_of(artifact: Artifact, manifest: Manifest) -> str:
    """`0.25`, an AutoSlim switch's number, or the plan's name."""
    return manifest.plan_name(artifact) if artifact.width is None else f"{artifact.width:g}"


def choose_backend(manifest: Manifest, backend: str | None) -> str:
    """`backend`, or by default what runs the bundle's engines, where that is here, else onnxruntime on the CPU."""
    if backend is not None:
        if backend not in BACKENDS:
            raise BundleError(f"backend {backend!r}: not known{nearest(backend, BACKENDS)}. Available: {', '.join(BACKENDS)}.")
        return backend
    for form in ENGINES:
        engines = [artifact for artifact in manifest.of_format(form) if artifact.verification.status == PASSED]
        if not engines:
            continue
        name = backend_for(form)
        try:
            from slimexport.target.cuda.device import require_gpu
            from slimexport.target.tensorrt.libraries import LIBRARIES, require_tensorrt

            require_tensorrt(library=LIBRARIES[form])
            require_gpu()
        except MissingBackend as error:
            log.info("%s engines are not served: %s", form, error)
            continue
        return name
    return CPU


def files_of(
    folder: Path, manifest: Manifest, backend: str, precision: str, widths: Sequence[float | str] | None
) -> list[Artifact]:
    """The artifacts that could be served, or those of `widths`, from the fewest multiply-accumulates to the most. BundleError
    where there is none, or a width is not among them."""
    row = BACKENDS[backend]
    if reason := row.cannot_run(precision):
        raise BundleError(f"{folder}: {precision} files are not served: {reason}. Use another precision or backend.")
    if known := artifacts_of(folder, manifest, row.format, precision, widths):
        return known
    there = dict.fromkeys(f"{artifact.precision} ({artifact.format})" for artifact in manifest.artifacts)
    raise BundleError(
        f"{folder}: holds no {precision} file that {backend} runs, it has {', '.join(there) or 'none'}. Choose with "
        "--precision and --backend, or export what is missing."
    )


def artifacts_of(
    folder: Path, manifest: Manifest, form: str, precision: str, widths: Sequence[float | str] | None
) -> list[Artifact]:
    """All of a format and precision, or those of `widths`, from the fewest multiply-accumulates to the most; none where there
    is none. BundleError where a width is not among them."""
    known = [artifact for artifact in manifest.of_format(form) if artifact.precision == precision]
    known.sort(key=lambda artifact: (artifact.macs, artifact.params))
    if widths is None or not known:
        return known
    labels = {label_of(artifact, manifest): artifact for artifact in known}
    wanted = {text if isinstance(text, str) else f"{text:g}" for text in widths}
    if not wanted:
        raise BundleError(f"{folder}: no width was chosen. It has {some(list(labels))}.")
    if missing := [label for label in wanted if label not in labels]:
        raise BundleError(f"{folder}: holds no width {missing[0]} in {precision}. It has {some(list(labels))}.")
    return [artifact for label, artifact in labels.items() if label in wanted]


def open_file(folder: Path, manifest: Manifest, artifact: Artifact, backend: str, threads: int | None) -> OpenFile:
    """One of them, its SHA-256 checked, ready to run. BundleError where it is not what the manifest says or does not load."""

    def open_one() -> OpenRunner:
        path = artifact_path(folder, artifact)
        if artifact.format != ONNX or backend not in (CPU, CUDA):
            opened: OpenRunner = BACKENDS[backend].open(path, artifact)
            return opened
        # every width has threads of its own: those that wait for its next run must not take the CPU from another one's; and
        # five widths with six batches each leave no time at the start to try every algorithm
        return OnnxRuntimeRunner(
            path, device=backend, budget=Budget.of(artifact), threads=threads, spinning=False, tuning=False
        )

    runner = BySize(open_one) if BACKENDS[backend].tunes else open_one()
    engine = artifact.engine is not None  # TensorRT 8 has no int64, which clients are promised
    numbers = {result.name: result.dtype for result in manifest.results} if engine else {}
    return OpenFile(label_of(artifact, manifest), artifact, runner, numbers=numbers)


def version_of(backend: str, artifact: Artifact) -> str:
    """Of what runs a file; "" where that is not installed."""
    if artifact.engine is not None:
        return artifact.engine.tensorrt
    try:
        module = importlib.import_module(backend.partition("-")[0])  # onnxruntime, openvino
    except ImportError:
        return ""
    return str(getattr(module, "__version__", ""))


def device_of(backend: str, artifact: Artifact) -> str:
    """What a backend runs a file on, as its vendor calls it."""
    if artifact.engine is None and backend != CUDA:
        return cpu_name()
    from slimexport.target.cuda.device import device_name

    return device_name() or ""
