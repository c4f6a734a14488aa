"""Tables of a group's figures: plain text of at most 120 columns for a terminal, and the same in Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cells.cell import INTERRUPTED
from benchmarks.cells.shares import name_of, share_of
from benchmarks.cells.statistics import WIDE_SPREAD
from benchmarks.report.analysis import AnalysisRow, Group
from slimtrain.base.side_by_side import MOST_COLUMNS, side_by_side
from slimtrain.costs.cost import format_macs

COLUMNS = MOST_COLUMNS
GAPS = ("  ", " ")  # between columns; the second where the first makes lines too long
CUT = "*"  # marks a row whose measurement was interrupted
DOUBTFUL = "?"  # marks a median whose rounds differ too much
SPEED_UP = "over the row of 1.00, which is 1.0x or the one with most MACs"
LEGEND = {
    ("median", "p90", "p95", "p99"): "latency per batch over the samples of all rounds, on GPUs by events around the "
    "network's work",
    ("wall",): "its median by the host's clock",
    ("spread",): "highest less lowest median of a round, over the median",
    ("images",): "at the median",
    ("H2D", "D2H"): "copies to the GPU and back, not part of the latency",
    ("speed-up",): SPEED_UP,
    ("promised",): "the speed-up if latency followed MACs",
    ("effic.",): "speed-up over promised",
    ("ceiling",): "GMAC/s over those of a large matrix product on the same backend",
    ("bound by",): "what takes longest at the least, its MACs at that ceiling (compute), its bytes at the speed of a large "
    "copy (memory; bytes are estimated, and nothing where the cache holds them all), or starting its layers (launch)",
    ("floor",): "that time over the median; below 25 % neither MACs nor bytes nor launches explain the time (none)",
}


def legend(groups: Sequence[Group]) -> list[str]:
    """What the columns of groups' tables mean: `median, p90: ...`."""
    shown = {column.name for group in groups if group.measured for column in _figures(group)}
    shown |= {"bound by"} if "bound" in shown else set()
    return [f"{', '.join(names)}: {what}" for names, what in LEGEND.items() if shown & set(names)]


@dataclass(frozen=True)
class Column:
    """A column: its name, its unit, and what it shows of a measured row."""

    name: str
    unit: str
    show: Callable[[AnalysisRow], str]


def significant(value: float | None, digits: int = 4) -> str:
    """`12.30`, `0.01230`, `1230`: a positive number with so many significant digits, without exponent; nothing for None."""
    if value is None:
        return ""
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def percent(share: float | None) -> str:
    """`57`, `5.7`: a share in percent, two digits; nothing for None."""
    if share is None:
        return ""
    return f"{100 * share:.1f}" if 100 * share < 9.95 else f"{100 * share:.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _milliseconds(name: str) -> Callable[[AnalysisRow], str]:
    return lambda row: significant(getattr(row.summary, name, None))


def _accuracy(row: AnalysisRow) -> str:
    return f"{share_of(row.cell.accuracy):.2%}"[:-1] if row.cell.accuracy else ""


def _accuracy_column(rows: Sequence[AnalysisRow]) -> Column | None:
    """Top-1 or AP in percent, as the rows have it; None where none has any."""
    names = dict.fromkeys(name_of(row.cell.accuracy) for row in rows if row.cell.accuracy)
    return Column("/".join(names), "%", _accuracy) if names else None


def _identity(group: Group) -> list[Column]:
    """What is known of a row that was not measured too."""
    return _identity_of(group.rows)


def _identity_of(rows: Sequence[AnalysisRow]) -> list[Column]:
    columns = [
        Column("width", "", lambda row: row.cell.label + CUT * (row.result.status == INTERRUPTED)),
        Column("MACs", "", lambda row: format_macs(row.cell.macs)),
        Column("params", "", lambda row: format_macs(row.cell.params)),
    ]
    accuracy = _accuracy_column(rows)
    return columns if accuracy is None else [*columns, accuracy]


