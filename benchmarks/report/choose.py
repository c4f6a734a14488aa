"""Which width to ship: the widest, or most accurate, whose measured latency meets a budget on this device beyond noise.

A width meets the budget if it does so in every round that it was measured in, and misses it if it does in none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import MEASURED, Cell, Result
from benchmarks.cells.shares import TOP1, key_of, name_of, share_of
from benchmarks.cells.statistics import standard_error
from benchmarks.report.analysis import ACCURACY

NEAREST = 3  # that are named


@dataclass(frozen=True)
class WidthCandidate:
    """A measured width. `latency_ms`: the asked-for percentile over all samples; `rounds_ms`: of its best and its worst round,
    which is how far it can be relied on."""

    cell: Cell
    latency_ms: float
    rounds_ms: tuple[float, float]


@dataclass(frozen=True)
class WidthChoice:
    """`fitting` holds the widths that are within the budget in every round, best first, `misses` those that are over it in
    every round, nearest first; `unsure` the ones between, best first: their noise is larger than their distance from the
    budget. `by` says what "best" is: `accuracy` or `MACs`."""

    budget_ms: float
    percentile: int
    by: str
    fitting: tuple[WidthCandidate, ...]
    unsure: tuple[WidthCandidate, ...]
    misses: tuple[WidthCandidate, ...]

    @property
    def chosen(self) -> WidthCandidate | None:
        """The best that is within the budget beyond noise; None where there is none."""
        return self.fitting[0] if self.fitting else None

    @property
    def better(self) -> tuple[WidthCandidate, ...]:
        """Of those that are unsure, the ones that would be chosen if they were within the budget."""
        chosen = self.chosen
        return tuple(one for one in self.unsure if chosen is None or self.rank(one) < self.rank(chosen))

    @property
    def as_accurate(self) -> tuple[WidthCandidate, ...]:
        """Within the budget, and less accurate than the chosen width by less than a standard error: no worse for all that is
        known, and maybe faster."""
        chosen = self.chosen
        if chosen is None or self.by != ACCURACY:
            return ()
        least = share_of(chosen.cell.accuracy) - standard_error(chosen.cell.accuracy) if chosen.cell.accuracy else 0.0
        return tuple(one for one in self.fitting[1:] if one.cell.accuracy and share_of(one.cell.accuracy) > least)

    def rank(self, candidate: WidthCandidate) -> tuple[float, float]:
        """Lower is better; of equals the faster one."""
        accuracy = candidate.cell.accuracy
        value = share_of(accuracy) if self.by == ACCURACY and accuracy else float(candidate.cell.macs)
        return -value, candidate.latency_ms


def choose(results: Sequence[Result], budget_ms: float, percentile: int) -> WidthChoice:
    """Which measured widths' latencies per batch, at `percentile`, are at most `budget_ms`, and the best of them.

    Best is most accurate where every measured width knows its accuracy on the same images, else most MACs.
    """
    measured = [_candidate(result, percentile) for result in results if result.status == MEASURED]
    accuracies = [candidate.cell.accuracy for candidate in measured]
    kinds = {(key_of(a), a.get("data"), a.get("images")) for a in accuracies if a}
    known = bool(measured) and all(accuracies) and len(kinds) == 1
    choice = WidthChoice(budget_ms, percentile, ACCURACY if known else "MACs", (), (), ())
    ranked = sorted(measured, key=choice.rank)
    misses = [candidate for candidate in ranked if candidate.rounds_ms[0] > budget_ms]
    fitting = tuple(candidate for candidate in ranked if candidate.rounds_ms[1] <= budget_ms)
    unsure = tuple(candidate for candidate in ranked if candidate.rounds_ms[0] <= budget_ms < candidate.rounds_ms[1])
    misses.sort(key=lambda candidate: candidate.latency_ms)
    return replace(choice, fitting=fitting, unsure=unsure, misses=tuple(misses))


def _candidate(result: Result, percentile: int) -> WidthCandidate:
    rounds = [float(np.percentile(samples, percentile)) for samples in result.latency_ms]
    every = np.concatenate([np.asarray(samples) for samples in result.latency_ms])
    return WidthCandidate(result.cell, float(np.percentile(every, percentile)), (min(rounds), max(rounds)))


def sentences(choice: WidthChoice, rounds: int = 0) -> list[str]:
    """The answer in words, a line each. `rounds`: how many every width was measured in, 0 where it does not matter."""
    if not choice.fitting and not choice.unsure and not choice.misses:
        return ["no width could be measured, so none can be chosen"]
    name = {50: "median"}.get(choice.percentile, f"p{choice.percentile}")
    chosen, budget = choice.chosen, f"{choice.budget_ms:g} ms"
    if chosen is not None:
        what = {ACCURACY: "most accurate", "MACs": "widest"}[choice.by]
        lines = [f"{_description(chosen)} ({name} per batch): the {what} width within {budget}"]
    elif choice.unsure:
        lines = [f"too noisy to choose: of no width every round meets {budget} ({name} per batch)"]
    else:
        lines = [f"no width meets {budget} ({name} per batch). Nearest:"]
        lines += [f"  {_description(miss)}, {_over(choice, miss)}" for miss in choice.misses[:NEAREST]]
        return lines
    for one in choice.better[:NEAREST]:
        lines.append(f"not sure: {_description(one)}: some rounds meet {budget}, some do not")
    if more := len(choice.better) - NEAREST:
        lines += [f"not sure of {more} more either"] * (more > 0)
    if choice.better:
        lines.append("to be surer, measure longer (--duration), in more --repeats, or on a quieter machine")
    if choice.as_accurate and chosen is not None:
        labels = [one.cell.label for one in sorted(choice.as_accurate, key=lambda one: one.cell.macs)]
        points = 100 * standard_error(chosen.cell.accuracy)
        lines.append(f"no less accurate within a standard error ({points:.1f} points): {', '.join(labels)}")
    if choice.misses:
        lines.append(f"next: {_description(choice.misses[0])}, {_over(choice, choice.misses[0])}")
    if rounds == 1:
        lines.append("a single round does not tell how sure that is: measure in --repeats 3 or more")
    return lines


def _over(choice: WidthChoice, miss: WidthCandidate) -> str:
    return f"{miss.latency_ms - choice.budget_ms:.3g} ms over"


def _description(candidate: WidthCandidate) -> str:
    cell = candidate.cell
    accuracy = f", {_shown(cell.accuracy)}" if cell.accuracy else ""
    low, high = (f"{value:.3g}" for value in candidate.rounds_ms)
    between = f", {low} to {high} in its rounds" if low != high else ""
    return f"{cell.name} ({cell.precision}, {cell.label}{accuracy}) takes {candidate.latency_ms:.4g} ms{between}"


def _shown(accuracy: Mapping[str, Any]) -> str:
    """`71.23%`, of a detector `AP 0.314`."""
    share = share_of(accuracy)
    return f"{share:.2%}" if key_of(accuracy) == TOP1 else f"{name_of(accuracy)} {share:.3f}"


def as_values(choice: WidthChoice, folder: Path) -> dict[str, Any]:
    """The choice as plain values; `folder` is the bundle's."""

    def of(candidate: WidthCandidate) -> dict[str, Any]:
        cell = candidate.cell
        keys = ("name", "width", "precision", "backend", "batch", "macs", "accuracy")
        return {
            **{key: getattr(cell, key) for key in keys},
            "path": str(folder / cell.file),
            "latency_ms": candidate.latency_ms,
            "rounds_ms": list(candidate.rounds_ms),
        }

    return {
        "budget_ms": choice.budget_ms,
        "percentile": choice.percentile,
        "by": choice.by,
        "chosen": None if choice.chosen is None else of(choice.chosen),
        "fitting": [of(candidate) for candidate in choice.fitting],
        "unsure": [of(candidate) for candidate in choice.unsure],
        "over": [of(candidate) for candidate in choice.misses],
    }
