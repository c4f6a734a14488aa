"""Numbers, lists and tables as messages show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from slimtrain.base.untrusted.quoting import shortened

NAME = 200  # letters


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns under a header."""
    lines = [header, *rows]
    sizes = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.rjust(size) for cell, size in zip(line, sizes, strict=True)) for line in lines)


def utf8(text: str) -> bytes:
    """A text as files for people hold it: what in a file's name is no UTF-8 is an escape there."""
    return text.encode("utf-8", "backslashreplace")


def count(number: int, what: str, several: str = "") -> str:
    """`1 step`, `22 steps`, `1,437 images`."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """`0:41`, `3:05:12`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def some(names: Sequence[str]) -> str:
    """The first few of `names`, for a message; what somebody else named at length is cut short."""
    shown = ", ".join(shortened(name, NAME) for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown or "nothing"


def kinds(texts: Iterable[str]) -> list[list[str]]:
    """Texts that differ in quoted names, and in words from their first digit on only, side by side; in order of the first."""
    by_kind: dict[str, list[str]] = {}
    for text in texts:
        by_kind.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|\d\S*", "#", text), []).append(text)
    return list(by_kind.values())