def _figures(group: Group) -> list[Column]:
    """What measuring gave."""
    summaries = [row.summary for row in group.rows if row.summary]
    on_device = any(row.result.latency_kind == "device" for row in group.rows)
    transfers = any(summary.upload_ms is not None or summary.download_ms is not None for summary in summaries)
    return [
        Column("median", "ms", _milliseconds("median_ms")),
        *[Column("wall", "ms", _milliseconds("wall_median_ms"))] * on_device,
        *[Column(name, "ms", _milliseconds(f"{name}_ms")) for name in ("p90", "p95", "p99")],
        Column("spread", "%", lambda row: percent(row.summary.spread) if row.summary else ""),
        Column("images", "/s", lambda row: significant(row.summary.images_per_s) if row.summary else ""),
        *[Column("H2D", "ms", _milliseconds("upload_ms")), Column("D2H", "ms", _milliseconds("download_ms"))] * transfers,
        Column("speed-up", "x", lambda row: _ratio(row.speedup)),
        Column("promised", "x", lambda row: _ratio(row.promised)),
        Column("effic.", "%", lambda row: percent(row.efficiency)),
        Column("GMAC", "/s", lambda row: significant(1e-9 * row.macs_per_s if row.macs_per_s else None, 3)),
        Column("ceiling", "%", lambda row: percent(row.ceiling_share)),
        Column("bound", "by", lambda row: row.bound or ""),
        Column("floor", "%", lambda row: percent(row.bound_share)),
    ]


def reason(row: AnalysisRow) -> str:
    """Why a row has no figures."""
    return f"{row.result.status}: {row.result.reason}" if row.result.reason else row.result.status


def common_reason(group: Group) -> str | None:
    """The reason that all rows share, where none has figures."""
    reasons = {reason(row) for row in group.rows}
    return reasons.pop() if not group.measured and len(reasons) == 1 else None


def text_table(group: Group) -> str:
    """The group as plain text, numbers to the right, units under the names. Where it would be wider than 120 columns, it
    goes on below itself. A row that was not measured gives its reason instead."""
    identity = [_texts(column, group.rows) for column in _identity(group)]
    figures = [_texts(column, group.rows) for column in _figures(group)]
    blocks = _blocks(identity, figures) if group.measured else [identity]
    parts = []
    for number, block in enumerate(blocks):
        known = len(identity) if number == 0 else 0
        parts.append("\n".join(_aligned(block, known, group.rows)))
    return "\n\n".join(parts)


Texts = list[str]  # of a column: name, unit, and a text for each row, empty for figures of a row that was not measured


def _texts(column: Column, rows: Sequence[AnalysisRow]) -> Texts:
    return [column.name, column.unit, *(column.show(row) for row in rows)]


def _blocks(identity: Sequence[Texts], figures: Sequence[Texts]) -> list[list[Texts]]:
    """Columns, together if they fit, else in as many blocks as needed, each beginning with the width."""
    if _width([*identity, *figures], GAPS[-1]) <= COLUMNS:
        return [[*identity, *figures]]
    blocks, block = [], list(identity)
    for column in figures:
        if _width([*block, column], GAPS[0]) > COLUMNS:
            blocks.append(block)
            block = [identity[0]]
        block.append(column)
    return [*blocks, block]


def _width(columns: Sequence[Texts], gap: str) -> int:
    return sum(max(map(len, column)) for column in columns) + len(gap) * (len(columns) - 1)


