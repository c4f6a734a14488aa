"""What a run's figures say, in sentences: shared by the report and the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from benchmarks.cells.cell import INTERRUPTED, Result
from benchmarks.cells.records import TABLE, Recorded
from benchmarks.cells.statistics import WIDE_SPREAD, standard_error
from benchmarks.machine.notes import notes
from benchmarks.report.analysis import ACCURACY, FLOORS, NONE, AnalysisRow, Group, listed
from benchmarks.report.ceilings import standing_ceilings
from benchmarks.report.tables import common_reason, significant
from slimtrain.base.text import count

MOST_PLACES = MOST_LABELS = 5
NOISY = f"noisy, rounds differ by more than {WIDE_SPREAD:.0%}: measure again before deciding"
DOUBTS = {  # how warnings of `statistics` begin, and what verdicts say of them; noise has its own sentence
    "throttled": "the machine was throttled",
    "other processes": "other processes were busy",
    "clocks unstable": "clocks were unstable",
    "host-bound": "the GPU may have waited for the host",
    "only ": "there were few iterations",
}
DURING = {  # Round.state: what is shown, and its unit
    "sm_clock_mhz": ("SM clock", "MHz"),
    "memory_clock_mhz": ("memory clock", "MHz"),
    "power_w": ("power", "W"),
    "cpu_mhz": ("CPU clock", "MHz"),
    "temperature_c": ("temperature", "°C"),
}


def group_title(group: Group) -> str:
    """`us_mobilenet_v1, onnxruntime-cpu, fp32, batch 8`."""
    bundle, backend, precision, batch = group.key
    return f"{bundle}, {backend}, {precision}, batch {batch}"


def verdicts(group: Group) -> list[str]:
    """What a measured group says: which widths are no faster, what latency has to do with MACs, what is worth shipping."""
    said = list(group.sentences)
    noisy = [row for row in group.measured if row.summary and row.summary.spread > WIDE_SPREAD]
    if noisy:
        said.append(f"{_rows(group, noisy)}: {NOISY}")
    said += [f"{_rows(group, rows)}: {doubt}, which the sentences above may be due to" for doubt, rows in _doubts(group)]
    if group.reference and len(group.measured) > 1:
        said.append(f"speed-ups are over {group.reference.cell.label}")
    if group.rank_correlation is not None:
        said.append(f"rank correlation of latency with MACs: {group.rank_correlation:.2f} (1: the same order)")
    if len(group.measured) > 1:
        against = "accuracy" if group.against == ACCURACY else "MACs (not every accuracy is known on the same images)"
        said.append(f"Pareto front of latency against {against}: {_rows(group, group.front)}")
        said.append(f"worth shipping here: {_rows(group, group.worth)}{_left_out(group)}")
    if group.against == ACCURACY:
        said.append(_accuracy_error(group.measured))
    unbounded = [row for row in group.measured if row.bound == NONE]
    if unbounded:
        said.append(f"{_rows(group, unbounded)}: neither MACs nor bytes nor launches explain the time")
    unknown = [name for name in FLOORS if any(name not in row.floors_ms for row in group.measured)]
    if len(unknown) == len(FLOORS):
        said.append("no ceiling is known for it, so nothing says what bounds it")
    elif unknown:
        said.append(f"the floor of {', '.join(unknown)} is not known for all: `bound by` goes by what is left")
    return said


def in_short(group: Group) -> str:
    """The group in a line: what is no faster than what, and what is worth shipping."""
    worth = [f"worth shipping: {_rows(group, group.worth)}"] if len(group.measured) > 1 else []
    noisy = [NOISY] * any(row.summary.spread > WIDE_SPREAD for row in group.measured if row.summary)
    doubts = [f"doubtful: {doubt}" for doubt, _ in _doubts(group)]
    return "; ".join([*group.sentences, *worth, *noisy, *doubts])


def _doubts(group: Group) -> list[tuple[str, list[AnalysisRow]]]:
    """What rows' warnings put in doubt beside the spread of their rounds, and which rows."""
    by: dict[str, list[AnalysisRow]] = {}
    for row in group.measured:
        for warning in row.result.warnings:
            doubt = next((words for start, words in DOUBTS.items() if warning.startswith(start)), None)
            if doubt is not None:
                by.setdefault(doubt, []).append(row)
    return list(by.items())


