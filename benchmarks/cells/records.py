"""A run's files: `results.jsonl`, which grows while measuring, and `results.csv`, a row per cell.

`results.jsonl` has a line `{"kind": "run", ...}` that says how and where, a line `{"kind": "cell", ...}` per result with its
raw samples, as they come, and a last line `{"kind": "end", ...}`. Whatever ends a run, the lines before are whole.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from benchmarks.cells.cell import Cell, Result
from benchmarks.cells.schema import check_end, check_run, result_of
from benchmarks.cells.statistics import Summary, summary
from slimtrain.base.errors import UserError
from slimtrain.base.files import Advice, disk_error, remove_partials, write_atomically
from slimtrain.base.folders.claim import claimed
from slimtrain.base.growing import GrowingFile
from slimtrain.base.image_size import ImageSize, format_size
from slimtrain.base.text import utf8
from slimtrain.base.untrusted.json_text import JsonError, parse_json, whole_letters
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MOST_BYTES = 128 << 20  # of a run: ten million samples
MOST_LINES = 200_000
RESULTS, TABLE, REPORT, COMPARISON = "results.jsonl", "results.csv", "report.md", "comparison.txt"
CHOOSE = "choose"  # the folder, in a bundle's, of the runs that a width was chosen by
WRITTEN = re.compile(
    rf"{'|'.join(map(re.escape, (RESULTS, TABLE, REPORT, COMPARISON)))}|(latency|throughput|pareto)_.*\.png|load\.png"
)
ADVICE = Advice("What was measured before stays. Free some space and run again.", "Choose another folder.")


class RecordError(UserError):
    """A file of results cannot be read or written where the user said."""


Key = tuple[str, str, str, str, int, ImageSize, int]


def key_of(cell: Cell) -> Key:
    """What makes a cell the same one in two runs: network, name, backend, precision, batch, size and channels of images."""
    return cell.network, cell.name, cell.backend, cell.precision, cell.batch, cell.image_size, cell.channels


@dataclass(frozen=True)
class Recorded:
    """What a file of results holds. `end` is None, and `note` says so, for a run that was killed."""

    run: Mapping[str, Any]
    results: tuple[Result, ...]
    end: Mapping[str, Any] | None = None
    note: str = ""


class Records:
    """`results.jsonl` at `path`, for a `with` block: first `run`, then `add` for every result, last `end`.

    Each line is on its way to the disk before a method returns. Raises UserError where nothing can be written, or a file is
    there already, and ResourceError for a full disk; what was written before stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Records:
        self._file = GrowingFile(self.path, ADVICE, fresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)

    def run(
        self,
        command: str,
        environment: Mapping[str, Any],
        settings: Mapping[str, Any],
        ceilings: Mapping[str, Any] | None = None,
    ) -> None:
        """How and where: the command line, the machine, the method, and the ceilings that were measured."""
        content = {"command": command, "environment": environment, "settings": settings, "ceilings": ceilings or {}}
        self._write({"kind": "run", "schema_version": SCHEMA_VERSION, **content})

    def add(self, result: Result) -> None:
        """A result, whatever its status."""
        self._write({"kind": "cell", **result.as_dict()})

    def end(self, environment_after: Mapping[str, Any], seconds: float, interrupted: bool = False) -> None:
        """The machine after the run, how long it took, and whether Ctrl-C ended it."""
        self._write(
            {"kind": "end", "environment_after": environment_after, "seconds": seconds, "interrupted": interrupted},
        )

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json_line(content) + "\n")


def read_records(path: Path) -> Recorded:
    """What `Records` wrote to `path`. The last line of a killed run may be cut off, and is left out then, with a note.

    Raises RecordError for a file that is not there, none of results, damaged, or of another schema version.
    """
    path = path / RESULTS if path.is_dir() else path
    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise RecordError(f"{path}: not there. Give the {RESULTS} of an earlier run, or its folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({reason(error)}). Give the {RESULTS} of an earlier run.") from error
    if (count := text.count("\n")) > MOST_LINES:
        raise RecordError(
            f"{path}: has {count:,} lines, expected at most {MOST_LINES:,}. Give the {RESULTS} of an earlier run."
        )
    lines, cut = _lines(path, text)
    if not lines or lines[0].get("kind") != "run":
        raise RecordError(f"{path}: does not begin with a run's line, so it is no {RESULTS}. Give that of an earlier run.")
    if (version := lines[0].get("schema_version")) != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema version {quoted(version)}, expected {SCHEMA_VERSION}. Read it with the version that wrote it, or "
            "measure again."
        )
    _checked(path, 1, check_run, lines[0])
    results: dict[tuple[str, Key], Result] = {}
    end: Mapping[str, Any] | None = None
    for number, line in enumerate(lines[1:], 2):
        if line.get("kind") == "end":
            _checked(path, number, check_end, line)
            end = line
            continue
        result = _checked(path, number, _result, line)
        key = (result.cell.bundle, key_of(result.cell))
        if key in results:
            raise RecordError(
                f"{path}, line {number}: {result.cell.name} is there twice. Two runs were joined, take them apart."
            )
        results[key] = result
    note = "" if end else f"{path}: its run was killed before its end" + (", its last line is cut off" if cut else "")
    return Recorded(lines[0], tuple(results.values()), end, note)


