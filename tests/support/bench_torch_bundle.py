"""A bundle with the checkpoint that it was exported from, as torch backends run it, and refusals of opening."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells.cell import Cell, NotMeasured, Options
from benchmarks.cells.plan_cells import Wanted, open_bundle, plan_cells
from benchmarks.measure.output_check import Reference
from slimexport.target.reference import Probes, read_reference
from tests.support.bench_torch_helpers import FewImages, open_torch

RANDOM = "random:us_mobilenet_v1"
WIDTHS = (0.25, 0.5)


@dataclass(frozen=True)
class Exported:
    """A bundle, the checkpoint that it was exported from, and a bundle of the same network under its name `random:...`."""

    folder: Path
    checkpoint: Path
    untrained: Path

    def cells(self, backend: str, batch: int = 2, precision: str = "fp32") -> list[Cell]:
        return plan_cells(open_bundle(self.folder), Wanted((backend,), (batch,), (precision,)))[0]

    def reference(self, of: Cell) -> Reference:
        reference = read_reference(self.folder)
        return Reference(Probes.of(reference["images"], reference[f"logits_{of.plan}"]))


def with_checkpoint(exported: Exported, **more: Any) -> Options:
    return Options(checkpoint=exported.checkpoint, **more)


def refused(cell: Cell, folder: Path, options: Options, *parts: str, kind: type[Exception] = NotMeasured) -> None:
    """Opening raises `kind` (and no subclass) with a message that holds all of `parts`."""
    with pytest.raises(kind) as info:
        open_torch(cell, folder, FewImages(), options)
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)


def edited(exported: Exported, folder: Path, change: Callable[[dict[str, Any]], object]) -> tuple[Path, Options]:
    """A copy of the bundle's manifest, changed, whose source is `us.pt` beside it."""
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, Options(checkpoint=exported.checkpoint)
