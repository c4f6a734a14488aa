"""The picture of a run's course: what is on its axes and in its legends, and that it is optional."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slimtrain.training.records.curves import draw_curves
from slimtrain.training.records.logbook import SummaryRow


def rows(epochs: Sequence[int], plans: Sequence[tuple[str, float]]) -> list[SummaryRow]:
    return [
        {"epoch": epoch, "plan": plan, "width": width, "train_loss": 2 / epoch, "loss": 3 / epoch, "top1": 1 - 0.5 / epoch}
        for epoch in epochs
        for plan, width in plans
    ]


TWO = [("x0_25", 0.25), ("x1_0", 1.0)]


@pytest.fixture(autouse=True, scope="module")
def _pictures_are_not_rendered() -> None:
    """They are here."""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    figure = pytest.importorskip("matplotlib.figure")
    saved: list[Any] = []
    real = figure.Figure.savefig

    def savefig(self: Any, *args: Any, **options: Any) -> None:
        saved.append(self)
        real(self, *args, **options)

    monkeypatch.setattr(figure.Figure, "savefig", savefig)
    return saved


def test_losses_and_accuracy_of_every_width(tmp_path: Path, figures: list[Any]) -> None:
    path = draw_curves(tmp_path, rows([2, 4, 6], TWO), "us_mobilenet_v1, digits")
    assert path == tmp_path / "curves.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 800
    losses, accuracy = figures[0].axes
    assert figures[0].get_suptitle() == "us_mobilenet_v1, digits"
    names = [text.get_text() for text in losses.get_legend().get_texts()]
    assert names == ["1, test", "1, training", "0.25, test", "0.25, training"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["1", "0.25"]
    assert (losses.get_xlabel(), accuracy.get_xlabel()) == ("epoch", "epoch")
    assert "loss" in losses.get_ylabel() and "top-1" in accuracy.get_ylabel()
    assert losses.get_ylim()[0] == 0
    drawn = {line.get_label(): line.get_ydata().tolist() for line in (*losses.lines, *accuracy.lines)}
    assert drawn["1, training"] == [1.0, 0.5, 2 / 6] and drawn["0.25, test"] == [1.5, 0.75, 0.5]
    assert drawn["0.25"] == [0.75, 0.875, 1 - 0.5 / 6]
    assert losses.lines[0].get_xdata().tolist() == [2, 4, 6]


def test_a_detector_has_the_losses_of_training_and_precision(tmp_path: Path, figures: list[Any]) -> None:
    given = [{**row, "ap": 0.1 * int(row["epoch"])} for row in rows((1, 2), TWO)]
    for row in given:
        del row["loss"], row["top1"]
    draw_curves(tmp_path, given, "s_faster_rcnn, run")
    losses, precision = figures[0].axes
    assert [line.get_label() for line in losses.lines] == ["1, training", "0.25, training"]
    assert precision.get_ylabel() == "average precision on test images"
    assert list(precision.lines[0].get_ydata()) == [0.1, 0.2]


def test_one_test_and_plans_without_a_width(tmp_path: Path, figures: list[Any]) -> None:
    assert draw_curves(tmp_path, rows([1], [("macs_150M", 0)]), "found") is not None
    assert [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()] == ["macs_150M"]
    ticks = figures[0].axes[0].get_xticks()
    assert all(float(tick).is_integer() for tick in ticks)


def test_a_figure_that_is_not_there(tmp_path: Path, figures: list[Any]) -> None:
    """Losses that no step had."""
    without = [{**row, "train_loss": ""} for row in rows([1, 2], TWO)]
    assert draw_curves(tmp_path, without, "run") is not None


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert draw_curves(tmp_path, [], "run") is None and list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO"):
        assert draw_curves(tmp_path, rows([1], TWO), "run") is None
    assert caplog.text.count("pip install matplotlib") == 1 and list(tmp_path.iterdir()) == []
