"""Where a run's lines and figures go, and the times of its steps."""

from __future__ import annotations

import csv
import errno
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import ResourceError
from slimtrain.training.records.logbook import Clock, EpochBar, Logbook, SummaryRow
from tests.support.outcomes import Terminal

ROWS: list[SummaryRow] = [
    {
        "epoch": 1,
        "step": 4,
        "plan": "x0_25",
        "width": 0.25,
        "train_loss": 2.5,
        "loss": 2.25,
        "top1": 0.5,
        "top5": 1.0,
        "lr": 0.1,
    },
    {
        "epoch": 2,
        "step": 8,
        "plan": "x0_25",
        "width": 0.25,
        "train_loss": 2.0,
        "loss": 2.0,
        "top1": 0.75,
        "top5": 1.0,
        "lr": 0.05,
    },
]


def test_lines_go_to_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = Logbook(tmp_path)
    book.say("épreuve")
    Logbook(tmp_path).say("two\nlines")  # a resumed run adds to what is there
    assert (tmp_path / "train.log").read_text(encoding="utf-8") == "épreuve\ntwo\nlines\n"
    assert capsys.readouterr().out == "épreuve\ntwo\nlines\n"


def test_a_process_that_is_not_the_first_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = Logbook(None, tensorboard=True)
    book.say("hello")
    book.record(ROWS, 8)
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_stop_a_run_over_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    Logbook(tmp_path).say("hello")
    assert capsys.readouterr().out == "hello\n"
    assert "train.log: cannot be written (No space left on device)" in caplog.text


def test_the_summary_holds_every_row_exactly(tmp_path: Path) -> None:
    book = Logbook(tmp_path)
    book.record([], 0)
    assert list(tmp_path.iterdir()) == []
    book.record(ROWS[:1], 4)
    book.record(ROWS, 8)
    with (tmp_path / "summary.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert records == [{key: str(value) for key, value in row.items()} for row in ROWS]
    assert (tmp_path / "summary.csv").read_bytes().count(b"\r") == 0


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ResourceError, match="pip install tensorboard") as caught:
        Logbook(tmp_path, tensorboard=True)
    assert caught.value.exit_code == 3


def test_tensorboard_gets_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Board:
        def __init__(self) -> None:
            self.scalars: list[tuple[str, float, int]] = []
            self.flushed = 0

        def add_scalar(self, key: str, value: float, step: int) -> None:
            self.scalars.append((key, value, step))

        def flush(self) -> None:
            self.flushed += 1

    book, board = Logbook(tmp_path), Board()
    book.board = board
    book.record(ROWS[:1], 4)
    book.record(ROWS[:1], 6)  # within an epoch
    book.record(ROWS, 8)
    kinds = ("train_loss", "loss", "top1", "top5")
    assert [s for s in board.scalars if s[0] != "lr"] == [(f"{k}/x0_25", r[k], r["step"]) for r in ROWS for k in kinds]
    assert [s for s in board.scalars if s[0] == "lr"] == [("lr", 0.1, 4), ("lr", 0.05, 8)]
    assert board.flushed >= 2


class Times:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    clock = Times()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    return clock


def test_a_clock_by_hand(times: Times) -> None:
    """10 steps in all, 2 done before; each waits 1 s for its batch and computes for 3 s."""
    clock = Clock(2, 10, 16)

    def batches() -> Iterator[int]:
        for i in range(2, 10):
            times.now += 1
            yield i

    for step in clock.watch(batches()):
        times.now += 3
        clock.done()
        times.now += 0.5  # a checkpoint is written
        if step == 3:
            break
    # From 100 to the end of the second step: 2 x 4 s, and 0.5 s between.
    assert clock.waited == 2 and clock.waiting == pytest.approx(2 / 8.5)
    assert clock.images_per_s(4) == pytest.approx(2 * 16 / 8.5)
    assert clock.describe(4) == "4 images/s  data 24%  0:26 left"  # 6 steps of 4.25 s
    times.now += 60  # a test
    clock.restart(4)
    assert clock.waited == 0 and clock.images_per_s(4) == 0.0
    times.now += 2
    clock.done()
    assert clock.images_per_s(5) == pytest.approx(8.0)


def test_a_clock_without_a_step_says_nothing_wrong(times: Times) -> None:
    clock = Clock(0, 10, 16)
    assert clock.describe(0) == "0 images/s  data 0%  0:00 left"
    assert list(clock.watch(iter(()))) == []


# ------------------------------------------------------------------------------------------------------------------- a bar


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_a_bar_of_an_epochs_steps_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal(monkeypatch)
    bar = EpochBar(3, 2, shown=True)
    for step in range(2, 5):  # a run that was resumed after its first step
        bar.advance(step)
        bar_there = bar.bar is not None
        assert bar_there == (step != 3)  # an epoch ends: its lines stand where the bar was
        if bar_there:
            bar.bar.refresh()
    bar.close()
    assert "epoch 1/2:" in shown.getvalue() and "epoch 2/2:" in shown.getvalue() and "2/3" in shown.getvalue()


@pytest.mark.parametrize(("terminal", "first"), [(False, True), (True, False), (False, False)])
def test_no_bar_elsewhere(monkeypatch: pytest.MonkeyPatch, terminal: bool, first: bool) -> None:
    """In a file, and of the other processes."""
    shown = on_terminal(monkeypatch) if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    bar = EpochBar(3, 1, shown=first)
    for step in range(1, 4):
        bar.advance(step)
    bar.close()
    assert shown.getvalue() == ""
