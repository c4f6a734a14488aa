"""The `python -m benchmarks` command: parse, call, print."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import NOT_MEASURED, Result
from benchmarks.cells.inputs import assumed_cache
from benchmarks.cells.plan_cells import ALL, AUTO, open_bundle
from benchmarks.cells.records import RESULTS, TABLE, Recorded, claim_folder, read_records, write_csv
from benchmarks.listing import listing
from benchmarks.machine.environment import command_line
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.threads import pinned
from benchmarks.report.choose import PERCENTILES, WidthChoice, sentences
from benchmarks.report.choose import choose as choose_width
from benchmarks.report.compare import compare, differences, table
from benchmarks.report.document import console, report
from benchmarks.report.plots.pictures import draw
from benchmarks.request import (
    MeasuringOptions,
    Request,
    make_request,
    measuring_options,
    output_folder,
    split_names,
    split_numbers,
)
from benchmarks.session import prepare, run
from slimtrain.base.command import CONTEXT, INTERRUPTED, messages
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.version import __version__

PROGRAM = "benchmarks"
REPORT, COMPARISON = "report.md", "comparison.txt"


@click.command("benchmarks", context_settings=CONTEXT)
@click.version_option(__version__, message="benchmarks %(version)s")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option(
    "--backends", default=AUTO, metavar="LIST", help=f"auto, all, or some of {', '.join(BACKENDS)}.  [default: auto]"
)
@click.option("--batches", default="1,8,32", show_default=True, metavar="LIST", help="Images per run.")
@measuring_options
@click.option("--baseline", type=click.Path(path_type=Path), metavar="FILE", help="A results.jsonl to compare with.")
@click.option("--no-plots", is_flag=True, help="Write no pictures.")
def measure(
    bundles: Sequence[Path], backends: str, batches: str, baseline: Path | None, no_plots: bool, **options: Any
) -> None:
    """How long every width of a bundle takes on this device, how sure that is, and how far from what its MACs promise.

    \b
      python -m benchmarks exports/us_mobilenet_v1
      python -m benchmarks exports/us_mobilenet_v1 --backends onnxruntime-cpu,slimmable --ckpt us_mbv1.pt
      python -m benchmarks exports/us_mobilenet_v1 --baseline measured/us_mobilenet_v1/results.jsonl
      python -m benchmarks choose exports/us_mobilenet_v1 --latency-ms 5 --batch 8
      python -m benchmarks channels us_mobilenet_v1
      python -m benchmarks --list

    Writes results.jsonl (raw samples), results.csv, report.md and plots. No clock or power setting is changed.

    Exit codes: 0 done; 1 a file computes something wrong; 2 usage or bad input; 3 the environment lacks something.
    """
    with messages(PROGRAM):
        earlier = None if baseline is None else read_records(baseline)
        if earlier is not None and earlier.note:
            click.echo(earlier.note, err=True)
        given = MeasuringOptions(**options)
        request = make_request(bundles, backends, split_numbers(batches, "batches", int), given)
        folder = output_folder(request, given)
        recorded, interrupted = _measure(request, folder)
        _report(recorded, folder, plots=not no_plots)
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
    sys.exit(INTERRUPTED if interrupted else exit_code(recorded.results))


@click.command("choose", context_settings=CONTEXT)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--latency-ms", type=float, required=True, metavar="MS", help="The budget for one run of a whole batch.")
@click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Images per run.")
@click.option("--percentile", type=click.Choice(tuple(map(str, PERCENTILES))), default="50", show_default=True)
@click.option("--backend", default=AUTO, metavar="NAME", help="auto: the fastest that the bundle can use here.")
@measuring_options
@click.option("--results", type=click.Path(path_type=Path), metavar="FILE", help="Choose from an earlier results.jsonl.")
def choose(
    bundle: Path, latency_ms: float, batch: int, percentile: str, backend: str, results: Path | None, **options: Any
) -> None:
    """The widest, or most accurate, width whose latency on this device is within a budget.

    \b
      python -m benchmarks choose exports/us_mobilenet_v1 --latency-ms 5 --batch 8 --percentile 95

    The most accurate where all widths know their accuracy, else the widest. Exit code 1, with the nearest misses, where none
    is within the budget.
    """
    with messages(PROGRAM):
        if not 0 < latency_ms < float("inf"):
            raise UserError(f"--latency-ms {latency_ms:g}: expected milliseconds above 0, as in 5.")
        given, interrupted = MeasuringOptions(**options), False
        candidates: Sequence[Result]
        if results is None:
            request = make_request([bundle], backend, [batch], given)
            folder = output_folder(request, given)
            recorded, interrupted = _measure(request, folder)
            _say_interrupted(interrupted, folder)
            candidates = recorded.results
        else:
            candidates = earlier_results(results, bundle, backend, batch, given)
        choice = choose_width(candidates, latency_ms, int(percentile))
        click.echo("\n".join(sentences(choice)))
        for result in candidates:
            if result.status == NOT_MEASURED:
                click.echo(f"{result.cell.name} ({result.cell.backend}) was not measured: {result.reason}", err=True)
    sys.exit(INTERRUPTED if interrupted else _choice_code(choice, candidates))


def _choice_code(choice: WidthChoice, results: Sequence[Result]) -> int:
    """0 for a width that was chosen; else 1, or what the refusals say where nothing could be measured."""
    if not choice.fitting and not choice.misses:
        return exit_code(results) or 1
    return 0 if choice.chosen else 1


def earlier_results(path: Path, bundle: Path, backend: str, batch: int, given: MeasuringOptions) -> list[Result]:
    """The results of a bundle at a batch in an earlier run, of the widths and precisions that are `given`. UserError where
    there are none."""
    opened = open_bundle(bundle)
    every = read_records(path).results
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
    return results


def _measure(request: Request, folder: Path) -> tuple[Recorded, bool]:
    """Measure into `folder`: raw samples and the table. Whether Ctrl-C ended it is returned too."""
    with pinned(request.threads) as threads, assumed_cache(request.cache_bytes):
        plan = prepare(request)
        needed = [bundle.folder for bundle in request.bundles]
        needed += [Path(path) for path in (request.options.checkpoint, request.accuracy_data) if path]
        moved = claim_folder(folder, needed)
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
    write_atomically(path, (text.rstrip("\n") + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m benchmarks`: `choose` and `channels` are commands, everything else is measured."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--list"]:
        click.echo(listing())
    elif words[:1] == ["choose"]:
        choose(words[1:], prog_name="python -m benchmarks choose")
    elif words[:1] == ["channels"]:
        with messages(PROGRAM):
            from benchmarks.layers.command import command  # needs PyYAML, which measuring bundles does not
        command(words[1:], prog_name="python -m benchmarks channels")
    else:
        measure(words, prog_name="python -m benchmarks")
