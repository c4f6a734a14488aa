"""A run as a document, `report.md`, and as what the terminal shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from benchmarks.cells.records import Recorded
from benchmarks.machine.notes import describe
from benchmarks.report.analysis import Group, analyse
from benchmarks.report.picture_files import SHOWN, file_name
from benchmarks.report.tables import COLUMNS, LEGEND, common_reason, escaped, markdown_table, overview, text_table
from benchmarks.report.wording import (
    backend_settings,
    ceilings_table,
    group_title,
    in_short,
    method_lines,
    states_line,
    trust,
    unmeasured_lines,
    verdicts,
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
    if short := [f"{group_title(group)}: {in_short(group)}" for group in groups if len(group.measured) > 1]:
        parts += ["## In short", _bullets(short)]
    for bundle in bundles:
        parts += _bundle([group for group in groups if group.key[0] == bundle], plots)
    parts += ["## Which figures to trust", _bullets(trust(recorded, groups))]
    if warnings := warning_lines(recorded.results):
        parts += ["Warnings:", _bullets(warnings)]
    parts += ["## How and where it was measured", *_how(recorded)]
    parts += ["## How to read the tables", _bullets(LEGEND)]
    return "\n\n".join(part for part in parts if part) + "\n"


def console(recorded: Recorded) -> str:
    """The run for a terminal of 120 columns: the tables, what they say, and how far to trust them."""
    groups = _groups(recorded)
    parts = ["\n".join([group_title(group), text_table(group), *_list(verdicts(group))]) for group in groups if _shown(group)]
    if parts:
        parts.append("\n".join(["columns:", *_list(LEGEND)]))
    for title, lines in (
        ("not measured:", unmeasured_lines(groups)),
        ("warnings:", warning_lines(recorded.results)),
        ("trust:", trust(recorded, groups)),
    ):
        if lines:
            parts.append("\n".join([title, *_list(lines)]))
    return "\n\n".join(parts)


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
            parts += [f"#### {backend}, {precision}, batch {group.key[3]}", markdown_table(group), _bullets(verdicts(group))]
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
