"""Latencies out of a `results.jsonl`, as `python -m benchmarks` writes it: somebody else's file, so nothing in it is believed
before it is seen to be of its type and in its range.

A line is a JSON object; of the kind `cell` are those that hold one network on one backend at one batch with its raw samples,
in milliseconds. Other kinds say how and where it was measured, and are passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from slimexport.target.records import EntryError, Name, Positive, Record, Within, from_json
from slimexport.target.timings import Samples
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.base.text import some
from slimtrain.base.untrusted.json_text import JsonError, parse_json
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import reason

RESULTS = "results.jsonl"
MOST_BYTES = 128 << 20
MOST_LINES = 200_000
SCHEMA_VERSION = 1
MEASURED = ("measured", "interrupted")  # of the latter some rounds are there
WALL, DEVICE = "wall", "device"  # from the call to the result, by the host's clock; by events on the device


class ProfileError(UserError):
    """A file of measurements that cannot be read, or that says nothing of what is to be served."""


@dataclass(frozen=True, kw_only=True)
class RoundEntry(Record):
    samples_ms: Mapping[str, tuple[Annotated[float, Within(1e-6, 1e9)], ...]]


@dataclass(frozen=True, kw_only=True)
class CellEntry(Record):
    network: Name
    name: Name
    backend: Name
    precision: Name
    batch: Positive
    image_size: ImageSize
    channels: Positive = 3
    shape: tuple[Positive, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return (self.channels, *sides(self.image_size)) if self.shape is None else self.shape


@dataclass(frozen=True, kw_only=True)
class CellLine(Record):
    cell: CellEntry
    status: str
    rounds: tuple[RoundEntry, ...]


@dataclass(frozen=True)
class Served:
    """What is looked for: networks of one kind, by the `names` of the manifest, each with the label that it gets."""

    network: str
    precision: str
    backend: str
    input_shape: tuple[int, ...]
    names: Mapping[str, str]


def recorded(path: Path, served: Served) -> Samples:
    """The samples of those of the networks that a `results.jsonl`, or the folder that holds one, knows on this backend, by
    label and batch. ProfileError for a file that is no such one, or knows none of them."""
    path = path / RESULTS if path.is_dir() else path
    known: dict[str, dict[int, Sequence[float]]] = {}
    for number, line in _cells(path):
        try:
            entry = from_json(CellLine, line)
        except EntryError as error:
            raise ProfileError(f"{path}, line {number}: {error}. The file is damaged, take another.") from error
        cell = entry.cell
        wanted = (served.network, served.precision, served.backend, served.input_shape)
        if (cell.network, cell.precision, cell.backend, cell.input_shape) != wanted or cell.name not in served.names:
            continue
        of_width = known.setdefault(served.names[cell.name], {})
        samples = _samples(entry)
        if samples and cell.batch in of_width:
            raise ProfileError(
                f"{path}, line {number}: {cell.name} is there twice at batch {cell.batch}. Take joined runs apart."
            )
        if samples:
            of_width[cell.batch] = samples
    if not (known := {label: row for label, row in known.items() if row}):
        raise ProfileError(
            f"{path}: holds no latency of {some(list(served.names))} in {served.precision} on {served.backend}. Measure the "
            f"bundle: python -m benchmarks BUNDLE --backends {served.backend}. Or leave --profile out."
        )
    return known


def _cells(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The lines of the kind `cell`, with their numbers. The last line of a killed run may be cut off, and is left out then."""
    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise ProfileError(
            f"{path}: not there. Give the {RESULTS} of a run of python -m benchmarks, or its folder."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read ({reason(error)}). Give the {RESULTS} of a run.") from error
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        raise ProfileError(f"{path}: has {len(lines):,} lines, expected at most {MOST_LINES:,}. Give the {RESULTS} of a run.")
    cells: list[tuple[int, dict[str, Any]]] = []
    begins = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = parse_json(line, f"line {number}")
        except JsonError as error:
            if number == len(lines) and begins:
                break
            raise ProfileError(f"{path}, {reason(error)}. Give the {RESULTS} of a run of python -m benchmarks.") from error
        kind = content.get("kind") if isinstance(content, dict) else None
        if not begins and (kind != "run" or content.get("schema_version") != SCHEMA_VERSION):
            raise ProfileError(
                f"{path}: does not begin with a run of schema version {SCHEMA_VERSION}, so it is no {RESULTS} that "
                "this version reads. Give that of a run of python -m benchmarks."
            )
        begins = True
        if kind == "cell":
            cells.append((number, content))
    return cells


def _samples(entry: CellLine) -> Sequence[float]:
    """All of a cell's samples: by the host's clock, as a server waits for the result, where they are there."""
    if entry.status not in MEASURED:
        return ()
    for kind in (WALL, DEVICE):
        if samples := [ms for round_ in entry.rounds for ms in round_.samples_ms.get(kind, ())]:
            return samples
    return ()
