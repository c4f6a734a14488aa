"""What `python -m benchmarks` and its `choose` do, once their options are known to be right: measure, report, choose."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.cells.backends import ALL, AUTO
from benchmarks.cells.cell import NOT_MEASURED, Result
from benchmarks.cells.inputs import assumed_cache
from benchmarks.cells.plan_cells import open_bundle
from benchmarks.cells.records import (
    CHOOSE,
    COMPARISON,
    REPORT,
    RESULTS,
    TABLE,
    Recorded,
    claim_folder,
    read_records,
    write_csv,
)
from benchmarks.machine.environment import command_line
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.threads import pinned
from benchmarks.report.analysis import analyse
from benchmarks.report.choose import WidthChoice, as_values, choose, sentences
from benchmarks.report.compare import compare, differences, table
from benchmarks.report.decisions import paying
from benchmarks.report.document import console, report
from benchmarks.report.plots.pictures import draw
from benchmarks.report.wording import run_notes, unmeasured_lines, warning_lines
from benchmarks.request import MeasuringOptions, Request, make_request, output_folder, split_names, split_numbers
from benchmarks.session import prepare, run
from slimtrain.base.command import INTERRUPTED
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.text import utf8


def measure_bundles(
    folders: Sequence[Path], backends: str, batches: str, given: MeasuringOptions, baseline: Path | None, plots: bool
) -> int:
    """Measure, write and print the report, and compare it with `baseline`, an earlier run; the exit code. Raises UserError."""
    earlier = None if baseline is None else read_records(baseline)
    if earlier is not None and earlier.note:
        click.echo(earlier.note, err=True)
    request = make_request(folders, backends, split_numbers(batches, "batches", int), given)
    folder = output_folder(request, given)
    recorded, interrupted = _measure(request, folder, [] if baseline is None else [baseline])
    _report(recorded, folder, plots)
    _say_interrupted(interrupted, folder)
    if earlier is not None:
        comparison = "\n".join(
            [
                f"compared with {earlier.run['command']}:",
                *differences(earlier.run, recorded.run),
                table(compare(earlier, recorded)),
            ]
        )
        click.echo(comparison)
        _write(folder / COMPARISON, comparison)
    return INTERRUPTED if interrupted else exit_code(recorded.results)


def choose_width(
    bundle: Path,
    budget_ms: float,
    percentile: int,
    backend: str,
    batch: int,
    given: MeasuringOptions,
    results: Path | None,
    as_json: bool = False,
) -> int:
    """Say which width of a bundle takes `budget_ms` at most, measured now or in an earlier run's `results`; the exit code.
    Raises UserError."""
    if not 0 < budget_ms < float("inf"):
        raise UserError(f"--latency-ms {budget_ms:g}: expected milliseconds above 0, as in 5.")
    interrupted = False
    if results is None:
        request = make_request([bundle], backend, [batch], given)
        folder = output_folder(request, given, CHOOSE)
        recorded, interrupted = _measure(request, folder)
        _say_interrupted(interrupted, folder)
    else:
        recorded = earlier_results(results, bundle, backend, batch, given)
    choice = choose(recorded.results, budget_ms, percentile)
    groups = analyse(recorded.results, {})
    warned, doubts = warning_lines(recorded.results), [*paying(groups), *run_notes(recorded)]
    if as_json:
        values = as_values(choice, bundle) | {"warnings": warned, "notes": doubts}
        click.echo(json.dumps({**values, "results": str(folder / RESULTS if results is None else results)}, indent=1))
    else:
        rounds = min((len(result.rounds) for result in recorded.results if result.rounds), default=0)
        click.echo("\n".join(sentences(choice, rounds)))
        if choice.chosen is not None:
            click.echo(bundle / choice.chosen.cell.file)
        for title, lines in (("warnings:", warned), ("about this run:", doubts)):
            if lines:
                click.echo("\n".join([title, *(f"- {line}" for line in lines)]), err=True)
    for line in unmeasured_lines(groups):
        click.echo(f"not measured: {line}", err=True)
    return INTERRUPTED if interrupted else _choice_code(choice, recorded.results)


def _choice_code(choice: WidthChoice, results: Sequence[Result]) -> int:
    """0 for a width that was chosen; else 1, or what the refusals say where nothing could be measured."""
    if not choice.fitting and not choice.unsure and not choice.misses:
        return exit_code(results) or 1
    return 0 if choice.chosen else 1


def earlier_results(path: Path, bundle: Path, backend: str, batch: int, given: MeasuringOptions) -> Recorded:
    """An earlier run with its results of a bundle at a batch, of the widths and precisions that are `given`. UserError where
    there are none."""
    opened = open_bundle(bundle)
    recorded = read_records(path)
    every = recorded.results
    widths, precisions = given.wanted_widths(), given.wanted_precisions()
    backends = split_names(backend) if backend not in (AUTO, ALL) else ()
    results = [
        result
        for result in every
        if result.cell.batch == batch
        and result.cell.network == opened.network
        and (not backends or result.cell.backend in backends)
        and (not widths or result.cell.width in widths)
        and (not precisions or result.cell.precision in precisions)
    ]
    results = [result for result in results if result.cell.bundle == opened.name] or results  # two trainings of one network
    if not results:
        known = sorted({(result.cell.network, result.cell.backend, result.cell.batch) for result in every})
        raise UserError(
            f"{path}: has nothing for {opened.network} at batch {batch} on {backend}, of the widths and precisions asked for. "
            "It has "
            f"{', '.join('{} on {} at batch {}'.format(*place) for place in known)}. Measure, or choose from these."
        )
    return replace(recorded, results=tuple(results))


def _measure(request: Request, folder: Path, reads: Sequence[Path] = ()) -> tuple[Recorded, bool]:
    """Measure into `folder`: raw samples and the table. Whether Ctrl-C ended it is returned too."""
    with pinned(request.threads) as threads, assumed_cache(request.cache_bytes):
        plan = prepare(request)
        needed = [bundle.folder for bundle in request.bundles]
        needed += [Path(path) for path in (request.options.checkpoint, request.accuracy_data) if path]
        with claim_folder(folder, needed, reads) as moved:
            if moved is not None:
                click.echo(f"{folder} held an earlier run, which is now {moved}", err=True)
            with RoundProgress() as progress:
                say = functools.partial(click.echo, err=True)
                recorded, interrupted = run(request, threads, plan, folder / RESULTS, command_line(), say, progress)
            write_csv(folder / TABLE, recorded.results)
    return recorded, interrupted


def _report(recorded: Recorded, folder: Path, plots: bool) -> None:
    """Draw, write and print what a person wants to read."""
    pictures: list[Path] = []
    if plots and any(result.rounds for result in recorded.results):
        try:
            pictures = draw(recorded, folder)
        except UserError as error:
            click.echo(f"no plots: {error}", err=True)
    names = [path.name for path in pictures]
    _write(folder / REPORT, report(recorded, names))
    click.echo(console(recorded))
    click.echo(f"{folder}: {', '.join([REPORT, RESULTS, TABLE, *names])}", err=True)


def _say_interrupted(interrupted: bool, folder: Path) -> None:
    if interrupted:
        click.echo(f"benchmarks: interrupted, what was measured is in {folder}.", err=True)


def exit_code(results: Sequence[Result]) -> int:
    """0 where something was measured and nothing is wrong; 1 where a network's output is; else what the refusals say."""
    codes = [result.exit_code for result in results if result.status == NOT_MEASURED]
    if 1 in codes:
        return 1
    measured = any(result.status != NOT_MEASURED for result in results)
    return 0 if measured else max(codes, default=0)


def _write(path: Path, text: str) -> None:
    write_atomically(path, utf8(text.rstrip("\n") + "\n"))