def _rows(group: Group, rows: Sequence[AnalysisRow]) -> str:
    return listed([row.cell.label for row in group.measured], [at for at, row in enumerate(group.measured) if row in rows])


def _left_out(group: Group) -> str:
    out = [row for row in group.front if row not in group.worth]
    if not out:
        return ""
    return f" (not {_rows(group, out)}: no faster than a better one by more than noise)"


def _accuracy_error(measured: Sequence[AnalysisRow]) -> str:
    """How far the number of images leaves accuracies open."""
    known = [row.cell.accuracy for row in measured if row.cell.accuracy]
    images, data = known[0].get("images"), known[0].get("data")
    if not images:
        return f"accuracies are on {data}"
    error = max(map(standard_error, known))
    return f"accuracies are on the {count(images, 'image')} of {data}: a standard error is up to {100 * error:.1f} points"


def warning_lines(results: Sequence[Result]) -> list[str]:
    """The warnings, with the cells that they are of; those that differ in figures only are told once, with the first."""
    by_text: dict[str, list[tuple[Result, str]]] = {}
    for result in results:
        for warning in result.warnings:
            by_text.setdefault(re.sub(r"\d[\d.,]*", "#", warning), []).append((result, warning))
    lines = []
    for members in by_text.values():
        (first, text), more = members[0], members[1:]
        rest = f" The same for {len(more)} more: {_places([result for result, _ in more])}." if more else ""
        lines.append(f"{_places([first])}: {text}{rest}")
    return lines


def _places(results: Sequence[Result]) -> str:
    """Labels, by where they were measured: `net, onnxruntime-cpu, fp32, batch 1, 0.25x, 0.5x; ...`."""
    by: dict[str, list[str]] = {}
    for result in results:
        bundle, backend, precision, batch = result.cell.group
        by.setdefault(f"{bundle}, {backend}, {precision}, batch {batch}", []).append(result.cell.label)
    places = [f"{place}, {_ends(labels)}" for place, labels in by.items()]
    if len(places) > MOST_PLACES:
        places[MOST_PLACES:] = [f"and in {count(len(places) - MOST_PLACES, 'more table')} (all are in {TABLE})"]
    return "; ".join(places)


def _ends(labels: Sequence[str]) -> str:
    """All of a few labels, or the first and the last of many."""
    return ", ".join(labels) if len(labels) <= MOST_LABELS else f"{len(labels)} from {labels[0]} to {labels[-1]}"


def unmeasured_lines(groups: Sequence[Group]) -> list[str]:
    """The groups of which nothing was measured for one reason, a line for all batches."""
    by: dict[tuple[tuple[str, str, str], str], list[Group]] = {}
    for group in groups:
        if reason := common_reason(group):
            by.setdefault((group.key[:3], reason), []).append(group)
    lines = []
    for (key, reason), members in by.items():
        batches = ", ".join(str(group.key[3]) for group in members)
        labels = [row.cell.label for row in members[0].rows]
        lines.append(f"{', '.join(key)}, batch {batches} ({listed(labels, range(len(labels)))}): {reason}")
    return lines


def trust(recorded: Recorded, groups: Sequence[Group]) -> list[str]:
    """How far the figures can be relied on, as far as the run itself knows."""
    measured = [row for group in groups for row in group.measured]
    doubtful = [row for row in measured if row.result.warnings]
    were = "was" if len(recorded.results) == 1 else "were"
    of = count(len(recorded.results), "cell")
    said = [f"{len(measured)} of {of} {were} measured, {len(measured) - len(doubtful)} without a warning"]
    cut = [row.cell.label for row in measured if row.result.status == INTERRUPTED]
    if cut:
        said.append(f"interrupted, so with fewer samples (marked *): {', '.join(dict.fromkeys(cut))}")
    rounds = {row.summary.rounds for row in measured if row.summary}
    if rounds and min(rounds) > 1:
        share = 2 / comb(2 * min(rounds), min(rounds))
        said.append(
            "one width counts as faster than another where the medians of all its rounds are lower; of two that are equally "
            f"fast, with {min(rounds)} rounds, that happens by chance in {share:.0%} of the pairs, for one or the other"
        )
    said += dict.fromkeys(sentence for group in groups for sentence in group.exceeded)
    return said + run_notes(recorded)


