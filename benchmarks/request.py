"""What the options of the commands that measure bundles ask for: a session's request, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells.backends import ALL, AUTO, BACKENDS, CPU, CUDA
from benchmarks.cells.cell import Options
from benchmarks.cells.plan_cells import Bundle, Wanted, choose_backends, open_bundle
from benchmarks.measure.method import Method
from slimexport.target.backends import TENSORRT_RTX
from slimexport.target.cuda.device import require_gpu
from slimexport.target.errors import MissingBackend
from slimtrain.base.errors import UserError, nearest
from slimtrain.models.published import RANDOM

OUTPUT = Path("measured")
MOST_CACHE_MIB = 2**20


@dataclass(frozen=True)
class MeasuringOptions:
    """What `options.measuring_options` say, as it was given."""

    widths: str | None
    precision: str | None
    duration: float
    repeats: int
    warmup: float
    threads: int | None
    device: str
    ckpt: Path | None
    no_cuda_graph: bool
    transfers: bool
    accuracy_data: str | None
    workers: int | None
    output_dir: Path | None
    seed: int
    cache_mib: float | None

    def method(self) -> Method:
        """How long cells are measured. Raises BadMethod."""
        return Method(self.duration, self.repeats, self.warmup / 1e3)

    def checkpoint(self) -> Path | None:
        """The slimmable network's file, or `random:NETWORK`. UserError where it is not there."""
        given = self.ckpt
        if given is not None and not str(given).startswith(RANDOM) and not given.is_file():
            raise UserError(f"--ckpt {given}: not there. Give the checkpoint that the bundle was exported from.")
        return given

    def wanted(self, backends: tuple[str, ...], batches: Sequence[int]) -> Wanted:
        """Which cells are measured. UserError for widths that are no numbers."""
        return Wanted(backends, tuple(dict.fromkeys(batches)), self.wanted_precisions(), self.wanted_widths())

    def wanted_precisions(self) -> tuple[str, ...]:
        """None for all."""
        return split_names(self.precision)

    def wanted_widths(self) -> tuple[float, ...]:
        """None for all."""
        return tuple(split_numbers(self.widths, "widths", float)) if self.widths else ()

    def cache_bytes(self) -> int | None:
        """The cache that inputs must exceed; None for the machine's own."""
        if self.cache_mib is None:
            return None
        if not 0 < self.cache_mib < MOST_CACHE_MIB:
            raise UserError(f"--cache-mib {self.cache_mib:g}: expected the cache's size in MiB, as in 32.")
        return int(self.cache_mib * 2**20)

    def runner_options(self, has_gpu: bool) -> Options:
        """How runners run; threads are chosen when they are pinned."""
        best = CUDA if has_gpu else CPU
        device = best if self.device == AUTO else self.device
        return Options(0, not self.no_cuda_graph, self.transfers, device, self.ckpt)


@dataclass(frozen=True)
class Request:
    """What the user asked for. `threads` of CPU backends, None for one per physical core, and `cache_bytes`, None for
    the machine's own, hold for the whole session. `accuracy_data`: labeled images, or "", which
    `workers` processes load, None for up to 4."""

    bundles: tuple[Bundle, ...]
    wanted: Wanted
    method: Method
    options: Options
    threads: int | None = None
    cache_bytes: int | None = None
    accuracy_data: str = ""
    workers: int | None = None
    seed: int = 0


def make_request(folders: Sequence[Path], backends: str, batches: Sequence[int], given: MeasuringOptions) -> Request:
    """The session of the bundles in `folders` on `backends`, as the user writes them. UserError for what makes no sense."""
    method, checkpoint = given.method(), given.checkpoint()
    bundles = tuple(open_bundle(folder) for folder in folders)
    has_gpu = gpu_is_here()
    check_backends(backends)
    wanted = given.wanted(choose_backends(backends, has_gpu, bundles, checkpoint is not None), batches)
    cache = given.cache_bytes()
    if any(batch < 1 for batch in batches):
        raise UserError(f"batches {', '.join(map(str, batches))}: expected whole numbers from 1, as in 1,8,32.")
    return Request(
        bundles,
        wanted,
        method,
        given.runner_options(has_gpu),
        threads=given.threads,
        cache_bytes=cache,
        accuracy_data=given.accuracy_data or "",
        workers=given.workers,
        seed=given.seed,
    )


def output_folder(request: Request, given: MeasuringOptions, below: str = "") -> Path:
    """Where the session's results go, unless they are told where: `measured/BUNDLE`, or the folder `below` it."""
    return given.output_dir or OUTPUT / "+".join(bundle.name for bundle in request.bundles) / below


def check_backends(text: str) -> None:
    """UserError where a name is no backend's."""
    if text in (AUTO, ALL):
        return
    for name in map(str.strip, text.split(",")):
        if name == TENSORRT_RTX:
            raise UserError(
                f"backend {name!r}: TensorRT-RTX engines are not measured here, they are built and proven. Prove them on a "
                f"machine with their GPU: slimexport --bundle BUNDLE --verify-only --backend {name}. To measure, choose from "
                f"{', '.join(BACKENDS)}."
            )
        if name not in BACKENDS:
            raise UserError(f"backend {name!r}: not known{nearest(name, BACKENDS)}. Available: {', '.join(BACKENDS)}.")


def gpu_is_here() -> bool:
    """Whether a GPU is visible to the CUDA runtime."""
    try:
        require_gpu()
    except MissingBackend:
        return False
    return True


def split_names(text: str | None) -> tuple[str, ...]:
    """A comma-separated list of names."""
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def split_numbers(text: str, what: str, kind: Callable[[str], Any]) -> list[Any]:
    """A comma-separated list of numbers; UserError for anything else."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        example = "1,8,32" if kind is int else "0.25,1.0"
        raise UserError(f"--{what} {text}: expected numbers separated by commas, as in {example}.") from error
