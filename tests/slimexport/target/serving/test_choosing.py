"""Which widths are opened, against all combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimexport.target.manifest import Accuracy
from slimexport.target.serving.choosing import Candidate, front, halving, not_outdone, spread
from tests.support.bundle_helpers import artifact

TIMES = st.floats(0.01, 100)


def candidates(rows: Sequence[tuple[float, float | None]]) -> list[Candidate]:
    """Of milliseconds and accuracy; later ones have more multiply-accumulates."""
    return [Candidate(artifact(f"net_{number}", None, macs=number + 1), ms, good) for number, (ms, good) in enumerate(rows)]


@given(st.lists(st.tuples(TIMES, st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])), max_size=9), st.booleans())
@settings(deadline=None)
def test_the_front_is_what_no_other_is_as_fast_and_as_good_as(rows: list[tuple[float, float]], known: bool) -> None:
    every = candidates([(ms, good if known else None) for ms, good in rows])
    quality = {id(one): one.accuracy if one.accuracy is not None else one.artifact.macs for one in every}

    def is_beaten(one: Candidate) -> bool:
        return any(
            other.ms <= one.ms
            and quality[id(other)] >= quality[id(one)]
            and (other.ms, quality[id(other)]) != (one.ms, quality[id(one)])
            for other in every
        )

    best = {(one.ms, quality[id(one)]) for one in every if not is_beaten(one)}
    chosen = front(every)
    assert [(one.ms, quality[id(one)]) for one in chosen] == sorted(best)


@given(st.lists(TIMES, min_size=1, max_size=9, unique=True), st.integers(1, 6))
@settings(deadline=None, max_examples=200)
def test_the_spread_is_the_best_of_all_combinations(times: list[float], count: int) -> None:
    every = candidates([(ms, None) for ms in sorted(times)])
    chosen = spread(every, count)
    if len(every) <= count:
        assert chosen == every
        return
    if count == 1:
        assert chosen == [every[-1]]
        return

    def cost(some: Sequence[Candidate]) -> float:
        return sum(math.log(b.ms / a.ms) ** 2 for a, b in itertools.pairwise(some))

    combinations = [(every[0], *middle, every[-1]) for middle in itertools.combinations(every[1:-1], count - 2)]
    assert len(chosen) == count and (chosen[0], chosen[-1]) == (every[0], every[-1])
    assert cost(chosen) == pytest.approx(min(map(cost, combinations)))


def test_one_unknown_accuracy_makes_costs_decide() -> None:
    every = candidates([(1.0, 0.9), (2.0, None), (3.0, 0.1)])
    assert front(every) == every
    assert front(candidates([(1.0, 0.9), (2.0, 0.8), (3.0, 0.95)])) == [
        one for one in candidates([(1.0, 0.9), (2.0, 0.8), (3.0, 0.95)]) if one.accuracy != 0.8
    ]


@given(st.integers(0, 40))
def test_halving_gives_all_of_them_the_ends_first(count: int) -> None:
    order = halving(range(count))
    assert sorted(order) == list(range(count))
    if count > 4:
        assert set(order[:2]) == {0, count - 1} and order[2] == (count - 1) // 2
        gaps = [b - a for a, b in itertools.pairwise(sorted(order[:5]))]
        assert max(gaps) - min(gaps) <= 2


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.5, 0.6, 0.7])), min_size=1, max_size=6))
def test_a_width_that_knows_less_than_one_that_costs_less_is_not_served(accuracies: list[float | None]) -> None:
    every = [
        artifact(macs=number + 1, accuracy=None if top1 is None else Accuracy(top1=top1, images=9, data="a", sha256=None))
        for number, top1 in enumerate(accuracies)
    ]
    kept = {one.macs - 1 for one in not_outdone(every)}
    for number, top1 in enumerate(accuracies):
        beaten = None not in accuracies and any((other or 0) >= (top1 or 0) for other in accuracies[:number])
        assert (number in kept) == (not beaten)
