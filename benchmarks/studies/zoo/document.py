"""What the study of the published networks says: sentences, tables, the picture's panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cells.cell import NOT_MEASURED, Cell, Result
from benchmarks.cells.records import Recorded
from benchmarks.machine.notes import describe
from benchmarks.report.plots.style import device_name, save
from benchmarks.report.tables import escaped, significant
from benchmarks.report.wording import backend_settings, method_lines, run_notes, states_line, warning_lines
from benchmarks.studies.zoo.front import (
    Front,
    Point,
    by_network,
    counted_points,
    joint_front,
    measured_points,
    switches_named,
)
from benchmarks.studies.zoo.picture import zoo_figure
from slimexport.target.precision import EXACT
from slimtrain.base.errors import UserError
from slimtrain.base.text import count, some, table
from slimtrain.costs.cost import format_macs

NOT_MEASURED_HERE = "errors are the published ones, not measured here"
OF_EXACT = f"of the networks in {EXACT}: another precision adds to them"
MEGA = 1e-6


class NothingToDraw(UserError):
    """No switch has a latency."""

    exit_code = 3


def draw(recorded: Recorded, path: Path, colours: int) -> None:
    """Write the picture. NothingToDraw where nothing was measured."""
    if not _by_batch(recorded):
        raise NothingToDraw(f"nothing could be measured: {'; '.join(unmeasured(recorded))}")
    panels, axis = {}, {}
    for batch, points in _by_batch(recorded).items():
        title = f"batch {batch}: measured latency"
        panels[title], axis[title] = points, "latency per batch (ms)" if batch > 1 else "latency (ms)"
    counted = [_in_millions(point) for point in counted_points(_first_batch(recorded))]
    panels["multiply-accumulates, for comparison"] = counted
    axis["multiply-accumulates, for comparison"] = "MACs per image (M)"
    cell = recorded.results[0].cell
    heading = f"Which published network to ship on {device(recorded)}?"
    what = f"{_counted_in_words(counted)} in {cell.backend}, {cell.precision}; errors as published, not measured"
    save(zoo_figure(panels, axis, heading, what), path, colours)


def _counted_in_words(points: Sequence[Point]) -> str:
    """`86 switches of 10 networks`."""
    return f"{count(len(points), 'switch', 'switches')} of {count(len(by_network(points)), 'network')}"


def _in_millions(point: Point) -> Point:
    return Point(point.cell, point.error, *(MEGA * value for value in (point.cost, point.low, point.high)))


def device(recorded: Recorded) -> str:
    """The CPU with its threads, or the GPU."""
    machine = recorded.run.get("environment") or {}
    of_gpu = any(result.latency_kind == "device" for result in recorded.results)
    if of_gpu:
        return device_name(str((machine.get("gpu") or {}).get("name") or "a GPU"))
    threads = ((recorded.run.get("settings") or {}).get("threads") or {}).get("threads")
    return device_name(str(machine.get("cpu") or "a CPU")) + (f" ({count(threads, 'thread')})" if threads else "")


def _by_batch(recorded: Recorded) -> dict[int, list[Point]]:
    batches = dict.fromkeys(result.cell.batch for result in recorded.results)
    points = {
        batch: measured_points([result for result in recorded.results if result.cell.batch == batch]) for batch in batches
    }
    return {batch: of_batch for batch, of_batch in points.items() if of_batch}


def _first_batch(recorded: Recorded) -> list[Result]:
    batch = recorded.results[0].cell.batch
    return [result for result in recorded.results if result.cell.batch == batch]


def sentences(recorded: Recorded) -> list[str]:
    """What is worth shipping at each batch, what is not at any, and where MACs would have led to something else."""
    by_macs = counted_points(_first_batch(recorded))
    promised = joint_front(by_macs)
    said, shipped = [], set()
    for batch, points in _by_batch(recorded).items():
        front = joint_front(points)
        shipped |= {point.network for point in front.worth}
        share = f"{len(front.worth)} of {count(len(points), 'switch', 'switches')}"
        said.append(f"worth shipping at batch {batch}, {share}: {_named(front, points)}")
        if misled := _misled(points, front, promised):
            said.append(misled)
    said.append(f"by MACs it would have been {len(promised.worth)}: {_named(promised, by_macs)}")
    never = [network for network in by_network(by_macs) if network not in shipped]
    if never:
        said.append(f"never worth it here: {', '.join(never)}")
    return said


def _named(front: Front, points: Sequence[Point]) -> str:
    return "; ".join(f"{network} {switches_named(worth, points)}" for network, worth in by_network(front.worth).items())


def _misled(points: Sequence[Point], front: Front, promised: Front) -> str:
    """The switch that MACs recommend most wrongly: beaten here, by the largest factor."""
    cells = {(point.cell.network, point.cell.label) for point in promised.worth}
    beaten = [point for point in points if (point.cell.network, point.cell.label) in cells and point not in front.points]
    pairs = [
        (point, min((other for other in points if other.error <= point.error), key=lambda other: other.cost))
        for point in beaten
    ]
    if not pairs:
        return ""
    point, better = max(pairs, key=lambda pair: pair[0].cost / pair[1].cost)
    (promise, takes), (less, least) = (
        (f"{format_macs(one.cell.macs)}, {one.error:.1f} %", f"{significant(one.cost, 3)} ms") for one in (point, better)
    )
    return (
        f"MACs mislead most at batch {point.cell.batch} about {point.name} ({promise}): it takes {takes}, {better.name} "
        f"({less}) {least}"
    )


MEASURED = ("median ms", "lowest to highest round", "images/s")
HEADER = ("network", "switch", "error % (published)", *MEASURED, "MACs", "by MACs too")


def _rows(points: Sequence[Point], promised: Front) -> list[tuple[str, ...]]:
    by_macs = {(point.cell.network, point.cell.label) for point in promised.worth}
    return [
        (
            *(point.network, point.cell.label, f"{point.error:.1f}", significant(point.cost)),
            f"{significant(point.low)} to {significant(point.high)}",
            *(significant(1e3 * point.cell.batch / point.cost), format_macs(point.cell.macs)),
            "yes" if (point.cell.network, point.cell.label) in by_macs else "",
        )
        for point in points
    ]


def console(recorded: Recorded) -> str:
    """The sentences, and what is worth shipping as a table for every batch."""
    promised = joint_front(counted_points(_first_batch(recorded)))
    parts = []
    for title, lines in (
        ("before deciding:", _before_deciding(recorded)),
        ("in short:", [*sentences(recorded), _about_errors(recorded)]),
    ):
        if lines:
            parts.append("\n".join([title, *(f"- {line}" for line in lines)]))
    for batch, points in _by_batch(recorded).items():
        parts.append(f"worth shipping at batch {batch}:\n{table(HEADER, _rows(joint_front(points).worth, promised))}")
    return "\n\n".join(parts)


def _before_deciding(recorded: Recorded) -> list[str]:
    """What may make a decision wrong: what is missing, cells with warnings, what the machine did."""
    missing = [f"not measured: {line}" for line in unmeasured(recorded)]
    return [*missing, *warning_lines(recorded.results), *run_notes(recorded)]


def _about_errors(recorded: Recorded) -> str:
    """Whose the errors are."""
    exact = recorded.results[0].cell.precision == EXACT
    return NOT_MEASURED_HERE if exact else f"{NOT_MEASURED_HERE}, and {OF_EXACT}"


def report(recorded: Recorded, picture: str) -> str:
    """The study as Markdown, with the picture of that name beside it."""
    by_macs = counted_points(_first_batch(recorded))
    promised = joint_front(by_macs)
    parts = [
        f"# Which published network to ship on {device(recorded)}",
        f"![published top-1 error against measured latency, and against MACs]({picture})",
        f"{_counted_in_words(by_macs)}. Latency was measured here; {_about_errors(recorded)} ({SOURCE}).",
        _bullets(sentences(recorded)),
    ]
    if lines := _before_deciding(recorded):
        parts += ["Before deciding:", _bullets(lines)]
    for batch, points in _by_batch(recorded).items():
        parts += [f"## Worth shipping at batch {batch}", _markdown(HEADER, _rows(joint_front(points).worth, promised))]
    parts += ["## All switches", _everything(recorded, promised)]
    return "\n\n".join([*parts, *_how(recorded)]) + "\n"


def unmeasured(recorded: Recorded) -> list[str]:
    """What has no figure and why, a line for all of one reason."""
    by: dict[str, list[Cell]] = {}
    for result in recorded.results:
        if result.status == NOT_MEASURED:
            by.setdefault(result.reason, []).append(result.cell)
    return [f"{some([f'{cell.name} at batch {cell.batch}' for cell in cells])}: {reason}" for reason, cells in by.items()]


SOURCE = "ImageNet-1k at 224 px, the tables of the published code; arXiv 1812.08928, 1903.05134, 1903.11728"
MARKS = "**bold**: worth shipping; *: as good as a better one within the noise"


def _everything(recorded: Recorded, promised: Front) -> str:
    """A row for each switch, with its latency at every batch."""
    by_batch = _by_batch(recorded)
    fronts = {batch: joint_front(points) for batch, points in by_batch.items()}
    rows = []
    for point in counted_points(_first_batch(recorded)):
        row = [point.network, point.cell.label, f"{point.error:.1f}"]
        row.append(_marked(format_macs(point.cell.macs), point, promised))
        for batch, points in by_batch.items():
            own = [other for other in points if _same(other.cell, point.cell)]
            row += [_marked(significant(other.cost), other, fronts[batch]) for other in own] or [""]
        rows.append(row)
    header = ("network", "switch", "error %", "MACs", *(f"ms at batch {batch}" for batch in by_batch))
    return f"{MARKS}.\n\n{_markdown(header, rows)}"


def _same(one: Cell, other: Cell) -> bool:
    return (one.network, one.label) == (other.network, other.label)


def _marked(text: str, point: Point, front: Front) -> str:
    return f"**{text}**" if point in front.worth else f"{text} *" if point in front.points else text


def _how(recorded: Recorded) -> list[str]:
    end = recorded.end or {}
    lines = method_lines(recorded.run.get("settings") or {})
    lines += [f"{name}: {settings}" for name, settings in backend_settings(recorded.results).items()]
    lines += [f"the run took {end['seconds']:.0f} s"] if end.get("seconds") else []
    lines += describe(recorded.run.get("environment") or {})
    during = states_line(recorded.results)
    return [
        "## How and where it was measured",
        f"```\n{recorded.run.get('command', '')}\n```",
        _bullets([*lines, *([f"during the rounds: {during}"] if during else [])]),
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in (header, rule, *rows))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)
