"""A runtime without a device: the real scheduler, policies and correction of latencies, beside a clock that is only counted.

What runs take is drawn: a table's median times a ratio of the measured samples to their median. So policies can be compared
on the same trace in a second, on a machine that does something else, and twice with the same result. Queueing and choosing are
the runtime's own code; threads, Python and the machine's other disturbances are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.cells.cell import Array, Result
from benchmarks.load.book import FULL, LATE, Book, Samples
from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.measuring import PERCENTILE
from slimexport.target.serving.policy import Latencies, Policy
from slimexport.target.serving.requests import Request
from slimexport.target.serving.scheduling import REFUSE, Scheduler
from slimtrain.base.errors import UserError

OVERHEAD_MS = 0.15  # from an answer to the beginning of the next run
QUEUE = 1000
IMAGE: Array = np.zeros((1, 1), np.float32)


@dataclass(eq=False)
class _Numbered(Request):
    """A request that knows its place in the trace."""

    number: int = field(default=-1, kw_only=True)


@dataclass(frozen=True)
class Times:
    """What runs take: `medians` of every width and batch; `expected`, the same at the percentile that a runtime has in its
    table; `ratios`, of each batch, what samples were over their median. Beside that the whole machine may stand still: on the
    average `stalls_per_s` times in a second of computing, for exponentially distributed times of mean `stall_ms`."""

    medians: Latencies
    expected: Latencies
    ratios: tuple[Array, ...]
    stalls_per_s: float = 0.0
    stall_ms: float = 0.0

    def capacity(self, width: int = -1) -> float:
        """Images per second of a width (the widest), at its best batch."""
        return max(1e3 * batch / ms for batch, ms in zip(self.medians.batches, self.medians.ms[width], strict=True))

    def of(self, labels: Sequence[str]) -> Times:
        """The same of some widths, in the order of this table."""
        keep = [index for index, label in enumerate(self.medians.widths) if label in labels]
        if len(keep) != len(set(labels)):
            missing = [label for label in labels if label not in self.medians.widths]
            raise UserError(f"width {missing[0]}: has no times. There are {', '.join(self.medians.widths)}.")

        def of(table: Latencies) -> Latencies:
            return Latencies(
                tuple(table.widths[index] for index in keep), table.batches, tuple(table.ms[index] for index in keep)
            )

        return replace(self, medians=of(self.medians), expected=of(self.expected))


def times_of(results: Sequence[Result], network: str, backend: str, precision: str, batches: Sequence[int]) -> Times:
    """The times of a network's widths in measured results, at `batches`: on the line between the measured ones beside them.
    UserError where there are none."""
    cells: dict[tuple[int, str], dict[int, Array]] = {}
    for result in results:
        cell = result.cell
        if (cell.network, cell.backend, cell.precision) == (network, backend, precision) and result.rounds:
            samples = np.concatenate([np.asarray(of_round, np.float64) for of_round in result.latency_ms])
            label = cell.plan if cell.width is None else f"{cell.width:g}"
            cells.setdefault((cell.macs, label), {})[cell.batch] = samples
    if not cells:
        raise UserError(f"there are no results of {network} on {backend} in {precision}. Measure some: python -m benchmarks.")
    measured = sorted(set.intersection(*(set(by_batch) for by_batch in cells.values())))
    if not measured:
        raise UserError(f"the widths of {network} were measured at different batches. Measure all of them at the same.")
    widths = sorted(cells)

    def table(share: float) -> Latencies:
        ms = tuple(tuple(float(np.quantile(cells[key][batch], share)) for batch in measured) for key in widths)
        whole = Latencies(tuple(label for _, label in widths), tuple(measured), ms)
        return _at(whole, batches)

    ratios = [np.concatenate([cells[key][batch] / np.median(cells[key][batch]) for key in widths]) for batch in measured]
    nearest = [min(range(len(measured)), key=lambda at: abs(measured[at] - batch)) for batch in batches]
    return Times(table(0.5), table(PERCENTILE), tuple(ratios[at] for at in nearest))


def _at(table: Latencies, batches: Sequence[int]) -> Latencies:
    """A table at other batches; beyond those that it has, in proportion to the largest."""

    def ms(width: int, batch: int) -> float:
        return table.of(width, min(batch, table.largest)) * max(1.0, batch / table.largest)

    rows = tuple(tuple(ms(width, batch) for batch in batches) for width in range(len(table.widths)))
    return Latencies(table.widths, tuple(batches), rows)


def simulate(
    times_s: Array, times: Times, policy: Policy, slo_ms: float, seed: int = 0, late: str = REFUSE, queue: int = QUEUE
) -> Samples:
    """What becomes of single images that come at `times_s` and are due `slo_ms` later."""
    scheduler = Scheduler(Corrected(times.expected, PERCENTILE), policy, late)
    book = Book(times_s)
    noise = _Noise(times, seed)
    now_s, coming = 0.0, 0
    while True:
        while coming < len(times_s) and times_s[coming] <= now_s:
            if scheduler.waiting.images >= queue:
                book.refused(coming, FULL)
            else:
                at = float(times_s[coming])
                scheduler.waiting.add(_Numbered(IMAGE, True, at, at + slo_ms / 1e3, number=coming))
            book.sent(coming, 0.0)
            coming += 1
        run, refused = scheduler.next(now_s)
        for request in refused:
            assert isinstance(request, _Numbered)
            book.refused(request.number, LATE)
        if run is None:
            if coming >= len(times_s):
                return book.samples()
            now_s = max(now_s, float(times_s[coming]))
            continue
        took_ms = noise.ms(run.width, run.images)
        scheduler.ran(run, took_ms)
        label, began = times.medians.widths[run.width], now_s
        now_s += took_ms / 1e3
        for request in run.requests:
            assert isinstance(request, _Numbered)
            latency_ms, queued_ms = 1e3 * (now_s - request.submitted_s), 1e3 * (began - request.submitted_s)
            book.answered(request.number, latency_ms, label, run.images, queued_ms, took_ms)
        now_s += OVERHEAD_MS / 1e3


class _Noise:
    """Times that are drawn one after the other."""

    DRAWN = 4096

    def __init__(self, times: Times, seed: int) -> None:
        self.times = times
        self.draw = np.random.default_rng([seed, 1])
        self.ratios = [self.draw.choice(ratios, self.DRAWN).tolist() for ratios in times.ratios]
        self.number = 0

    def ms(self, width: int, images: int) -> float:
        self.number += 1
        medians = self.times.medians
        at = next(index for index, batch in enumerate(medians.batches) if batch >= images)
        ms = medians.of(width, images) * float(self.ratios[at][self.number % self.DRAWN])
        if self.times.stalls_per_s:
            stalls = self.draw.poisson(self.times.stalls_per_s * ms / 1e3)
            ms += float(self.draw.exponential(self.times.stall_ms, stalls).sum())
        return ms
