"""From bundles to the cells that are to be measured: every width, on every backend, at every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells.backends import ALL, AUTO, BACKENDS, CPU, CUDA
from benchmarks.cells.cell import NOT_MEASURED, Cell, NotMeasured, Result
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, artifact_path, read_manifest
from slimexport.target.records import to_json
from slimtrain.base.image_size import sides


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and manifest, every entry of which has what measuring needs."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def network(self) -> str:
        return self.manifest.source.network


@dataclass(frozen=True)
class Wanted:
    """What to measure. Empty `precisions` or `widths`: all that the bundle has."""

    backends: tuple[str, ...]
    batches: tuple[int, ...]
    precisions: tuple[str, ...] = ()
    widths: tuple[float, ...] = ()


def open_bundle(folder: Path) -> Bundle:
    """A bundle whose manifest can be used. BundleError (exit code 2) otherwise."""
    if folder.is_file():
        raise BundleError(f"{folder}: is a file. Give the bundle's folder.")
    manifest = read_manifest(folder)
    if min(sides(manifest.input.image_size)) < 1:
        raise BundleError(f"{folder / MANIFEST}: gives no image size under `input`. Export again.")
    for artifact in manifest.artifacts:
        numbers = {"macs": artifact.macs, "params": artifact.params, "size_bytes": artifact.size_bytes}
        if wrong := [key for key, number in numbers.items() if number < 1]:
            raise BundleError(
                f"{folder / MANIFEST}: the entry of {artifact.file} lacks a usable {', '.join(wrong)}. "
                "The manifest was edited or damaged, export again."
            )
    if not manifest.artifacts:
        raise BundleError(f"{folder}: its manifest lists no files. Export again.")
    return Bundle(folder, manifest)


def choose_backends(text: str, has_gpu: bool, bundles: Sequence[Bundle], checkpoint: bool) -> tuple[str, ...]:
    """The names of the backends that `--backends` stands for. `auto`: onnxruntime on this machine's best device, TensorRT
    where a bundle has engines and the machine a GPU, the slimmable network where its checkpoint is given."""
    if text == ALL:
        return tuple(BACKENDS)
    if text == AUTO:
        formats = {artifact.format for bundle in bundles for artifact in bundle.manifest.artifacts}
        best = CUDA if has_gpu else CPU
        return tuple(name for name, backend in BACKENDS.items() if backend.chosen_by_auto(best, formats, checkpoint))
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def label_of(artifact: Artifact) -> str:
    """`0.5x` for a width, `s1` for a switch's number, a plan's own name else."""
    width = artifact.width
    if width is None:
        return artifact.name
    return f"s{width}" if isinstance(width, int) else f"{width}x"


def plan_cells(bundle: Bundle, wanted: Wanted) -> tuple[list[Cell], list[Result]]:
    """What can be tried, in order of backends, precisions and batches; and, as results with their reasons, what the bundle
    has no file for. BundleError where a width or precision is in no file at all, or a file is damaged."""
    artifacts = _asked_for(bundle, wanted)
    cells: list[Cell] = []
    refused: list[Result] = []
    checked = set()
    for backend in wanted.backends:
        mine = [artifact for artifact in artifacts if BACKENDS[backend].runs(artifact.format, artifact.precision)]
        for artifact in mine:
            if artifact.file not in checked:
                artifact_path(bundle.folder, artifact)
                checked.add(artifact.file)
        groups = {artifact.precision: None for artifact in mine}
        for precision in groups:
            for batch in wanted.batches:
                cells += [_cell(bundle, backend, batch, artifact) for artifact in mine if artifact.precision == precision]
        if not mine:
            reason = _missing(bundle, backend, wanted)
            plans = {artifact.name: artifact for artifact in artifacts}.values()
            refused += [
                Result(_cell(bundle, backend, batch, artifact), NOT_MEASURED, reason, exit_code=NotMeasured.exit_code)
                for batch in wanted.batches
                for artifact in plans
            ]
    return cells, refused


def _asked_for(bundle: Bundle, wanted: Wanted) -> list[Artifact]:
    """The entries of the widths and precisions that are wanted."""
    artifacts = bundle.manifest.artifacts
    widths = {artifact.width for artifact in artifacts if artifact.width is not None}
    if missing := [width for width in wanted.widths if width not in widths]:
        raise BundleError(
            f"{bundle.folder}: has no width {', '.join(map(str, missing))}, it has {', '.join(map(str, sorted(widths)))}. "
            "Export more of them, or choose from these."
        )
    precisions = {artifact.precision for artifact in artifacts}
    if missing_precisions := [precision for precision in wanted.precisions if precision not in precisions]:
        raise BundleError(
            f"{bundle.folder}: has no {', '.join(missing_precisions)} files, it has {', '.join(sorted(precisions))}. "
            f"Export with --precision {missing_precisions[0]}."
        )
    chosen = [
        artifact
        for artifact in artifacts
        if (not wanted.widths or artifact.width in wanted.widths)
        and (not wanted.precisions or artifact.precision in wanted.precisions)
    ]
    if not chosen:
        raise BundleError(
            f"{bundle.folder}: has no {', '.join(wanted.precisions)} files of width {', '.join(map(str, wanted.widths))}. "
            "Export them, or choose others."
        )
    return chosen


def _missing(bundle: Bundle, backend: str, wanted: Wanted) -> str:
    """Why a backend has nothing to run."""
    asked = f" in {', '.join(wanted.precisions)}" if wanted.precisions else ""
    return BACKENDS[backend].no_files.format(folder=bundle.folder, asked=asked)


def _cell(bundle: Bundle, backend: str, batch: int, artifact: Artifact) -> Cell:
    return Cell(
        bundle=bundle.name,
        network=bundle.network,
        name=artifact.name,
        plan=bundle.manifest.plan_name(artifact),
        width=artifact.width,
        label=label_of(artifact),
        file=artifact.file,
        backend=backend,
        precision=artifact.precision,
        batch=batch,
        image_size=bundle.manifest.input.image_size,
        macs=artifact.macs,
        params=artifact.params,
        size_bytes=artifact.size_bytes,
        activations=artifact.activations,
        layers=artifact.layers,
        accuracy=accuracy_of(bundle.manifest, artifact),
        channels=bundle.manifest.input.channels,
        shape=bundle.manifest.input.shape,
    )


def accuracy_of(manifest: Manifest, artifact: Artifact) -> Mapping[str, Any] | None:
    """A file's measured accuracy; an engine without one has that of the ONNX file of its name and precision."""
    if artifact.own_accuracy and artifact.own_accuracy.share is not None:
        return to_json(artifact.own_accuracy)
    for other in manifest.artifacts:
        if (other.name, other.precision) == (artifact.name, artifact.precision) and (known := other.own_accuracy):
            return {**to_json(known), "measured_on": other.file} if known.share is not None else None
    return None
