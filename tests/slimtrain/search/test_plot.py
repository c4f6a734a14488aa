"""The picture of a search: what it shows, and that it can do without matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from slimtrain.costs.cost_model import cost_model
from slimtrain.search.greedy import SearchOutcome
from slimtrain.search.plot import plot_search
from slimtrain.search.trace import SearchStep
from tests.support.search_toys import V1

SIZE = 32
COSTS, ERRORS = (835e3, 700e3, 560e3, 430e3), (10.0, 12.5, 12.0, 20.0)


def step(number: int) -> SearchStep:
    """From the cost and error before to those after."""
    costs, errors = COSTS[number - 1 : number + 1], ERRORS[number - 1 : number + 1]
    macs = int(costs[1]) + 5  # of another unit than the cost
    return SearchStep(number, "features.0", 8, 7, costs[0], costs[1], macs, 90, errors[0], errors[1], 1.0, 1.1, 40, 3, 0.2)


STEPS = [step(number) for number in (1, 2, 3)]
OUTCOMES = [
    SearchOutcome(700e3, V1.plan(0.25), COSTS[1], int(COSTS[1]) + 5, 89, ERRORS[1], 1.1, 40, 1),
    SearchOutcome(450e3, V1.plan(0.125), COSTS[3], int(COSTS[3]) + 5, 87, ERRORS[3], 1.1, 40, 3),
]


@pytest.fixture(autouse=True, scope="module")
def _pictures_are_not_rendered() -> None:
    """They are here."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    figures: list[Any] = []
    savefig = figure.savefig

    def save(figure: Any, *args: Any, **options: Any) -> None:
        figures.append(figure)
        savefig(figure, *args, **options)

    monkeypatch.setattr(figure, "savefig", save)
    return figures


def test_errors_against_the_cost_with_the_targets_and_what_met_them(drawn: list[Any], tmp_path: Path) -> None:
    assert plot_search(tmp_path, STEPS, cost_model("macs", V1, SIZE), OUTCOMES) == tmp_path / "trace.png"
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    line, networks, *targets = axes.lines
    assert list(line.get_xdata()) == [cost / 1e3 for cost in COSTS]
    assert list(line.get_ydata()) == list(ERRORS)
    assert [target.get_xdata()[0] for target in targets] == [700, 450]
    assert list(networks.get_xdata()) == [COSTS[1] / 1e3, COSTS[3] / 1e3]
    assert list(networks.get_ydata()) == [ERRORS[1], ERRORS[3]]
    assert axes.get_xlabel() == "thousand MACs"
    assert axes.get_ylabel() == "error on held-out images (%)"


def test_of_another_cost_there_is_a_second_picture_against_macs(drawn: list[Any], tmp_path: Path) -> None:
    plot_search(tmp_path, STEPS, cost_model("params", V1, SIZE), OUTCOMES)
    first, second = drawn[0].axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("params (thousand parameters)", "thousand MACs")
    line, networks = second.lines
    assert list(line.get_xdata()) == [(cost + 5) / 1e3 for cost in COSTS[1:]]
    assert list(line.get_ydata()) == list(ERRORS[1:])
    assert list(networks.get_xdata()) == [(COSTS[1] + 5) / 1e3, (COSTS[3] + 5) / 1e3]


def test_without_matplotlib_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    caplog.set_level("INFO")
    assert plot_search(tmp_path, STEPS, cost_model("macs", V1, SIZE), OUTCOMES) is None
    assert "trace.png was not drawn: matplotlib is not installed" in caplog.text
    assert not list(tmp_path.iterdir())


def test_without_a_step_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert plot_search(tmp_path, [], cost_model("macs", V1, SIZE), []) is None
