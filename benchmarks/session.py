"""One run of the tool, from bundles to a folder of results: check, say how long it takes, measure, report.

Everything that can be refused is refused before anything is measured or written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.cells.accuracy import with_accuracies
from benchmarks.cells.backends import BACKENDS, CPU, CUDA
from benchmarks.cells.cell import NOT_MEASURED, Cell, Options, Result, ceiling_key
from benchmarks.cells.inputs import RandomImages, cache_bytes
from benchmarks.cells.plan_cells import Bundle, plan_cells
from benchmarks.cells.records import Recorded, Records
from benchmarks.machine.environment import environment
from benchmarks.machine.sampler import StateSampler
from benchmarks.measure.output_check import Reference
from benchmarks.measure.progress import OnProgress, Say
from benchmarks.measure.turns import CellSource, Interrupted, Method, expected_seconds, measure
from benchmarks.request import Request
from benchmarks.runners.opening import open_runner
from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Manifest
from slimexport.target.proof.detections import rules_of
from slimexport.target.reference import find_probes, logits_key, read_reference
from slimtrain.base.image_size import format_size
from slimtrain.base.text import count
from slimtrain.checkpoints.files.shards import checkpoint_sha256

CEILING_S = 2.0  # of measuring, for each ceiling; shorter where cells are


@dataclass(frozen=True)
class Plan:
    """The cells to try, each with its bundle's folder, and the results that are known already: what has no file."""

    cells: tuple[Cell, ...]
    refused: tuple[Result, ...]
    folders: Mapping[str, Path]
    manifests: Mapping[str, Manifest]


