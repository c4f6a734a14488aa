"""What a run's figures say, in sentences: shared by the report and the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from benchmarks.cells.cell import INTERRUPTED, Result
from benchmarks.cells.records import TABLE, Recorded
from benchmarks.machine.notes import notes
from benchmarks.report.analysis import FLOORS, Group, listed
from benchmarks.report.ceilings import standing_ceilings
from benchmarks.report.decisions import EVERY_WIDTH
from benchmarks.report.folding import Key, fold, places
from benchmarks.report.tables import common_reason, reason, significant
from slimtrain.base.text import count

MOST_PLACES = MOST_LABELS = 5
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


def _unknown_floors(groups: Sequence[Group]) -> list[str]:
    """Where nothing, or not everything, is known that `bound by` goes by."""
    said = []
    for group in groups:
        unknown = [name for name in FLOORS if any(name not in row.floors_ms for row in group.measured)]
        if len(unknown) == len(FLOORS):
            said.append((group.key, "no ceiling is known for it, so nothing says what bounds it"))
        elif unknown:
            said.append(
                (group.key, f"the floor of {', '.join(unknown)} is not known for all: `bound by` goes by what is left")
            )
    return fold(said, [group.key for group in groups if group.measured])


def warning_lines(results: Sequence[Result]) -> list[str]:
    """The warnings, the gravest first. Those that differ in figures only are told once, by the worst, with all cells that have
    one: `0.25x, 0.5x (batch 1): noisy: ... (the worst of 2)`."""
    by_kind: dict[str, list[tuple[Result, str]]] = {}
    for result in results:
        for warning in result.warnings:
            by_kind.setdefault(NUMBER.sub("#", warning), []).append((result, warning))
    kinds = sorted(by_kind, key=lambda kind: next((at for at, start in enumerate(LIGHTER) if kind.startswith(start)), -1))
    lines = []
    for kind in kinds:
        members = by_kind[kind]
        worst = max((text for _, text in members), key=lambda text: float((NUMBER.search(text) or ["0"])[0].replace(",", "")))
        more = f" (the worst of {len(members)})" if len(members) > 1 else ""
        lines.append(f"{_cells_named([result for result, _ in members], results)}: {worst.rstrip('.')}{more}.")
    return lines


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# How warnings begin that are less grave than a network's output, from the graver ones on
LIGHTER = ("throttled", "noisy", "other processes", "only ", "clocks unstable", "host-bound")


def _cells_named(results: Sequence[Result], every: Sequence[Result]) -> str:
    """`every width (batch 1); 0.25x, 0.5x (batch 8)`: cells, by what of a run's tables they are."""
    tables: dict[Key, list[str]] = {}
    for result in every:
        if result.rounds:
            tables.setdefault(result.cell.group, []).append(result.cell.label)
    labels: dict[Key, list[str]] = {}
    for result in results:
        labels.setdefault(result.cell.group, []).append(result.cell.label)
    by_labels: dict[str, list[Key]] = {}
    for key, mine in labels.items():
        whole = len(mine) > 1 and set(mine) >= set(tables.get(key, ()))
        by_labels.setdefault(EVERY_WIDTH if whole else _ends(mine), []).append(key)
    parts = []
    for text, keys in by_labels.items():
        where = places(keys, list(tables) or keys)
        parts.append(f"{text} ({where})" if where else text)
    if len(parts) > MOST_PLACES:
        left = list(by_labels.values())[MOST_PLACES:]
        parts[MOST_PLACES:] = [f"and in {count(sum(map(len, left)), 'more table')} (all are in {TABLE})"]
    return "; ".join(parts)


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


def unmeasured_rows(groups: Sequence[Group], every: Sequence[Group]) -> list[str]:
    """The reasons of single rows, in groups (some of `every`) of which others were measured or have other reasons."""
    said = []
    for group in groups:
        if common_reason(group) is None:
            for row in group.rows:
                if row.summary is None:
                    said.append((group.key, f"{row.cell.label}: {reason(row)}"))
    return fold(said, [group.key for group in every])


def trust(recorded: Recorded, groups: Sequence[Group]) -> list[str]:
    """How far the figures can be relied on, as far as the run itself knows."""
    measured = [row for group in groups for row in group.measured]
    doubtful = [row for row in measured if row.result.warnings]
    were = "was" if len(recorded.results) == 1 else "were"
    of = count(len(recorded.results), "cell")
    said = [f"{len(measured)} of {of} {were} measured, {len(measured) - len(doubtful)} without a warning"]
    rounds = {row.summary.rounds for row in measured if row.summary}
    if rounds and min(rounds) > 1:
        share = 2 / comb(2 * min(rounds), min(rounds))
        said.append(
            "one width counts as faster than another where the medians of all its rounds are lower; of two that are equally "
            f"fast, with {min(rounds)} rounds, that happens by chance in {share:.0%} of the pairs, for one or the other"
        )
    said += dict.fromkeys(sentence for group in groups for sentence in group.exceeded)
    said += _unknown_floors(groups)
    return said + [note for note in run_notes(recorded) if note != recorded.note]


def cut_line(results: Sequence[Result]) -> list[str]:
    """Which cells lack rounds, if any do."""
    cut = [result.cell.label for result in results if result.status == INTERRUPTED and result.rounds]
    return [f"interrupted, so with fewer samples (marked *): {', '.join(dict.fromkeys(cut))}"] if cut else []


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
