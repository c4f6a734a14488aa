"""Which widths a runtime holds open: a few that spread best over those that are worth serving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from slimexport.target.manifest import Artifact
from slimexport.target.serving.opening import accuracy_of

MOST_OPEN = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A file that could be served. `ms`: what one image takes; `accuracy` is None where the manifest knows none: then more
    multiply-accumulates are taken to be better."""

    artifact: Artifact
    ms: float
    accuracy: float | None


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other is both as fast and as good as, from the fastest to the best (Pareto front)."""
    known = all(candidate.accuracy is not None for candidate in candidates)

    def good(candidate: Candidate) -> float:
        return candidate.accuracy if known and candidate.accuracy is not None else float(candidate.artifact.macs)

    best, kept = -math.inf, []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.ms, -good(candidate))):
        if good(candidate) > best:
            best = good(candidate)
            kept.append(candidate)
    return kept


def not_outdone(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Those, from the fewest multiply-accumulates on, that are more accurate than all with fewer; all of them where an
    accuracy is not known. Which is faster is not asked: a width that costs more and knows less is not worth measuring."""
    accuracies = [accuracy_of(artifact) for artifact in artifacts]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if len(known) < len(artifacts):
        return list(artifacts)
    return [artifact for number, artifact in enumerate(artifacts) if known[number] > max(known[:number], default=-math.inf)]


def spread(candidates: Sequence[Candidate], count: int = MOST_OPEN) -> list[Candidate]:
    """`count` of a front, its ends among them, whose steps are as alike as can be. Steps are of the logarithm of latency: a
    width serves loads up to its speed, so equal ratios of speed are equal steps of load.

    Exact: the sum of squared steps is least, by dynamic programming.
    """
    if len(candidates) <= count:
        return list(candidates)
    if count == 1:
        return [candidates[-1]]
    place = [math.log(candidate.ms) for candidate in candidates]
    last = len(candidates) - 1
    # costs[k][j]: of the best way from the first to j in k steps; and the one before j in it
    costs = [[0.0 if j == 0 else math.inf for j in range(last + 1)]]
    before: list[list[int]] = []
    for _ in range(count - 1):
        row, from_ = [], []
        for j in range(last + 1):
            cost, i = min(((costs[-1][i] + (place[j] - place[i]) ** 2, i) for i in range(j)), default=(math.inf, 0))
            row.append(cost)
            from_.append(i)
        costs.append(row)
        before.append(from_)
    chosen = [last]
    for from_ in reversed(before):
        chosen.append(from_[chosen[-1]])
    return [candidates[index] for index in reversed(chosen)]


def halving(items: Sequence[T]) -> list[T]:
    """All items in an order whose beginnings are spread evenly: the ends, the middle, the middles of the halves, and so on."""
    if len(items) <= 2:
        return list(items)
    order, spans = [0, len(items) - 1], [(0, len(items) - 1)]
    while spans:
        halves = []
        for low, high in spans:
            if high - low > 1:
                middle = (low + high) // 2
                order.append(middle)
                halves += [(low, middle), (middle, high)]
        spans = halves
    return [items[index] for index in order]
