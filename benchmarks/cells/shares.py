"""The figure that widths are compared by, of an accuracy as the manifest has it: top-1 of a classifier, of a detector the
average precision of its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOP1, AP = "top1", "ap"
NAMES = {TOP1: "top-1", AP: "AP"}


def key_of(accuracy: Mapping[str, Any]) -> str:
    """Which figure an accuracy has: TOP1 or AP."""
    return AP if accuracy.get(TOP1) is None else TOP1


def share_of(accuracy: Mapping[str, Any]) -> float:
    """That figure, from 0 to 1."""
    return float(accuracy[key_of(accuracy)])


def name_of(accuracy: Mapping[str, Any]) -> str:
    """What people call it."""
    return NAMES[key_of(accuracy)]