def run_notes(recorded: Recorded) -> list[str]:
    """What makes a whole run doubtful: that it was killed, and what the machine did meanwhile."""
    after = (recorded.end or {}).get("environment_after") or {}
    return [recorded.note] * bool(recorded.note) + notes(recorded.run.get("environment") or {}, after)


def method_lines(settings: Mapping[str, Any]) -> list[str]:
    """How was measured: durations and rounds, inputs, threads."""
    method, inputs, threads = (settings.get(name) or {} for name in ("method", "inputs", "threads"))
    lines = []
    if method:
        lines.append(
            f"{method['duration_s']:g} s and at least {count(method['least_iterations'], 'iteration')} per cell, over "
            f"{count(method['repeats'], 'round')} in which the widths of a table take turns; warm-up "
            f"{1e3 * method['warmup_s']:g} ms before each turn"
        )
    if inputs:
        covers = "larger" if inputs.get("covers_cache") else "NOT larger for every batch"
        lines.append(
            f"inputs: {inputs.get('distribution')} noise (seed {inputs.get('seed')}), rotated among buffers that together are "
            f"{covers} than the cache"
        )
    if threads:
        lines.append(f"CPU: {_pairs({key: _plain(key, value) for key, value in threads.items()})}")
    return lines


def backend_settings(results: Sequence[Result]) -> dict[str, str]:
    """By backend and precision, the settings of its runners; numbers that differ between cells as a range."""
    by: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if result.settings:
            by.setdefault(f"{result.cell.backend} {result.cell.precision}", []).append(result.settings)
    shown = {}
    for name, members in by.items():
        keys = dict.fromkeys(key for settings in members for key in settings)
        shown[name] = _pairs({key: _range(key, [settings.get(key) for settings in members]) for key in keys})
    return shown


def _range(key: str, values: Sequence[Any]) -> Any:
    """The one value, or from the least to the largest number, or all of them; None for nothing."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    shown = [min(values), max(values)] if numbers else [value for value in values if value is not None]
    return (" to " if numbers else " or ").join(dict.fromkeys(str(_plain(key, value)) for value in shown)) or None


def _pairs(values: Mapping[str, Any]) -> str:
    """`threads 2, cuda graph yes`; what is not known is left out."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items() if value is not None)


def _plain(key: str, value: Any) -> Any:
    """A setting's value as text that a reader understands."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**20:.4g} MiB"
    return value


def states_line(results: Sequence[Result]) -> str:
    """What the machine did during the rounds: lowest to highest clocks, power and temperature, and others' load."""
    states = [round_.state for result in results for round_ in result.rounds]
    parts = []
    for key, (name, unit) in DURING.items():
        seen = [state[key] for state in states if state.get(key)]
        if seen:
            low, high = min(spread[0] for spread in seen), max(spread[-1] for spread in seen)
            parts.append(f"{name} {low:.0f} {unit}" if round(low) == round(high) else f"{name} {low:.0f} to {high:.0f} {unit}")
    loads = [state["other_load"] for state in states if state.get("other_load") is not None]
    if loads:
        parts.append(f"other processes kept up to {max(loads):.1f} cores busy")
    reasons = list(dict.fromkeys(str(reason) for state in states for reason in state.get("throttle") or ()))
    if any("throttle" in state for state in states):
        parts.append(f"throttled: {', '.join(reasons) or 'no'}")
    return ", ".join(parts)


def ceilings_table(results: Sequence[Result], ceilings: Mapping[str, Mapping[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """What the device reached, a line for each backend and precision under a header; and why figures are missing, as where one
    of the `results` exceeds them."""
    stand, exceeded = standing_ceilings(results, ceilings)
    table, missing = [["backend", "matrix product GMAC/s", "copy GB/s", "operator us"]], []
    for name, ceiling in stand.items():
        scaled = [("macs_per_s", 1e-9), ("bytes_per_s", 1e-9), ("seconds_per_operator", 1e6)]
        table.append([name, *(significant(scale * ceiling[key], 3) if ceiling.get(key) else "-" for key, scale in scaled)])
        for key, why in ((ceiling.get("how") or {}).get("unavailable") or {}).items():
            missing.append(f"{name}, {key.replace('_', ' ')}: {why}")
        missing += exceeded[name]
    return table, missing