def _aligned(columns: Sequence[Texts], known: int, rows: Sequence[AnalysisRow]) -> list[str]:
    """Lines, each column flush right. Rows without figures have the first `known` columns and their reason; they are left
    out where `known` is 0."""
    gap = next((candidate for candidate in GAPS if _width(columns, candidate) <= COLUMNS), GAPS[0])
    sizes = [max(map(len, column)) for column in columns]
    lines = []
    for row, texts in zip((None, None, *rows), zip(*columns, strict=True), strict=True):
        cells = [text.rjust(size) for text, size in zip(texts, sizes, strict=True)]
        if row is None or row.summary:
            lines.append(gap.join(cells).rstrip())
        elif known:
            start = gap.join(cells[:known]) + "  "
            room = max(COLUMNS, len(start) + COLUMNS // 3)
            lines += textwrap.wrap(
                reason(row), room, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
            )
    return lines


def joint_table(groups: Sequence[Group]) -> str:
    """The groups of one bundle as one table of plain text, a line for each width: what is known of it, then each group's
    median, 95th percentile and speed-up under the group's name. Where that would be wider than 120 columns it goes on
    below."""
    rows = {row.cell.label: row for row in sorted((row for group in groups for row in group.rows), key=_size)}
    identity = _identity_of(list(rows.values()))
    of_groups: tuple[Column, ...] = _SHORT
    if any(_accuracy(row) != _accuracy(rows[row.cell.label]) for group in groups for row in group.rows):  # other precisions
        accuracies = [column for column in identity if column.show is _accuracy]
        identity, of_groups = [column for column in identity if column not in accuracies], (*accuracies, *_SHORT)
    known = [_texts(column, list(rows.values())) for column in identity]
    known.append(["promised", "x", *(_promised(label, groups) for label in rows)])
    shared = {place for place in (1, 2) if len({group.key[place] for group in groups}) == 1}
    blocks: list[tuple[str, list[Texts]]] = []
    for group in groups:
        mine = {row.cell.label: row for row in group.measured}
        title = " ".join(str(group.key[place]) for place in (1, 2) if place not in shared)
        columns = [
            [column.name, column.unit, *(column.show(mine[label]) if label in mine else "-" for label in rows)]
            for column in of_groups
        ]
        blocks.append((f"{title + ', ' if title else ''}batch {group.key[3]}", columns))
    return side_by_side(known, blocks, COLUMNS)


_SHORT = (
    Column(
        "median",
        "ms",
        lambda row: (
            _milliseconds("median_ms")(row) + DOUBTFUL * (row.summary is not None and row.summary.spread > WIDE_SPREAD)
        ),
    ),
    Column("p95", "ms", _milliseconds("p95_ms")),
    Column("speed-up", "x", lambda row: _ratio(row.speedup)),
)
SHORT_LEGEND = {
    "median, p95": "latency per batch over the samples of all rounds",
    "speed-up": SPEED_UP,
    "promised": "the speed-up if latency followed MACs",
    DOUBTFUL: "the medians of its rounds differ by more than {spread:.0%}",
    CUT: "interrupted, so with fewer samples",
}


def short_legend(text: str) -> list[str]:
    """What the columns and marks of tables side by side mean, of those that are in their `text`."""
    lines = [(name, what.format(spread=WIDE_SPREAD)) for name, what in SHORT_LEGEND.items()]
    return [f"{name}: {what}" for name, what in lines if name[0] not in (DOUBTFUL, CUT) or name in text]


def _size(row: AnalysisRow) -> tuple[int, int]:
    return row.cell.macs, row.cell.params


def _promised(label: str, groups: Sequence[Group]) -> str:
    """By MACs, the same in every group that has measured both ends."""
    promises = [row.promised for group in groups for row in group.measured if row.cell.label == label]
    return _ratio(promises[0]) if promises else "-"


def markdown_table(group: Group) -> str:
    """The group as a Markdown table with all columns, numbers flush right."""
    identity, figures = _identity(group), _figures(group)
    heads = [f"{column.name} {column.unit}".replace(" /", "/").strip() for column in (*identity, *figures)]
    lines = [heads, ["---:"] * len(heads)]
    for row in group.rows:
        known = [column.show(row) for column in identity]
        if row.summary:
            lines.append([*known, *(column.show(row) for column in figures)])
        else:
            lines.append([*known, reason(row), *[""] * (len(figures) - 1)])
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def escaped(text: str) -> str:
    """Text for a cell of a Markdown table: one line, its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def overview(groups: Sequence[Group]) -> list[list[str]]:
    """Median latencies in ms of one bundle: a header, then a line per width, with a column for every group."""
    labels = {
        row.cell.label: None for row in sorted((row for group in groups for row in group.rows), key=lambda row: row.cell.macs)
    }
    lines = [["width", *(f"{group.key[1]} {group.key[2]}, batch {group.key[3]}" for group in groups)]]
    for label in labels:
        figures = [next((row.summary for row in group.measured if row.cell.label == label), None) for group in groups]
        lines.append([label, *(significant(figure.median_ms) if figure else "-" for figure in figures)])
    return lines
