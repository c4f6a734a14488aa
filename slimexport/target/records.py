"""Frozen dataclasses from and to JSON objects: types, ranges and lengths are checked, keys that are not known are kept and
written back."""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, TypeVar

from slimtrain.base.image_size import ImageSize
from slimtrain.base.untrusted.quoting import shortened

SHOWN = 40  # characters of a wrong value that a message shows
MOST_TEXT = 10_000  # letters of a text that does not say how many it may have
MOST_KEY = 1000
EXTRA = "extra"
WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class EntryError(ValueError):
    """A JSON value that is not of its key's type: which key, what was found, what was expected."""


@dataclass(frozen=True)
class Within:
    """In the type of a key, `Annotated[int, Within(0, 9)]`: the numbers that it may have, both ends among them; of texts, how
    many letters."""

    least: float
    most: float

    def holds(self, value: Any) -> bool:
        return self.least <= (len(value) if isinstance(value, str) else value) <= self.most

    def __str__(self) -> str:
        return f"from {self.least:,.16g} to {self.most:,.16g}"


# Ranges are wide of anything that is measured, and narrow enough that no product of a few of them overflows.
Count = Annotated[int, Within(0, 10**15)]
Positive = Annotated[int, Within(1, 10**9)]
Magnitude = Annotated[float, Within(0, 1e30)]
Share = Annotated[float, Within(0, 1)]
Name = Annotated[str, Within(1, 200)]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object: fields are its keys, in the order in which they are written; `extra` holds keys that are not known.

    A field without a default is always there. One with a default is left out where it has it, unless it is a `null_where`
    field whose condition holds. The types are those that `from_json` knows: str, int, float, the same `Within`
    something, bool, Any, another Record, a tuple or a mapping by str of these, and each of them or None; and `ImageSize`.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)


R = TypeVar("R", bound=Record)


def null_where(condition: Callable[[Any], bool]) -> Any:
    """A field that may be None: written as null in records where `condition` holds, and left out elsewhere."""
    return field(default=None, metadata={"null": condition})


def to_json(record: Record) -> dict[str, Any]:
    """A record as what `json.dumps` takes."""
    known = {f.name: _plain(getattr(record, f.name)) for f in fields(record) if f.name != EXTRA and _is_written(record, f)}
    return {**known, **record.extra}


def _is_written(record: Record, f: Field[Any]) -> bool:
    if f.default is MISSING or getattr(record, f.name) != f.default:
        return True
    return "null" in f.metadata and bool(f.metadata["null"](record))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def from_json(kind: type[R], value: Any, where: str = "") -> R:
    """A JSON object, named `where` in messages, as a record. EntryError for a key that is missing or of another type."""
    if not isinstance(value, dict):
        raise _wrong(where, value, kind)
    expected = _types_of(typing.cast(Any, kind))
    required = {f.name for f in fields(kind) if f.default is MISSING}
    for name, expected_type in expected.items():
        if name in required and name not in value:
            raise EntryError(f"{_inside(where, name)} is missing, expected {_described(expected_type)}")
    known = {name: _convert(value[name], expected[name], _inside(where, name)) for name in expected if name in value}
    return kind(**known, extra={key: part for key, part in value.items() if key not in expected})


@functools.cache
def _types_of(kind: Any) -> dict[str, Any]:
    """The types of a record's keys."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind) if f.name != EXTRA}


def _convert(value: Any, expected: Any, where: str) -> Any:
    alternatives = _alternatives(expected)
    if Any in alternatives or (value is None and type(None) in alternatives):
        return value
    if alternatives >= set(typing.get_args(ImageSize)):
        return _image_size(value, where)
    (kind,) = alternatives - {type(None)}
    kind, within = _unbounded(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Record):
        return from_json(kind, value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise _wrong(where, value, kind)
        return _tuple(value, arguments[0], where)
    if origin is Mapping and isinstance(value, dict):
        if long := next((key for key in value if len(key) > MOST_KEY), None):
            raise EntryError(f"{where or 'it'} has a key of {len(long):,} letters, expected at most {MOST_KEY:,}")
        return {key: _convert(part, arguments[1], _inside(where, key)) for key, part in value.items()}
    return _scalar(value, expected, kind, within, where)


def _tuple(values: list[Any], expected: Any, where: str) -> tuple[Any, ...]:
    if _are_numbers(values, expected):
        return tuple(values)
    return tuple(_convert(part, expected, f"{where}[{i}]") for i, part in enumerate(values))


def _unbounded(kind: Any) -> tuple[Any, Within | None]:
    """A type without its range, and that."""
    if typing.get_origin(kind) is not Annotated:
        return kind, None
    plain, within = typing.get_args(kind)
    return plain, within


def _are_numbers(values: list[Any], expected: Any) -> bool:
    """Whether all of a list are numbers in their range: of measurements there are millions."""
    kind, within = _unbounded(expected)
    if kind is not float or within is None or not values or not set(map(type, values)) <= {int, float}:
        return False
    return all(map(math.isfinite, values)) and within.holds(min(values)) and within.holds(max(values))


def _scalar(value: Any, expected: Any, kind: Any, within: Within | None, where: str) -> Any:
    """A value that has no parts, of the one `kind` that its key's `expected` type leaves."""
    accepted = (int, float) if kind is float else kind
    if (
        typing.get_origin(kind) is not None
        or not isinstance(value, accepted)
        or (isinstance(value, bool) and kind is not bool)
    ):
        raise _wrong(where, value, expected)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, value, expected)
    if kind is str and within is None:
        within = Within(0, MOST_TEXT)
    if within is not None and not within.holds(value):
        where = where or "it"
        if kind is str:
            raise EntryError(f"{where} is {_shown(value)}, of {len(str(value)):,} letters, expected {within}")
        raise EntryError(f"{where} is {_shown(value)}, expected a number {within}")
    return value


def _image_size(value: Any, where: str) -> ImageSize:
    """The side of a square, or height and width, in their plain form."""
    if not isinstance(value, list):
        return int(_convert(value, int, where))
    height, width = _convert(value, tuple[int, int], where)
    return height if height == width else (height, width)


def _alternatives(expected: Any) -> set[Any]:
    union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    return set(typing.get_args(expected)) if union else {expected}


def _inside(where: str, name: str) -> str:
    name = shortened(name)
    return f"{where}.{name}" if where else name


def _wrong(where: str, value: Any, expected: Any) -> EntryError:
    return EntryError(f"{where or 'it'} is {_shown(value)}, expected {_described(expected)}")


def _shown(value: Any) -> str:
    return shortened(json.dumps(value[: SHOWN + 1] if isinstance(value, str) else value), SHOWN)


def _described(expected: Any) -> str:
    """What a type is called in messages."""
    alternatives = _alternatives(expected)
    if alternatives >= set(typing.get_args(ImageSize)):
        return "a whole number or a list of 2"
    (kind,) = alternatives - {type(None)}
    kind, _ = _unbounded(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        word = f"a list{count}"
    else:
        word = WORDS.get(kind, "an object")
    return f"{word} or null" if type(None) in alternatives else word