def _lines(path: Path, text: str) -> tuple[list[dict[str, Any]], bool]:
    """The lines' contents, and whether the last one is cut off and left out."""
    lines = text.split("\n")
    contents: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = parse_json(line, f"line {number}")
        except JsonError as error:
            if number == len(lines) and contents:  # no line end behind it
                return contents, True
            raise RecordError(f"{path}, {reason(error)}. The file is damaged, take another.") from error
        if not isinstance(content, dict):
            raise RecordError(f"{path}, line {number}: is no entry of a {RESULTS}. Give that of an earlier run.")
        contents.append(content)
    return contents, False


T = TypeVar("T")


def _checked(path: Path, number: int, read: Callable[[Mapping[str, Any]], T], line: Mapping[str, Any]) -> T:
    """A line as `read` gives it. RecordError where it holds what cannot be."""
    try:
        return read(line)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path}, line {number}: is no result ({reason(error)}). The file is damaged, take another."
        ) from error


def _result(line: Mapping[str, Any]) -> Result:
    if line.get("kind") != "cell":
        raise KeyError("kind")
    return result_of(line)


ACCURACY = ("top1", "images", "data", "ap", "ap50", "ap_masks", "ap_keypoints")  # what a row has of one
CELL_COLUMNS = (
    *("bundle", "network", "name", "plan", "width", "label", "file", "backend", "precision", "batch", "image_size", "macs"),
    *("params", "size_bytes", "activations", "layers"),
)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """One row per cell: what it is, its figures (empty where it was not measured) and its warnings; at once.

    Raises UserError (exit code 2) where nothing can be written, ResourceError (3) for a full disk.
    """
    rows = [_row(result) for result in results]
    text = io.StringIO(newline="")
    figures = [name for name in Summary.__dataclass_fields__ if name != "interval_ms"]
    columns = (
        *CELL_COLUMNS,
        *(f"accuracy_{key}" for key in ACCURACY),
        *("status", "reason", "latency_kind", *figures),
        *("interval_low_ms", "interval_high_ms", "settings", "warnings"),
    )
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, utf8(text.getvalue()))


def _row(result: Result) -> dict[str, Any]:
    cell, figures = result.cell, summary(result)
    row: dict[str, Any] = {name: getattr(cell, name) for name in CELL_COLUMNS}
    row["image_size"] = format_size(cell.image_size)
    row |= {f"accuracy_{key}": (cell.accuracy or {}).get(key) for key in ACCURACY}
    row |= {"status": result.status, "reason": result.reason, "settings": json_line(result.settings)}
    row["warnings"] = " | ".join(result.warnings)
    if figures is not None:
        values = asdict(figures)
        low, high = values.pop("interval_ms")
        row |= {**values, "interval_low_ms": low, "interval_high_ms": high, "latency_kind": result.latency_kind}
    return row


@contextmanager
def claim_folder(folder: Path, needed: Sequence[Path] = (), kept: Sequence[Path] = ()) -> Iterator[Path | None]:
    """Make `folder`, and hold it in the block. One that holds a run already is renamed first, to `NAME.1`, which is given: the
    last run is kept. One that was kept so before is removed, and a log says so, if it holds nothing but what runs write and
    none of `kept`; else `NAME.2` is taken, and so on. Raises RecordError where that cannot be done, as where one of the
    `needed` files and folders would go along, UserError where another process measures into it, and ResourceError for a full
    disk."""
    if within := [path for path in needed if path.resolve().is_relative_to(folder.resolve())]:
        raise RecordError(f"{folder}: holds {within[0]}, which this run reads. Choose another folder for results.")
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(folder, "Wait for it, or choose another --output-dir."))
            remove_partials(folder)
            moved = _made(folder, needed, kept)
        except OSError as error:
            raise disk_error(folder, error, ADVICE) from error
        yield moved


def _made(folder: Path, needed: Sequence[Path], kept: Sequence[Path]) -> Path | None:
    """Make an empty folder; where the one that was there is now. OSError."""
    moved = None
    if (folder / RESULTS).exists():
        if Path.cwd().is_relative_to(folder.resolve()):
            raise RecordError(f"{folder}: holds a run, and the working folder cannot be renamed. Choose another folder.")
        folder = folder if folder.name not in ("", "..") else folder.resolve()
        places = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
        place = next(path for path in places if not path.exists() or _can_go(path, [*needed, *kept]))
        if place.exists():
            log.info("%s: the run before the last one is removed", place)
            shutil.rmtree(place)
        moved = folder.rename(place)
    folder.mkdir(parents=True, exist_ok=True)
    return moved


def _can_go(folder: Path, kept: Sequence[Path]) -> bool:
    """Whether a folder is an earlier run and nothing else: files that runs write, and those of its `choose`."""
    if folder.is_symlink() or not (folder / RESULTS).is_file() or Path.cwd().is_relative_to(folder.resolve()):
        return False
    if any(path.resolve().is_relative_to(folder.resolve()) for path in kept):
        return False
    inside = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return all(path.parts[:-1] in ((), (CHOOSE,), (f"{CHOOSE}.1",)) and WRITTEN.fullmatch(path.name) for path in inside)


def json_line(content: Mapping[str, Any]) -> str:
    """One line of JSON. Values that JSON has no word for become null (NaN, infinities), a number (numpy's) or text (paths)."""
    try:
        return whole_letters(json.dumps(content, separators=(",", ":"), allow_nan=False, default=_plain))
    except ValueError:  # NaN: looking for it in every sample would take longer than writing them
        return whole_letters(json.dumps(_finite(content), separators=(",", ":"), allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that can be recorded")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
