"""Arguments of an application, as `serve run` gives them (texts) and as a file of `serve deploy` does (YAML's values)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.untrusted.quoting import quoted


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a number")
    return number


def _whole(value: Any) -> int:
    try:
        number = _number(value)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError("a whole number")
    return int(number)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else str(value).split(",")


def _widths(value: Any) -> list[float | str]:
    """Widths are numbers, plans have names."""
    widths: list[float | str] = []
    for width in _several(value):
        try:
            widths.append(_number(width))
        except ValueError:
            widths.append(_text(width))
    return widths


def _batches(value: Any) -> list[int]:
    return [_whole(batch) for batch in _several(value)]


READERS: Mapping[str, Callable[[Any], Any]] = {
    "bundle": _text,
    "slo_ms": _number,
    "widths": _widths,
    "precision": _text,
    "backend": _text,
    "policy": _text,
    "late": _text,
    "queue": _whole,
    "batches": _batches,
    "profile": _text,
    "threads": _whole,
    "hang_s": _number,
    "min_replicas": _whole,
    "max_replicas": _whole,
    "ongoing": _number,
    "cpus": _number,
    "gpus": _number,
}


def read_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `app`. UserError for one that is not known, or whose value is none."""
    read = {}
    for name, value in arguments.items():
        if name not in READERS:
            raise UserError(f"argument {quoted(name)}: not known{nearest(name, READERS)}. Available: {', '.join(READERS)}.")
        try:
            read[name] = READERS[name](value)
        except ValueError as error:
            raise UserError(f"argument {name}: {quoted(value)}, expected {error}.") from None
    if "bundle" not in read:
        raise UserError("no bundle: expected bundle=DIR, the folder that slimexport wrote.")
    return read
