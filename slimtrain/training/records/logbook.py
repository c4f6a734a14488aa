"""Where a run's lines and figures go, of its first process only, and the clock that times its steps. No torch."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from slimtrain.base.errors import ResourceError
from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.text import duration, utf8
from slimtrain.config.run_folder import BOARD, LOG, SUMMARY

log = logging.getLogger(__name__)

PLAIN = {"epoch", "step", "plan", "width", "lr", "images_per_s", "data_wait"}  # columns that are no figures of a plan
SummaryRow = dict[str, float | int | str]
T = TypeVar("T")


class Logbook:
    """Lines and figures of one run in `folder`; of a process that is not the first, nothing."""

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self.folder = folder
        self.board: Any = None
        if folder is not None and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ResourceError("tensorboard is not installed: pip install tensorboard, or leave it off.") from error
            self.board = SummaryWriter(folder / BOARD)

    def say(self, text: str) -> None:
        """One or more lines."""
        if self.folder is None:
            return
        with _above_bars():
            click.echo(text)
        try:
            with (self.folder / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")
        except OSError as error:  # a line less is no reason to stop: checkpoints say what cannot be saved
            log.warning("%s: cannot be written (%s)", self.folder / LOG, error.strerror or error)

    def record(self, rows: Sequence[SummaryRow], step: int) -> None:
        """Write all rows so far to `summary.csv`, the last step's to TensorBoard too."""
        if self.folder is None or not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / SUMMARY, utf8(text.getvalue()), RUN)
        if self.board is not None:
            for row in rows:
                if row["step"] == step:
                    for key in row:
                        if key not in PLAIN and row[key] != "":
                            self.board.add_scalar(f"{key}/{row['plan']}", row[key], step)
                    self.board.add_scalar("lr", row["lr"], step)
            self.board.flush()


def _above_bars() -> contextlib.AbstractContextManager[None]:
    """Where a bar is shown, it makes room for lines. Without one tqdm is not loaded."""
    shown = sys.modules.get("tqdm")
    return contextlib.nullcontext() if shown is None else shown.tqdm.external_write_mode()


class Clock:
    """How fast a run is, how long it waits for data, and how long it will take: times the steps since the last `restart`.

    `step` of `total` are done, of `batch_size` images each.
    """

    def __init__(self, step: int, total: int, batch_size: int) -> None:
        self.total, self.batch_size = total, batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin anew: after a test, which is no training."""
        self.step = step
        self.began = self.last = time.perf_counter()
        self.waited = 0.0

    def watch(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time until each comes counts as waiting."""
        while True:
            before = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield batch

    def done(self) -> None:
        """A step has been done."""
        self.last = time.perf_counter()

    @property
    def waiting(self) -> float:
        """The share of time spent waiting for data."""
        return self.waited / max(self.last - self.began, 1e-9)

    def images_per_s(self, step: int) -> float:
        """Images per second, over all processes."""
        return (step - self.step) * self.batch_size / max(self.last - self.began, 1e-9)

    def describe(self, step: int) -> str:
        """`512 images/s  data 3%  0:41 left`."""
        rate = self.images_per_s(step)
        left = (self.total - step) * self.batch_size / rate if rate else 0.0
        return f"{rate:.0f} images/s  data {self.waiting:.0%}  {duration(left)} left"


class EpochBar:
    """A bar of the steps of an epoch, on a terminal, of the first process only; elsewhere nothing: the lines tell."""

    def __init__(self, steps: int, epochs: int, *, shown: bool) -> None:
        """`steps` of an epoch; `shown` is false for all processes but the first."""
        self.steps, self.epochs = steps, epochs
        self.disable = None if shown else True  # None: shown where standard error is a terminal
        self.bar: Any = None

    def advance(self, step: int) -> None:
        """`step` steps are done, counted over all epochs. A new epoch begins a new bar."""
        if self.disable:
            return
        epoch, position = divmod(step - 1, self.steps)
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=self.steps,
                initial=position,
                desc=f"epoch {epoch + 1}/{self.epochs}",
                unit="step",
                leave=False,
                disable=None,
            )
        self.bar.update(1)
        if position + 1 == self.steps:
            self.close()

    def close(self) -> None:
        """The bar goes: what is said next stands where it was."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None
