"""The published networks as bundles of random weights, written by `slimexport` in processes of their own, so that no torch is
loaded where latency is measured; and the cells that are measured of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import Cell
from benchmarks.cells.plan_cells import Bundle, Wanted, open_bundle, plan_cells
from benchmarks.measure.output_check import Reference
from slimexport.target.backends import ONNX
from slimexport.target.precision import EXACT, PRECISIONS
from slimexport.target.reference import find_probes, logits_key, read_reference
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.image_size import ImageSize
from slimtrain.models.published import PUBLISHED, RANDOM
from slimtrain.models.spec import PUBLISHED_SIZE

NOISE_IMAGES, NOISE_SEED = 32, 5  # that int8's ranges are taken from: those of random weights matter to nobody
REJECTED = 1  # slimexport's exit code where files failed their proof; the others are written


class NotExported(UserError):
    """slimexport could not write a network."""


def check_wanted(networks: Sequence[str], backend: str, precision: str) -> None:
    """UserError for names that are none, and for a backend or precision that random ONNX files are not for."""
    for name in networks:
        if name not in PUBLISHED:
            raise UserError(f"network {name!r}: not published{nearest(name, PUBLISHED)}. Choose from {', '.join(PUBLISHED)}.")
    from_files = [name for name, row in BACKENDS.items() if row.format == ONNX and not row.needs_checkpoint]
    if backend not in from_files:
        raise UserError(
            f"backend {backend!r}: runs no ONNX files{nearest(backend, from_files)}. Choose from {', '.join(from_files)}."
        )
    stored = [name for name, row in PRECISIONS.items() if row.weight_bytes is not None]
    if precision not in stored:
        raise UserError(f"precision {precision!r}: is no file's{nearest(precision, stored)}. Choose from {', '.join(stored)}.")
    if not BACKENDS[backend].runs(ONNX, precision):
        raise UserError(f"{backend} runs no {precision} files. Choose from {', '.join(BACKENDS[backend].precisions)}.")


def export(
    networks: Sequence[str], precision: str, folder: Path, say: Callable[[str], None], size: ImageSize | None = None
) -> list[Bundle]:
    """A bundle of each network below `folder`, with all its switches. NotExported with what slimexport said."""
    words = ["--widths", "all", "--precision", PRECISIONS[precision].option]
    if size is not None:
        words += ["--image-size", str(size)]
    if precision != EXACT and PRECISIONS[precision].calibrated:
        words += ["--calibration-data", str(_noise(folder, size or PUBLISHED_SIZE))]
    bundles = []
    for number, name in enumerate(networks, 1):
        say(f"exporting {name}, network {number} of {len(networks)}")
        command = [sys.executable, "-m", "slimexport", "--ckpt", f"{RANDOM}{name}", "--output-dir", str(folder / name), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, REJECTED) or not (folder / name).is_dir():
            raise NotExported(f"{name} could not be exported:\n{done.stderr.strip()}")
        bundles.append(open_bundle(folder / name))
    return bundles


def _noise(folder: Path, size: ImageSize) -> Path:
    import numpy as np

    from slimtrain.data.noise import noise_images

    path = folder / "noise.npy"
    np.save(path, noise_images(NOISE_IMAGES, size, NOISE_SEED))
    return path


def cells_of(bundles: Sequence[Bundle], backend: str, precision: str, batches: Sequence[int]) -> list[Cell]:
    """All switches at the first batch, then all at the next: what is compared is measured close together."""
    wanted = Wanted((backend,), tuple(batches), (precision,))
    cells = [cell for bundle in bundles for cell in plan_cells(bundle, wanted)[0]]
    return [cell for batch in batches for cell in cells if cell.batch == batch]


class References:
    """What a cell's output must be, by its bundle: probe images with logits, and the tolerance that its file was held to."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self.bundles = {bundle.name: bundle for bundle in bundles}
        self._arrays: dict[str, Mapping[str, Any]] = {}

    def __call__(self, cell: Cell) -> Reference | None:
        bundle = self.bundles[cell.bundle]
        if cell.bundle not in self._arrays:
            self._arrays = {cell.bundle: read_reference(bundle.folder)}  # one bundle's at a time
        probes = find_probes(bundle.folder, bundle.manifest, logits_key(cell.plan), self._arrays[cell.bundle])
        artifact = next(artifact for artifact in bundle.manifest.artifacts if artifact.file == cell.file)
        return None if probes is None else Reference(probes, artifact.verification.tolerance)
