"""Several tables of the same rows, next to each other under their titles, in plain text of a terminal's width."""

from __future__ import annotations

from collections.abc import Sequence

MOST_COLUMNS = 120
GAP, BETWEEN = " ", "   "  # between columns, and between tables
Column = Sequence[str]  # texts from top to bottom, as many in each


def side_by_side(known: Sequence[Column], tables: Sequence[tuple[str, Sequence[Column]]], most: int = MOST_COLUMNS) -> str:
    """`known` columns of all rows, then each table's (title, columns), numbers to the right. Where lines would be longer than
    `most`, the next tables go on below, after the first of the `known` columns."""
    parts: list[str] = []
    line: list[tuple[str, Sequence[Column]]] = [("", known)]
    for table in tables:
        if len(line) > 1 and _width([*line, table]) > most:
            parts.append(_lines(line))
            line = [("", known[:1])]
        line.append(table)
    return "\n\n".join([*parts, _lines(line)])


def _width(tables: Sequence[tuple[str, Sequence[Column]]]) -> int:
    wide = (max(len(title), sum(max(map(len, column)) + len(GAP) for column in columns) - 1) for title, columns in tables)
    return sum(wide) + len(BETWEEN) * (len(tables) - 1)


def _lines(tables: Sequence[tuple[str, Sequence[Column]]]) -> str:
    texts = []
    for title, columns in tables:
        sizes = [max(map(len, column)) for column in columns]
        lines = [
            GAP.join(text.rjust(size) for text, size in zip(line, sizes, strict=True)) for line in zip(*columns, strict=True)
        ]
        wide = max(len(title), len(lines[0]))
        texts.append([title.rjust(wide), *(line.rjust(wide) for line in lines)])
    return "\n".join(BETWEEN.join(line).rstrip() for line in zip(*texts, strict=True))
