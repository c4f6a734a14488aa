"""The `python -m benchmarks` command: parse, call, print."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import NOT_MEASURED, Options, Result
from benchmarks.cells.plan_cells import ALL, AUTO, Wanted, choose_backends, open_bundle
from slimtrain.base.command import CONTEXT, messages
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.version import __version__

F = TypeVar("F", bound=Callable[..., Any])
PROGRAM = "benchmarks"
OUTPUT = Path("measured")


def measuring_options(command: F) -> F:
    """The options of all commands that measure bundles."""
    for decorate in reversed(
        (
            click.option("--widths", metavar="LIST", help="0.5,1.0, or switch numbers.  [default: all in the bundle]"),
            click.option("--precision", metavar="LIST", help="fp32,fp16,...  [default: all in the bundle]"),
            click.option("--duration", type=float, default=3.0, show_default=True, metavar="S", help="Per cell, all rounds."),
            click.option("--repeats", type=int, default=3, show_default=True, metavar="N", help="Rounds, widths interleaved."),
            click.option("--warmup", type=float, default=200, show_default=True, metavar="MS", help="Before each turn."),
            click.option("--threads", type=int, metavar="N", help="Of CPU backends.  [default: one per physical core]"),
            click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", help="Where torch runs."),
            click.option("--ckpt", type=click.Path(path_type=Path), metavar="PATH", help="For the slimmable network itself."),
            click.option("--no-cuda-graph", is_flag=True, help="TensorRT without CUDA graphs."),
            click.option("--transfers", is_flag=True, help="Copies to and from the GPU too, as columns of their own."),
            click.option("--accuracy-data", metavar="DIR", help="Labeled images (a folder per class), or digits."),
            click.option("--output-dir", type=click.Path(path_type=Path), metavar="DIR", help="[default: measured/BUNDLE]"),
            click.option("--seed", type=click.IntRange(0), default=0, help="Of the random inputs."),
            click.option(
                "--cache-mib", type=float, metavar="MIB", help="Cache that inputs must exceed.  [default: the CPU's]"
            ),
        )
    ):
        command = decorate(command)
    return command


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
        from benchmarks.cells.records import read_records
        from benchmarks.report.compare import compare, differences, table

        earlier = None if baseline is None else read_records(baseline)
        if earlier is not None and earlier.note:
            click.echo(earlier.note, err=True)
        request, folder = _request(bundles, backends, _numbers(batches, "batches", int), **options)
        recorded, interrupted = _measure(request, folder, plots=not no_plots)
        if earlier is not None:
            different = differences(earlier.run, recorded.run)
            comparison = "\n".join([f"compared with {earlier.run['command']}:", *different, table(compare(earlier, recorded))])
            click.echo(comparison)
            _write(folder / "comparison.txt", comparison)
    sys.exit(130 if interrupted else exit_code(recorded.results))


@click.command("choose", context_settings=CONTEXT)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--latency-ms", type=float, required=True, metavar="MS", help="The budget for one run of a whole batch.")
@click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Images per run.")
@click.option("--percentile", type=click.Choice(("50", "90", "95", "99")), default="50", show_default=True)
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
        from benchmarks.report.choose import choose as pick
        from benchmarks.report.choose import sentences

        if not 0 < latency_ms < float("inf"):
            raise UserError(f"--latency-ms {latency_ms:g}: expected milliseconds above 0, as in 5.")
        if results is None:
            request, folder = _request([bundle], backend, [batch], **options)
            recorded, interrupted = _measure(request, folder, plots=False, report=False)
            found: Sequence[Result] = recorded.results
        else:
            found, interrupted = _recorded(results, bundle, backend, batch, options["widths"], options["precision"]), False
        choice = pick(found, latency_ms, int(percentile))
        click.echo("\n".join(sentences(choice)))
        for result in found:
            if result.status == NOT_MEASURED:
                click.echo(f"{result.cell.name} ({result.cell.backend}) was not measured: {result.reason}", err=True)
    if interrupted:
        sys.exit(130)
    if not choice.fitting and not choice.misses:
        sys.exit(exit_code(found) or 1)
    sys.exit(0 if choice.chosen else 1)


def _recorded(path: Path, bundle: Path, backend: str, batch: int, widths: str | None, precision: str | None) -> list[Result]:
    """The results of a bundle at a batch in an earlier run, of these widths and precisions. UserError where there are none."""
    from benchmarks.cells.records import read_records

    opened = open_bundle(bundle)
    every = read_records(path).results
    wanted_widths, wanted_precisions = _numbers(widths, "widths", float) if widths else [], _names(precision)
    backends = _names(backend) if backend not in (AUTO, ALL) else ()
    found = [
        result
        for result in every
        if result.cell.batch == batch
        and result.cell.network == opened.network
        and (not backends or result.cell.backend in backends)
        and (not wanted_widths or result.cell.width in wanted_widths)
        and (not wanted_precisions or result.cell.precision in wanted_precisions)
    ]
    found = [result for result in found if result.cell.bundle == opened.name] or found  # two trainings of one network
    if not found:
        known = sorted({(result.cell.network, result.cell.backend, result.cell.batch) for result in every})
        raise UserError(
            f"{path}: has nothing for {opened.network} at batch {batch} on {backend}, of the widths and precisions asked for. "
            "It has "
            f"{', '.join('{} on {} at batch {}'.format(*each) for each in known)}. Measure, or choose from these."
        )
    return found


def _request(
    folders: Sequence[Path],
    backends: str,
    batches: Sequence[int],
    *,
    widths: str | None,
    precision: str | None,
    duration: float,
    repeats: int,
    warmup: float,
    threads: int | None,
    device: str,
    ckpt: Path | None,
    no_cuda_graph: bool,
    transfers: bool,
    accuracy_data: str | None,
    output_dir: Path | None,
    seed: int,
    cache_mib: float | None,
) -> tuple[Any, Path]:
    """The session that the options describe, and the folder that its results go to."""
    from benchmarks.measure.method import Method
    from benchmarks.session import Request

    method = Method(duration, repeats, warmup / 1e3)
    if ckpt is not None and not str(ckpt).startswith("random:") and not ckpt.is_file():
        raise UserError(f"--ckpt {ckpt}: not there. Give the checkpoint that the bundle was exported from.")
    bundles = tuple(open_bundle(folder) for folder in folders)
    has_gpu = gpu_is_here()
    if backends not in (AUTO, ALL):
        for name in backends.split(","):
            if name.strip() not in BACKENDS:
                raise UserError(
                    f"backend {name.strip()!r}: not known{nearest(name.strip(), BACKENDS)}. Available: {', '.join(BACKENDS)}."
                )
    wanted = Wanted(
        choose_backends(backends, has_gpu, bundles, ckpt is not None),
        tuple(dict.fromkeys(batches)),
        _names(precision),
        tuple(_numbers(widths, "widths", float)) if widths else (),
    )
    if cache_mib is not None and not 0 < cache_mib < 2**20:
        raise UserError(f"--cache-mib {cache_mib:g}: expected the cache's size in MiB, as in 32.")
    cache = None if cache_mib is None else int(cache_mib * 2**20)
    if any(batch < 1 for batch in batches):
        raise UserError(f"batches {', '.join(map(str, batches))}: expected whole numbers from 1, as in 1,8,32.")
    place = ("cuda" if has_gpu else "cpu") if device == "auto" else device
    options = Options(0, not no_cuda_graph, transfers, place, ckpt)
    folder = output_dir or OUTPUT / "+".join(bundle.name for bundle in bundles)
    request = Request(
        bundles, wanted, method, options, threads=threads, cache_bytes=cache, accuracy_data=accuracy_data or "", seed=seed
    )
    return request, folder


def _measure(request: Any, folder: Path, plots: bool, report: bool = True) -> tuple[Any, bool]:
    """Measure, write every file, print what a person wants to read."""
    from benchmarks.cells.inputs import assumed_cache
    from benchmarks.cells.records import RESULTS, TABLE, claim_folder, write_csv
    from benchmarks.machine.threads import pinned
    from benchmarks.measure.progress import RoundProgress
    from benchmarks.report.document import console
    from benchmarks.report.document import report as write_report
    from benchmarks.session import prepare, run

    with pinned(request.threads) as threads, assumed_cache(request.cache_bytes):
        plan = prepare(request)
        needed = [bundle.folder for bundle in request.bundles]
        needed += [Path(path) for path in (request.options.checkpoint, request.accuracy_data) if path]
        moved = claim_folder(folder, needed)
        if moved is not None:
            click.echo(f"{folder} held an earlier run, which is now {moved}", err=True)
        with RoundProgress() as progress:
            say = functools.partial(click.echo, err=True)
            recorded, interrupted = run(request, threads, plan, folder / RESULTS, _command(), say, progress)
    write_csv(folder / TABLE, recorded.results)
    drawn: list[Path] = []
    if plots and any(result.rounds for result in recorded.results):
        try:
            from benchmarks.report.plots.pictures import draw

            drawn = draw(recorded, folder)
        except UserError as error:
            click.echo(f"no plots: {error}", err=True)
    if report:
        _write(folder / "report.md", write_report(recorded, [path.name for path in drawn]))
        click.echo(console(recorded))
        written = ["report.md", RESULTS, TABLE, *(path.name for path in drawn)]
        click.echo(f"{folder}: {', '.join(written)}", err=True)
    if interrupted:
        click.echo(f"benchmarks: interrupted, what was measured is in {folder}.", err=True)
    return recorded, interrupted


def exit_code(results: Sequence[Result]) -> int:
    """0 where something was measured and nothing is wrong; 1 where a network's output is; else what the refusals say."""
    codes = [result.exit_code for result in results if result.status == NOT_MEASURED]
    if 1 in codes:
        return 1
    measured = any(result.status != NOT_MEASURED for result in results)
    return 0 if measured else max(codes, default=0)


