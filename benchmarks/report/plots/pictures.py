"""The pictures of a run: for every bundle, backend and precision, latency against MACs, throughput against width, and the
Pareto front, with a panel or a line for each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells.records import Recorded
from benchmarks.report.analysis import Group, analyse
from benchmarks.report.picture_files import LATENCY, PARETO, SHOWN, THROUGHPUT, file_name
from benchmarks.report.plots.latency import latency_figure
from benchmarks.report.plots.pareto import pareto_figure
from benchmarks.report.plots.style import device_name, save
from benchmarks.report.plots.throughput import throughput_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURES = {LATENCY: latency_figure, THROUGHPUT: throughput_figure, PARETO: pareto_figure}


@dataclass(frozen=True)
class Sheet:
    """The groups of one bundle, backend and precision that were measured, by batch, and what titles say of them."""

    groups: tuple[Group, ...]
    device: str

    @property
    def heading(self) -> str:
        """Network and device, the first line of a title."""
        cell = self.groups[0].rows[0].cell
        network = cell.network if cell.network == cell.bundle else f"{cell.network} ({cell.bundle})"
        return f"{network} on {self.device}"

    @property
    def setting(self) -> str:
        """Backend, precision and batches: `onnxruntime-cpu, fp32, batch 1, 8, 32`."""
        _, backend, precision, _ = self.groups[0].key
        return f"{backend}, {precision}, batch {', '.join(str(group.key[3]) for group in self.groups)}"


def draw(recorded: Recorded, folder: Path) -> list[Path]:
    """Write all pictures of a run into `folder` as PNG files, named as `file_name` says; returns their paths.

    Raises MissingBackend (exit code 3) without matplotlib, BundleError where nothing can be written.
    """
    groups = analyse(recorded.results, recorded.run.get("ceilings") or {})
    written = []
    for sheet in sheets(groups, recorded.run.get("environment") or {}):
        for kind in SHOWN:
            written.append(save(figure_of(kind, sheet), folder / file_name(kind, sheet.groups[0])))
    return written


def figure_of(kind: str, sheet: Sheet) -> Figure:
    """The picture of a kind."""
    return FIGURES[kind](sheet.groups, sheet.heading, sheet.setting)


def sheets(groups: Sequence[Group], environment: Mapping[str, Any]) -> list[Sheet]:
    """The groups that have something to draw, together as they are drawn."""
    together: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        if group.measured:
            together.setdefault(group.key[:3], []).append(group)
    return [
        Sheet(tuple(sorted(members, key=lambda group: group.key[3])), device_of(members[0], environment))
        for members in together.values()
    ]


def device_of(group: Group, environment: Mapping[str, Any]) -> str:
    """The device that a measured group ran on: the GPU's name, or the CPU's with the number of threads."""
    result = group.measured[0].result
    if result.latency_kind == "device":
        return device_name(str((environment.get("gpu") or {}).get("name") or "a GPU"))
    threads = result.settings.get("threads")
    shown = f" ({threads} thread{'s' * (threads != 1)})" if threads else ""
    return device_name(str(environment.get("cpu") or "a CPU")) + shown
