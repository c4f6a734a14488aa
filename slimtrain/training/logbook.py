"""What a run says: plain lines on standard output and in `train.log`, tables, `summary.csv`. First process only."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from slimtrain.base.errors import ResourceError
from slimtrain.base.files import RUN, write_atomically
from slimtrain.config.run_folder import BOARD, LOG, SUMMARY

log = logging.getLogger(__name__)

Row = dict[str, float | int | str]


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
        click.echo(text)
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:  # a line less is no reason to stop: checkpoints say what cannot be saved
            log.warning("%s: cannot be written (%s)", self.folder / LOG, error.strerror or error)

    def record(self, rows: Sequence[Row], step: int) -> None:
        """Write all rows so far to `summary.csv`, the last step's to TensorBoard too."""
        if self.folder is None or not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / SUMMARY, text.getvalue().encode(), RUN)
        if self.board is not None:
            for row in rows:
                if row["step"] == step:
                    for key in ("train_loss", "loss", "top1", "top5"):
                        if row[key] != "":
                            self.board.add_scalar(f"{key}/{row['plan']}", row[key], step)
                    self.board.add_scalar("lr", row["lr"], step)
            self.board.flush()
