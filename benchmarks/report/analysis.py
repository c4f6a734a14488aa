"""What measured latencies mean next to what MACs promise: speed-ups, floors, and which widths are worth shipping.

The floors are a roofline (Williams, Waterman and Patterson, 2009) with a third limit: starting operators takes time too.
Noise has one rule everywhere: a width is *faster* than another if its rounds' medians all lie below the other's
(`Summary.interval_ms`), *slower* if they all lie above, and no faster in both of the remaining cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cells.cell import Cell, Result, ceiling_key
from benchmarks.cells.shares import key_of, share_of
from benchmarks.cells.statistics import Summary, pareto, rank_correlation, summary
from benchmarks.report.ceilings import standing_ceilings
from slimexport.target.precision import PRECISIONS

FLOORS = COMPUTE, MEMORY, LAUNCH = "compute", "memory", "launch"
NONE = "none"
EXPLAINS = 0.25  # of the measured time: a floor below that share does not bound it
ACCURACY, MACS = "accuracy", "MACs"
EVERY_FASTER = "every width is faster here than all wider ones"
SINGLE_ROUND = "with a single round, differences between widths cannot be told from noise"


@dataclass(frozen=True)
class AnalysisRow:
    """A cell of a group. All figures are None (or empty) where it was not measured, or where what they need is unknown.

    `speedup`: the reference's median over this one's. `promised`: the reference's MACs over this one's. `efficiency`:
    speed-up over promised. `ceiling_share`: `macs_per_s` over the matrix product's. `floors_ms`: what the device cannot go
    below, by name. `bound`: the highest floor's name, NONE where it is below EXPLAINS of the time; `bound_share`: that
    floor over the median.
    """

    result: Result
    summary: Summary | None = None
    speedup: float | None = None
    promised: float | None = None
    efficiency: float | None = None
    macs_per_s: float | None = None
    ceiling_share: float | None = None
    floors_ms: Mapping[str, float] = field(default_factory=dict)
    bound: str | None = None
    bound_share: float | None = None

    @property
    def cell(self) -> Cell:
        return self.result.cell


@dataclass(frozen=True)
class Group:
    """The widths of a bundle on one backend, at one precision and batch: `rows` in order of MACs.

    `reference`: what speed-ups are over, the measured 1.0x, else the measured row with most MACs; None where nothing was
    measured. `rank_correlation`: Spearman's, of median latency with MACs. `front`: the Pareto front of median latency against
    `against` (ACCURACY where all measured rows know theirs on the same images, else MACs), by rising latency. `worth`: of the
    front, the rows that are faster than every more capable one in it by more than noise, the most capable among them.
    `exceeded`: what was measured to be a ceiling and is none.
    """

    key: tuple[str, str, str, int]
    rows: tuple[AnalysisRow, ...]
    reference: AnalysisRow | None
    rank_correlation: float | None
    sentences: tuple[str, ...]
    against: str
    front: tuple[AnalysisRow, ...]
    worth: tuple[AnalysisRow, ...]
    exceeded: tuple[str, ...] = ()

    @property
    def measured(self) -> list[AnalysisRow]:
        """The rows that have figures."""
        return [row for row in self.rows if row.summary is not None]


def analyse(results: Sequence[Result], ceilings: Mapping[str, Mapping[str, Any]]) -> list[Group]:
    """The groups of `results`, in order of appearance. `ceilings`: by backend and precision, see `ceiling_key`."""
    groups: dict[tuple[str, str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault(result.cell.group, []).append(result)
    stand, exceeded = standing_ceilings(results, ceilings)
    return [
        _group(key, members, stand.get(ceiling_key(members[0].cell)), exceeded.get(ceiling_key(members[0].cell), ()))
        for key, members in groups.items()
    ]


def _group(
    key: tuple[str, str, str, int], results: Sequence[Result], ceiling: Mapping[str, Any] | None, exceeded: Sequence[str]
) -> Group:
    ordered = sorted(results, key=lambda result: (result.cell.macs, result.cell.params))
    plain = [AnalysisRow(result, summary(result)) for result in ordered]
    reference = _reference([row for row in plain if row.summary])
    rows = [_compared(row, reference, ceiling) for row in plain]
    measured = [row for row in rows if row.summary]
    against = ACCURACY if _accuracies_known(measured) else MACS
    front = _front(measured, against)
    return Group(
        key=key,
        rows=tuple(rows),
        reference=next((row for row in measured if reference and row.result is reference.result), None),
        rank_correlation=rank_correlation([row.cell.macs for row in measured], [_median(row) for row in measured]),
        sentences=tuple(_sentences(measured)),
        against=against,
        front=tuple(front),
        worth=tuple(_worth(front)),
        exceeded=tuple(exceeded),
    )


def _reference(measured: Sequence[AnalysisRow]) -> AnalysisRow | None:
    """The measured 1.0x (not an AutoSlim network's switch 1, an integer), else the one with most MACs."""
    full = [row for row in measured if isinstance(row.cell.width, float) and row.cell.width == 1.0]
    return full[0] if full else max(measured, key=lambda row: row.cell.macs, default=None)


def _compared(row: AnalysisRow, reference: AnalysisRow | None, ceiling: Mapping[str, Any] | None) -> AnalysisRow:
    """The row with its figures."""
    if row.summary is None or reference is None:
        return row
    seconds = 1e-3 * _median(row)
    macs = row.cell.macs * row.cell.batch
    speedup, promised = _median(reference) / _median(row), reference.cell.macs / row.cell.macs
    floors = floors_ms(row.cell, ceiling or {}, row.result.settings.get("cache_bytes"))
    bound, share = _bound(floors, _median(row))
    peak = (ceiling or {}).get("macs_per_s")
    return AnalysisRow(
        result=row.result,
        summary=row.summary,
        speedup=speedup,
        promised=promised,
        efficiency=speedup / promised,
        macs_per_s=macs / seconds,
        ceiling_share=macs / seconds / peak if peak else None,
        floors_ms=floors,
        bound=bound,
        bound_share=share,
    )


def floors_ms(cell: Cell, ceiling: Mapping[str, Any], cache_bytes: int | None = None) -> dict[str, float]:
    """What the device cannot go below, in milliseconds per batch, by name; without those that the ceiling or the cell does
    not tell.

    COMPUTE: its MACs at the speed of the matrix product. MEMORY: its bytes at the speed of the copy, estimated as if every
    convolution and linear layer wrote its output once and the next one read it once, every weight and the image being read
    once; 0 where all of that together fits in the cache. A cache that holds parts of it makes it less, other layers more.
    LAUNCH: its layers at the time that an operator takes which does nothing.
    """
    floors: dict[str, float] = {}
    if peak := ceiling.get("macs_per_s"):
        floors[COMPUTE] = 1e3 * cell.macs * cell.batch / peak
    item_bytes = PRECISIONS[cell.precision].item_bytes if cell.precision in PRECISIONS else None
    if (speed := ceiling.get("bytes_per_s")) and cell.activations is not None and item_bytes is not None:
        moved = item_bytes * (cell.params + cell.batch * (math.prod(cell.image_shape) + 2 * cell.activations))
        floors[MEMORY] = 0.0 if cache_bytes and moved <= cache_bytes else 1e3 * moved / speed
    if (per_operator_s := ceiling.get("seconds_per_operator")) and cell.layers is not None:
        floors[LAUNCH] = 1e3 * per_operator_s * cell.layers
    return floors


def _bound(floors: Mapping[str, float], median_ms: float) -> tuple[str | None, float | None]:
    """The highest floor's name and its share of the time. An estimate of memory above the time is refuted by it: a cache
    serves the network, so it bounds nothing."""
    floors = {name: floor for name, floor in floors.items() if name != MEMORY or floor <= median_ms}
    if not floors:
        return None, None
    name = max(floors, key=floors.__getitem__)
    share = floors[name] / median_ms
    return (name if share >= EXPLAINS else NONE), share


def faster(row: AnalysisRow, other: AnalysisRow) -> bool:
    """Whether a measured row is faster than another by more than noise: all its rounds' medians are lower."""
    assert row.summary and other.summary
    return row.summary.interval_ms[1] < other.summary.interval_ms[0]


def _accuracies_known(measured: Sequence[AnalysisRow]) -> bool:
    """Whether every row has an accuracy, all of them on the same images."""
    accuracies = [row.cell.accuracy for row in measured]
    data = {(key_of(accuracy), accuracy.get("data"), accuracy.get("images")) for accuracy in accuracies if accuracy}
    return all(accuracies) and len(data) == 1


def capability(row: AnalysisRow, against: str) -> float:
    """What a row offers for its latency: its accuracy, or its MACs in place of it."""
    accuracy = row.cell.accuracy
    return share_of(accuracy) if against == ACCURACY and accuracy else float(row.cell.macs)


def _front(measured: Sequence[AnalysisRow], against: str) -> list[AnalysisRow]:
    return [measured[index] for index in pareto([(_median(row), capability(row, against)) for row in measured])]


def _worth(front: Sequence[AnalysisRow]) -> list[AnalysisRow]:
    """From the slow end of the front, each row that is faster than the last one kept; by rising latency."""
    kept: list[AnalysisRow] = []
    for row in reversed(front):
        if not kept or faster(row, kept[-1]):
            kept.append(row)
    return kept[::-1]


def _sentences(measured: Sequence[AnalysisRow]) -> list[str]:
    """Which widths are no faster than a wider one. Each is named once, against the widest that it does not beat and that
    is not named so itself; neighbours are named together."""
    said = []
    labels = [row.cell.label for row in measured]
    left = list(range(len(measured)))
    while left:
        wide = measured[left.pop()]
        fewer = [index for index in left if measured[index].cell.macs < wide.cell.macs]
        slower = [index for index in fewer if faster(wide, measured[index])]
        same = [index for index in fewer if index not in slower and not faster(measured[index], wide)]
        for indices, what, noise in ((same, "no faster", "within noise"), (slower, "slower", "beyond noise")):
            if len(indices) == 1:
                figures = f"{_median(measured[indices[0]]):.3g} ms against {_median(wide):.3g} ms"
                said.append(f"{labels[indices[0]]} is {what} than {wide.cell.label} here ({figures}, {noise})")
            elif indices:
                said.append(f"{listed(labels, indices)} are {what} than {wide.cell.label} here ({noise})")
        left = [index for index in left if index not in slower and index not in same]
    if not said and len(measured) > 1:
        said.append(EVERY_FASTER)
    if any(row.summary and row.summary.rounds == 1 for row in measured) and len(measured) > 1:
        said.append(SINGLE_ROUND)
    return said


def listed(labels: Sequence[str], indices: Sequence[int]) -> str:
    """`0.25x and 0.7x to 0.95x`: the labels at rising `indices`, three and more neighbours as a range."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = []
    for run in runs:
        parts += [f"{labels[run[0]]} to {labels[run[-1]]}"] if len(run) > 2 else [labels[index] for index in run]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _median(row: AnalysisRow) -> float:
    assert row.summary is not None
    return row.summary.median_ms
