"""Which width to ship: the widest, or most accurate, whose measured latency meets a budget on this device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cells.cell import MEASURED, Cell, Result

NEAREST = 3  # misses that are named


@dataclass(frozen=True)
class WidthCandidate:
    """A measured width. `latency_ms`: the asked-for percentile over all samples; `worst_round_ms`: of its worst round."""

    cell: Cell
    latency_ms: float
    worst_round_ms: float


@dataclass(frozen=True)
class WidthChoice:
    """`chosen` is the best within the budget, or None. `fitting` holds all within it, best first; `misses` the rest, nearest
    first. `by` says what "best" is: `accuracy` or `MACs`."""

    budget_ms: float
    percentile: int
    by: str
    chosen: WidthCandidate | None
    fitting: tuple[WidthCandidate, ...]
    misses: tuple[WidthCandidate, ...]

    @property
    def close(self) -> bool:
        """Whether one round of the chosen width was over the budget: another day it may not meet it."""
        return self.chosen is not None and self.chosen.worst_round_ms > self.budget_ms


def choose(results: Sequence[Result], budget_ms: float, percentile: int) -> WidthChoice:
    """The best measured width whose latency per batch, at `percentile`, is at most `budget_ms`.

    Best is most accurate where every measured width knows its accuracy on the same images, else most MACs; of equals the
    faster one.
    """
    measured = [_candidate(result, percentile) for result in results if result.status == MEASURED]
    accuracies = [candidate.cell.accuracy for candidate in measured]
    known = bool(measured) and all(accuracies) and len({(a.get("data"), a.get("images")) for a in accuracies if a}) == 1

    def rank(candidate: WidthCandidate) -> tuple[float, float]:
        accuracy = candidate.cell.accuracy
        value = float(accuracy["top1"]) if known and accuracy else float(candidate.cell.macs)
        return -value, candidate.latency_ms

    fitting = sorted((candidate for candidate in measured if candidate.latency_ms <= budget_ms), key=rank)
    misses = [candidate for candidate in measured if candidate.latency_ms > budget_ms]
    misses.sort(key=lambda candidate: candidate.latency_ms)
    return WidthChoice(
        budget_ms,
        percentile,
        "accuracy" if known else "MACs",
        fitting[0] if fitting else None,
        tuple(fitting),
        tuple(misses),
    )


def _candidate(result: Result, percentile: int) -> WidthCandidate:
    rounds = [float(np.percentile(samples, percentile)) for samples in result.latency_ms]
    every = np.concatenate([np.asarray(samples) for samples in result.latency_ms])
    return WidthCandidate(result.cell, float(np.percentile(every, percentile)), max(rounds))


def sentences(choice: WidthChoice) -> list[str]:
    """The answer in words, a line each."""
    if not choice.fitting and not choice.misses:
        return ["no width could be measured, so none can be chosen"]
    name = {50: "median"}.get(choice.percentile, f"p{choice.percentile}")
    if choice.chosen is None:
        lines = [f"no width meets {choice.budget_ms:g} ms ({name} per batch). Nearest:"]
        lines += [
            f"  {_description(miss)}, {miss.latency_ms - choice.budget_ms:.3g} ms over" for miss in choice.misses[:NEAREST]
        ]
        return lines
    what = {"accuracy": "most accurate", "MACs": "widest"}[choice.by]
    lines = [f"{_description(choice.chosen)} ({name} per batch): the {what} width within {choice.budget_ms:g} ms"]
    if choice.close:
        lines.append(
            f"one of its rounds was over the budget ({choice.chosen.worst_round_ms:.3g} ms): measure longer (--duration), or "
            "keep a margin"
        )
    if choice.misses:
        lines.append(f"next: {_description(choice.misses[0])}, {choice.misses[0].latency_ms - choice.budget_ms:.3g} ms over")
    return lines


def _description(candidate: WidthCandidate) -> str:
    cell = candidate.cell
    accuracy = f", {cell.accuracy['top1']:.2%}" if cell.accuracy else ""
    return f"{cell.name} ({cell.precision}, {cell.label}{accuracy}) takes {candidate.latency_ms:.4g} ms"
