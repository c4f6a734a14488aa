"""Opening a cell's network on its backend, by the table of backends."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import Cell, CellRunner, Inputs, Options
from benchmarks.runners.artifacts import checked_path, find_artifact


def open_runner(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner:
    """Load `cell`'s network out of the bundle in `folder`.

    Raises BundleError where its file is not the manifest's, and what `open_file` raises.
    """
    return open_file(cell, checked_path(folder, find_artifact(folder, cell.file)), inputs, options)


def open_file(cell: Cell, path: Path, inputs: Inputs, options: Options) -> CellRunner:
    """Load `cell`'s network, whose file is at `path`; its backend is given those of `options` that it honours.

    Raises NotMeasured with the reason where the backend is missing, would fall back to another, or cannot run it, OutOfMemory
    where it lacks memory; for backends that read the manifest beside the file, BundleError.
    """
    backend = BACKENDS[cell.backend]
    backend.require_device(options)
    backend.require_precision(cell.precision)
    return backend.load_runner()(cell, path, inputs, backend.honoured(options))