def gpu_is_here() -> bool:
    """Whether a GPU is visible to the CUDA runtime."""
    from slimexport.target.cuda.device import require_gpu
    from slimexport.target.errors import MissingBackend

    try:
        require_gpu()
    except MissingBackend:
        return False
    return True


def _names(text: str | None) -> tuple[str, ...]:
    """A comma-separated list of names."""
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _numbers(text: str, what: str, kind: Callable[[str], Any]) -> list[Any]:
    """A comma-separated list of numbers; UserError for anything else."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        example = "1,8,32" if kind is int else "0.25,1.0"
        raise UserError(f"--{what} {text}: expected numbers separated by commas, as in {example}.") from error


def _write(path: Path, text: str) -> None:
    from slimtrain.base.files import write_atomically

    write_atomically(path, (text.rstrip("\n") + "\n").encode())


def _command() -> str:
    """The command line, as a user would type it."""
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m benchmarks`: `choose` and `channels` are commands, everything else is measured."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--list"]:
        from benchmarks.listing import listing

        click.echo(listing())
    elif words[:1] == ["choose"]:
        choose(words[1:], prog_name="python -m benchmarks choose")
    elif words[:1] == ["channels"]:
        with messages(PROGRAM):
            from benchmarks.layers.command import command
        command(words[1:], prog_name="python -m benchmarks channels")
    else:
        measure(words, prog_name="python -m benchmarks")
