"""Measured values as JSON that every reader takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(content: Mapping[str, Any]) -> str:
    """One line of JSON. Values that JSON has no word for become null (NaN, infinities), a number (numpy's) or text (paths)."""
    try:
        return json.dumps(content, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError:  # NaN: looking for it in every sample would take longer than writing them
        return json.dumps(_finite(content), separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that can be recorded")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