def prepare(request: Request) -> Plan:
    """Everything that is to be measured, with its accuracies. BundleError where a bundle cannot be used."""
    cells: list[Cell] = []
    refused: list[Result] = []
    names = [bundle.name for bundle in request.bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BundleError(
            f"two bundles are called {', '.join(sorted(twice))}. Rename a folder, or measure one after the other."
        )
    for bundle in request.bundles:
        if any(BACKENDS[backend].needs_checkpoint for backend in request.wanted.backends):
            _check_source(bundle, request.options.checkpoint)
        planned, missing = plan_cells(bundle, request.wanted)
        if request.accuracy_data:
            planned = with_accuracies(planned, bundle, request.accuracy_data, request.workers)
        cells += planned
        refused += missing
    return Plan(
        tuple(cells),
        tuple(refused),
        {bundle.name: bundle.folder for bundle in request.bundles},
        {bundle.name: bundle.manifest for bundle in request.bundles},
    )


def _check_source(bundle: Bundle, checkpoint: Path | None) -> None:
    """BundleError where the slimmable network would be another than the bundle's: its file's SHA-256 tells. One that was built
    untrained has none, and is compared by name when it is opened."""
    expected = bundle.manifest.source.sha256
    if checkpoint is None or not checkpoint.exists() or expected is None:
        return
    digest = checkpoint_sha256(checkpoint)
    if digest != expected:
        raise BundleError(
            f"--ckpt {checkpoint}: SHA-256 is {digest[:12]}..., {bundle.folder} was exported from one with {expected[:12]}... "
            f"({bundle.manifest.source.file}). Give that one."
        )


def run(
    request: Request, threads: Mapping[str, Any], plan: Plan, path: Path, command: str, say: Say, progress: OnProgress
) -> tuple[Recorded, bool]:
    """Measure `plan` and write `path`, a results.jsonl. Returns what it holds, and whether Ctrl-C ended it early.

    `threads`: what `threads.pinned` says, within which this is called. Raises what `Records` raises.
    """
    options = replace(request.options, threads=threads["threads"])
    began = time.monotonic()
    cells = plan.cells
    say(_expected(request.method, cells))
    settings = {
        "method": asdict(request.method),
        "options": {**asdict(options), "checkpoint": options.checkpoint and options.checkpoint.name},
        "threads": threads,
        "inputs": _input_settings(request, cells),
    }
    results: list[Result] = []
    interrupted = False

    def add(result: Result) -> None:
        results.append(result)  # first: Ctrl-C in the line below leaves it in the file
        records.add(result)

    with Records(path) as records, closing(StateSampler(_device(cells, options))) as sampler:
        before, ceilings = environment(), {}
        images: dict[tuple[int, ...], RandomImages] = {}
        source = CellSource(
            lambda cell: plan.folders[cell.bundle],
            open_runner,
            lambda cell: images.setdefault(cell.image_shape, _images_of(cell, request.seed)),
            options,
            _References(plan),
        )
        try:
            ceilings = _ceilings(cells, options, min(CEILING_S, request.method.duration_s), say)
        except KeyboardInterrupt:
            interrupted = True
        records.run(command, before, settings, ceilings)
        known = [Result(cell, NOT_MEASURED, "interrupted before it was measured") for cell in cells if interrupted]
        for result in (*plan.refused, *known):
            add(result)
        try:
            measure(
                cells if not interrupted else (), source, request.method, on_result=add, progress=progress, watcher=sampler
            )
        except Interrupted:
            interrupted = True
        after = environment()
        took = time.monotonic() - began
        records.end(after, took, interrupted)
    ran = {"command": command, "environment": before, "settings": settings, "ceilings": ceilings}
    ended = {"environment_after": after, "seconds": took, "interrupted": interrupted}
    return Recorded(ran, tuple(results), ended), interrupted


def _expected(method: Method, cells: Sequence[Cell]) -> str:
    """How long it will take, in a line."""
    ceilings_s = min(CEILING_S, method.duration_s) * len({(cell.backend, cell.precision) for cell in cells})
    total = _duration(expected_seconds(cells, method) + ceilings_s)
    turns = f"{method.duration_s:g} s each in {count(method.repeats, 'round')}"
    return (
        f"{count(len(cells), 'cell')}, {turns}: about {total} and the time to load them, longer where one run takes more than "
        f"{_duration(method.duration_s / method.least_iterations)}"
    )


class _References:
    """The probe images and logits of a cell, read from its bundle once; None where it has none."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.read: dict[str, Mapping[str, Any]] = {}

    def __call__(self, cell: Cell) -> Reference | None:
        if cell.bundle not in self.read:
            self.read = {cell.bundle: read_reference(self.plan.folders[cell.bundle])}  # one bundle's at a time
        arrays, folder, manifest = self.read[cell.bundle], self.plan.folders[cell.bundle], self.plan.manifests[cell.bundle]
        if "images" not in arrays:
            return None
        probes = find_probes(folder, manifest, logits_key(cell.plan), arrays)
        if probes is None:
            return None
        artifact = next(artifact for artifact in manifest.artifacts if artifact.file == cell.file)
        if probes.images.shape[1:] != cell.image_shape:
            raise BundleError(
                f"{folder / REFERENCE}: its images are {list(probes.images.shape)}, which do not fit "
                f"{format_size(cell.image_size)} px. Export again."
            )
        detector = manifest.detector
        rules = None if detector is None else rules_of(detector, manifest.input.image_size)
        return Reference(probes, artifact.verification.tolerance, rules)


def _ceilings(cells: Sequence[Cell], options: Options, seconds: float, say: Say) -> dict[str, Any]:
    """What the device can do at most, by backend and precision."""
    ceilings: dict[str, Any] = {}
    for cell in cells:
        key = ceiling_key(cell)
        if key not in ceilings:
            say(f"ceilings of {key}")
            ceilings[key] = asdict(measure_ceilings(cell.backend, cell.precision, options, seconds=seconds))
    return ceilings


def _device(cells: Sequence[Cell], options: Options) -> str:
    """Whose state is watched: the GPU's where one of the cells runs on it."""
    return CUDA if any(BACKENDS[cell.backend].device_of(options) == CUDA for cell in cells) else CPU


def _input_settings(request: Request, cells: Sequence[Cell]) -> dict[str, Any]:
    """How inputs are made; `covers_cache` is false where some batch's buffers would be too large for that."""
    cache = cache_bytes()
    kinds = {(cell.image_shape, cell.batch): cell for cell in cells}.values()
    covered = all(_images_of(cell).covers_cache(cell.batch, cache) for cell in kinds)
    return {"distribution": "standard normal", "seed": request.seed, "cache_bytes": cache, "covers_cache": covered}


def _images_of(cell: Cell, seed: int = 0) -> RandomImages:
    return RandomImages(cell.image_size, seed, channels=cell.channels, shape=cell.shape)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
