"""A run as a document, `report.md`, and as what the terminal shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from benchmarks.cells.records import Recorded
from benchmarks.machine.notes import describe
from benchmarks.report.analysis import Group, analyse
from benchmarks.report.decisions import decisions, single_round
from benchmarks.report.picture_files import SHOWN, file_name
from benchmarks.report.tables import (
    COLUMNS,
    common_reason,
    escaped,
    joint_table,
    legend,
    markdown_table,
    overview,
    short_legend,
    text_table,
)
from benchmarks.report.wording import (
    backend_settings,
    ceilings_table,
    cut_line,
    group_title,
    method_lines,
    states_line,
    trust,
    unmeasured_lines,
    unmeasured_rows,
    warning_lines,
)


def report(recorded: Recorded, plots: Sequence[str] | None = None) -> str:
    """The run as Markdown. `plots`: names of the pictures beside it, as `plots.pictures.draw` wrote them; None for all that it
    writes."""
    groups = _groups(recorded)
    bundles = list(dict.fromkeys(group.key[0] for group in groups))
    parts = [f"# What every width costs: {', '.join(bundles) or 'nothing to measure'}"]
    if (recorded.end or {}).get("interrupted"):
        parts.append("**The run was interrupted: not every cell was measured.**")
    if warnings := before_deciding(recorded, groups):
        parts += ["## Before deciding", _bullets(warnings)]
    if short := decisions(groups):
        parts += ["## In short", _bullets(short)]
    for bundle in bundles:
        parts += _bundle([group for group in groups if group.key[0] == bundle], plots)
    parts += ["## Which figures to trust", _bullets(trust(recorded, groups))]
    parts += ["## How and where it was measured", *_how(recorded)]
    if lines := legend(groups):
        parts += ["## How to read the tables", _bullets(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def console(recorded: Recorded) -> str:
    """The run for a terminal of 120 columns: what makes it doubtful and what it says, then a table for each bundle."""
    groups = _groups(recorded)
    parts = []
    tables = "\n\n".join(
        _table_of([group for group in groups if group.key[0] == bundle and group.measured])
        for bundle in dict.fromkeys(group.key[0] for group in groups if group.measured)
    )
    several = any(_is_side_by_side(group, groups) for group in groups)
    alone = [group for group in groups if group.measured and not _is_side_by_side(group, groups)]
    without_reasons = [group for group in groups if group not in alone]
    for title, lines in (
        ("before deciding:", before_deciding(recorded, groups)),
        ("in short:", decisions(groups)),
        ("", [tables]),
        ("not measured:", unmeasured_lines(groups) + unmeasured_rows(without_reasons, groups)),
        ("columns:", (short_legend(tables) if several else []) + legend(alone)),
        ("trust:", trust(recorded, groups)),
    ):
        if title and lines:
            parts.append("\n".join([title, *_list(lines)]))
        elif not title and tables:
            parts.append(tables)
    return "\n\n".join(parts)


def before_deciding(recorded: Recorded, groups: Sequence[Group]) -> list[str]:
    """What may make a decision wrong: a run that was cut short, cells with warnings, comparisons of a single round."""
    cut = [recorded.note] * bool(recorded.note) + cut_line(recorded.results)
    return cut + warning_lines(recorded.results) + single_round(groups)


def _is_side_by_side(group: Group, groups: Sequence[Group]) -> bool:
    """Whether its bundle has more than one measured table, which become one."""
    return bool(group.measured) and sum(bool(other.measured) for other in groups if other.key[0] == group.key[0]) > 1


def _table_of(groups: Sequence[Group]) -> str:
    """The one table of a bundle, under what all its groups share."""
    if len(groups) == 1:
        return f"{group_title(groups[0])}\n{text_table(groups[0])}"
    shared = [groups[0].key[place] for place in (0, 1, 2) if len({group.key[place] for group in groups}) == 1]
    return f"{', '.join(map(str, shared))}\n{joint_table(groups)}"


def _groups(recorded: Recorded) -> list[Group]:
    return analyse(recorded.results, recorded.run.get("ceilings") or {})


def _shown(group: Group) -> bool:
    """Whether a table says more than a line."""
    return common_reason(group) is None


def _bundle(groups: Sequence[Group], plots: Sequence[str] | None) -> list[str]:
    """A bundle's part: all medians side by side, then each backend and precision with its pictures and tables."""
    parts = [f"## {groups[0].key[0]}"]
    measured = [group for group in groups if group.measured]
    if len(measured) > 1:
        parts += ["Median latencies per batch in ms:", _table(overview(measured))]
    for backend, precision in dict.fromkeys(group.key[1:3] for group in groups if _shown(group)):
        members = [group for group in groups if group.key[1:3] == (backend, precision) and _shown(group)]
        parts.append(f"### {backend}, {precision}")
        if any(group.measured for group in members):
            names = {file_name(kind, members[0]): what for kind, what in SHOWN.items()}
            parts += [f"![{what}]({name})" for name, what in names.items() if plots is None or name in plots]
        for group in members:
            parts += [f"#### {backend}, {precision}, batch {group.key[3]}", markdown_table(group)]
    if unmeasured := unmeasured_lines(groups):
        parts += ["### Not measured", _bullets(unmeasured)]
    return parts


def _how(recorded: Recorded) -> list[str]:
    """Command, method, settings, ceilings, machine."""
    run, end = recorded.run, recorded.end or {}
    parts = [f"```\n{run.get('command', '')}\n```"]
    lines = method_lines(run.get("settings") or {})
    lines += [f"{name}: {settings}" for name, settings in backend_settings(recorded.results).items()]
    if end.get("seconds"):
        lines.append(f"the run took {end['seconds']:.0f} s")
    parts.append(_bullets(lines))
    if ceilings := run.get("ceilings"):
        table, missing = ceilings_table(recorded.results, ceilings)
        parts += ["Ceilings, measured in the same run:", _table(table), *([_bullets(missing)] if missing else [])]
    before, after = describe(run.get("environment") or {}), describe(end.get("environment_after") or {})
    parts.append(_bullets(before))
    if during := states_line(recorded.results):
        parts.append(f"During the rounds: {during}.")
    if changed := [line for line in after if line not in before]:
        parts += ["After the run:", _bullets(changed)]
    return parts


def _table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, header first; the first column flush left, the others flush right."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in (lines[0], rule, *lines[1:]))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _list(lines: Sequence[str]) -> list[str]:
    return [
        textwrap.fill(f"- {line}", COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in lines
    ]
