"""What a detector is beside its weights, as checkpoints and manifests hold it: dictionaries, lists, numbers, text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from slimtrain.base.untrusted.quoting import quoted
from slimtrain.models.detector import DetectorSettings

MOST = 1_000  # entries of a list: levels, sizes, ratios
LARGEST = 2**31 - 1


def plain_detector(settings: DetectorSettings) -> dict[str, Any]:
    """`settings` as JSON could hold them."""
    plain = _listed(asdict(settings))
    assert isinstance(plain, dict)
    return plain


def read_detector(value: Any) -> DetectorSettings:
    """The settings that `plain_detector` made `value` of; what it leaves out is as usual. ValueError where it is none."""
    read = _read(DetectorSettings, value, "detector")
    assert isinstance(read, DetectorSettings)
    return read


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(inside) for key, inside in value.items()}
    return [_listed(inside) for inside in value] if isinstance(value, tuple) else value


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`: a dataclass of such, a tuple, a number, text. ValueError where it is none."""
    if get_origin(kind) is UnionType:
        (inner,) = (choice for choice in get_args(kind) if choice is not NoneType)
        return None if value is None else _read(inner, value, where)
    if get_origin(kind) is tuple:
        return _read_tuple(get_args(kind), value, where)
    if is_dataclass(kind):
        assert isinstance(kind, type)
        names = {own.name for own in fields(kind)}
        if not isinstance(value, dict) or not value.keys() <= names:
            raise ValueError(f"{where} {quoted(value)}: expected some of {', '.join(sorted(names))}")
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], inside, f"{where}.{name}") for name, inside in value.items()})
    if kind is float and type(value) in (int, float) and abs(value) <= LARGEST and math.isfinite(value):
        return float(value)
    if kind is int and type(value) is int and 0 <= value <= LARGEST:
        return value
    if kind is str and isinstance(value, str):
        return value
    raise ValueError(f"{where} {quoted(value)}: expected {kind.__name__}")


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError(f"{where} {quoted(value)}: expected a list of at most {MOST:,}")
    inner = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    if len(value) != len(inner):
        raise ValueError(f"{where}: has {len(value)} entries, expected {len(inner)}")
    return tuple(
        _read(own, inside, f"{where}[{number}]") for number, (own, inside) in enumerate(zip(inner, value, strict=True))
    )
