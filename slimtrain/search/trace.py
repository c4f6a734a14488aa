"""What a search has done so far, on disk after every step, so that a search killed anywhere goes on from there. No torch.

`search.json` says which search it is. `candidates.csv` has every candidate of every step; `trace.csv` has a line per step and
is written last: a step counts once its whole line is there. Numbers are written with all their digits, so a resumed search
reads what the killed one computed.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.base.files import RUN, Advice, disk_error, write_atomically
from slimtrain.base.untrusted.json_text import parse_json
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason, shortened

SEARCH, TRACE, CANDIDATES = "search.json", "trace.csv", "candidates.csv"
MOST_BYTES = 64 << 20  # of a search's files: a step's line takes 200 bytes
MOST_NUMBER = 2**63
MOST_SHOWN = 100  # letters of what a message quotes: a SHA-256 is shown whole
SAFE = "The steps before are safe: free some space or correct output_dir, then go on with --resume auto."
ADVICE = Advice(SAFE, SAFE)


@dataclass(frozen=True)
class SearchStep:
    """A line of trace.csv. Costs in the search's unit; MACs without pools; errors of the held-out `images` (in percent, of
    detectors searched by their loss that), losses their mean; `candidates` were compared in `seconds`."""

    step: int
    group: str
    channels_before: int
    channels_after: int
    cost_before: float
    cost_after: float
    macs: int
    params: int
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float
    images: int
    candidates: int
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A line of candidates.csv: what a step could have shrunk."""

    step: int
    group: str
    channels_before: int
    channels_after: int
    cost: float
    error: float
    loss: float
    chosen: int


class Trace:
    """The trace of one search in `folder`; `steps` are those already done.

    With `resume` an earlier search there is gone on with, else UserError where there is one. Only the process that is told
    to `write` writes.
    """

    def __init__(self, folder: Path, *, resume: bool = False, write: bool = True) -> None:
        self.folder, self.resume, self.write = folder, resume, write
        self.steps: list[SearchStep] = []

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Read the steps already done, or say on disk which search begins.

        UserError where the folder holds another search than `identity` tells, naming what differs, and for a damaged file.
        """
        path = self.folder / SEARCH
        now = json.loads(json.dumps(identity))  # as it reads back: tuples are lists
        if not path.exists():
            if (self.folder / TRACE).exists():
                raise UserError(
                    f"{self.folder}: has a {TRACE} but no {SEARCH}, which says of what. Choose another output_dir."
                )
            if self.write:
                write_atomically(path, (json.dumps(now, indent=1) + "\n").encode(), RUN)
            return
        if not self.resume and self.write:  # the others may see what the first has just written
            raise UserError(f"{self.folder}: holds a search already. Go on with --resume auto, or choose another output_dir.")
        before = _read_identity(path)
        if changed := [key for key in {**before, **now} if before.get(key) != now.get(key)]:
            listed = ", ".join(
                f"{shortened(key)} was {quoted(before.get(key), MOST_SHOWN)} and is {quoted(now.get(key), MOST_SHOWN)}"
                for key in changed
            )
            raise UserError(
                f"{path}: belongs to another search: {listed}. A resumed search goes on as it began: undo this, or choose "
                "another output_dir."
            )
        self.steps = _read_steps(self.folder / TRACE)
        if self.write:  # what the killed process had begun to write
            self._rewrite(TRACE, SearchStep, self.steps)
            kept = [row for row in _read(self.folder / CANDIDATES, Candidate) if row.step <= len(self.steps)]
            self._rewrite(CANDIDATES, Candidate, kept)

    def add(self, step: SearchStep, candidates: Sequence[Candidate]) -> None:
        """A step is done."""
        self.steps.append(step)
        if self.write:
            self._append(CANDIDATES, candidates)
            self._append(TRACE, [step])

    def _rewrite(self, name: str, kind: type[SearchStep | Candidate], rows: Sequence[SearchStep | Candidate]) -> None:
        if (self.folder / name).exists():
            write_atomically(self.folder / name, (_header(kind) + _lines(rows)).encode(), RUN)

    def _append(self, name: str, rows: Sequence[SearchStep | Candidate]) -> None:
        """Add lines to a file, through to the disk."""
        path = self.folder / name
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(("" if file.tell() else _header(type(rows[0]))) + _lines(rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(path, error, ADVICE) from error


def read_trace(folder: Path) -> list[SearchStep]:
    """The steps of the search in `folder`. UserError for a damaged file."""
    return _read_steps(folder / TRACE)


def _read_steps(path: Path) -> list[SearchStep]:
    steps = _read(path, SearchStep)
    if [step.step for step in steps] != list(range(1, len(steps) + 1)):
        raise UserError(f"{path}: its steps do not count from 1. The file is damaged: begin anew in another output_dir.")
    return steps


def _read_identity(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = parse_json(read_text(path, MOST_BYTES))
        if isinstance(content, dict):
            return content
    raise UserError(f"{path}: cannot be read, so no search can go on here. Choose another output_dir.")


def _read(path: Path, kind: type[Any]) -> list[Any]:
    """The lines of a file as values of `kind`; of a line that has no end yet nothing. UserError for any other damage."""
    try:
        text = read_text(path, MOST_BYTES) if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}). Begin anew in another output_dir.") from error
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return []
    values: list[Any] = []
    try:
        header, *rows = csv.reader(io.StringIO(whole))
        if header != [field.name for field in dataclasses.fields(kind)]:
            raise ValueError("other columns than those of a search")
        values.extend(_parsed(row, kind) for row in rows)
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged behind line {len(values) + 1} ({reason(error)}). Begin anew elsewhere."
        ) from error
    return values


def _parsed(row: Sequence[str], kind: type[Any]) -> Any:
    fields = dataclasses.fields(kind)
    return kind(*(_converter(field)(value) for field, value in zip(fields, row, strict=True)))


def _converter(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    if field.type == "float":
        return _loss if field.name.startswith("loss") else _number
    return _whole if field.type == "int" else str


def _whole(text: str) -> int:
    if not text.isascii() or len(text) > 20 or abs(value := int(text)) >= MOST_NUMBER:
        raise ValueError(f"{quoted(text)} is no whole number of a search")
    return value


def _loss(text: str) -> float:
    """It may be infinite, or none."""
    if not text.isascii() or len(text) > 40:
        raise ValueError(f"{quoted(text)} is no number of a search")
    return float(text)


def _number(text: str) -> float:
    if not math.isfinite(value := _loss(text)):
        raise ValueError(f"{quoted(text)} is no cost and no error of a search")
    return value


def _header(kind: type[SearchStep | Candidate]) -> str:
    return ",".join(field.name for field in dataclasses.fields(kind)) + "\n"


def _lines(rows: Sequence[SearchStep | Candidate]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(dataclasses.astuple(row) for row in rows)
    return text.getvalue()
