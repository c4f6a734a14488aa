"""Names with lines: arrangements against brute force, and boxes and lines against their definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmarks.report.plots.beside import LEFT_OUT, Name, Place, _disturb, arrange, place_beside
from benchmarks.report.plots.style import freeze, new_figure


def place(left: float, cost: float, wide: float = 10) -> Place:
    return Place(0, (0.0, 0.0), (left, 0.0, left + wide, 5.0), None, cost)


@pytest.mark.parametrize("seed", range(8))
def test_the_arrangement_is_the_cheapest_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = [[place(float(random.uniform(0, 45)), float(random.uniform(0, 100))) for _ in range(4)] for _ in range(4)]

    def cost(chosen: tuple[Place | None, ...]) -> float:
        there = [of for of in chosen if of is not None]
        clash = any(_disturb(one, other, 1.0) for at, one in enumerate(there) for other in there[:at])
        return float("inf") if clash else sum(LEFT_OUT if of is None else of.cost for of in chosen)

    least = min(cost(chosen) for chosen in product(*([*own, None] for own in places)))
    assert cost(tuple(arrange(places, 1.0))) == pytest.approx(least)


def test_a_name_without_a_place_is_left_out_and_told() -> None:
    assert arrange([[place(0, 1)], []], 1.0) == [place(0, 1), None]
    figure, (axes,) = new_figure(1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    freeze(figure)
    names = [Name("short", [(0.5, 0.5)]), Name("far too long " * 20, [(0.5, 0.5)])]
    assert place_beside(axes, names, [(0.5, 0.5)], [], [[(1, 1)]]) == [names[1].text]
    assert [text.get_text() for text in axes.texts] == ["short"]


def test_a_name_that_stands_further_off_has_a_line_to_its_point() -> None:
    figure, (axes,) = new_figure(1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    freeze(figure)
    crowd = [(float(x), float(y)) for x, y in product(np.linspace(0.45, 0.55, 5), np.linspace(0.4, 0.6, 6))]
    assert place_beside(axes, [Name("far", [(0.5, 0.5)])], [*crowd, (0.5, 0.5)], [], [[(0, 1)]]) == [
        "far"
    ]  # its line would cross
    assert place_beside(axes, [Name("far", [(0.5, 0.5)])], [(0.5, 0.5)], [((0.4, 0.54), (0.6, 0.54))], [[(0, 1)]]) == []
    text, line = axes.texts
    assert text.get_text() == "far" and line.get_text() == "" and line.arrow_patch is not None  # type: ignore[attr-defined]
