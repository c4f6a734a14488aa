"""The `python -m benchmarks` command: its options. What it does is in `commands`, which is loaded once they are read: numpy
takes longer to load than the help text to print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.cells.backends import AUTO, BACKENDS
from benchmarks.options import PERCENTILES, measuring_options
from slimtrain.base.command import CONTEXT, Command, as_started, messages, started_as
from slimtrain.base.process.streams import lasting_streams
from slimtrain.base.version import __version__

PROGRAM = "benchmarks"


@click.command("benchmarks", cls=Command, context_settings=CONTEXT)
@click.version_option(__version__, message="benchmarks %(version)s")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--backends", default=AUTO, metavar="LIST", help=f"auto, all, or some of {', '.join(BACKENDS)}.")
@click.option("--batches", default="1,8,32", metavar="LIST", help="Images per run.")
@measuring_options
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="FILE", help="A results.jsonl to compare with.  [default: none]"
)
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
      python -m benchmarks load exports/us_mobilenet_v1 --slo-ms 50
      python -m benchmarks --list

    Writes results.jsonl (raw samples), results.csv, report.md and plots. No clock or power setting is changed.

    Exit codes: 0 done; 1 a file computes something wrong; 2 usage or bad input; 3 the environment lacks something.
    """
    with messages(PROGRAM):
        from benchmarks import commands
        from benchmarks.request import MeasuringOptions

        code = commands.measure_bundles(bundles, backends, batches, MeasuringOptions(**options), baseline, not no_plots)
    sys.exit(code)


@click.command("choose", cls=Command, context_settings=CONTEXT)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--latency-ms", type=float, required=True, metavar="MS", help="The budget for one run of a whole batch.")
@click.option("--batch", type=int, default=1, metavar="N", help="Images per run.")
@click.option("--percentile", type=click.Choice(tuple(map(str, PERCENTILES))), default="50", help="Of the latencies.")
@click.option("--backend", default=AUTO, metavar="NAME", help="auto: the fastest that the bundle can use here.")
@measuring_options
@click.option("--json", "as_json", is_flag=True, help="Print the choice as JSON: path, latency, all candidates, warnings.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Choose from an earlier results.jsonl.  [default: measure]",
)
def choose(
    bundle: Path,
    latency_ms: float,
    batch: int,
    percentile: str,
    backend: str,
    results: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """The widest, or most accurate, width whose latency on this device is within a budget.

    \b
      python -m benchmarks choose exports/us_mobilenet_v1 --latency-ms 5 --batch 8 --percentile 95

    The most accurate where all widths know their accuracy, else the widest, of those within the budget in every round; its
    file's path is printed below it. Exit code 1 where none is: with the nearest misses, or because noise leaves it open.
    """
    with messages(PROGRAM):
        from benchmarks import commands
        from benchmarks.request import MeasuringOptions

        given = MeasuringOptions(**options)
        code = commands.choose_width(bundle, latency_ms, int(percentile), backend, batch, given, results, as_json)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m benchmarks`, or `slimbench`: `choose`, `channels` and `load` are commands, everything else is measured."""
    name = started_as(PROGRAM)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--list"]:
        from benchmarks.listing import listing

        lasting_streams()
        click.echo(as_started(listing()))
    elif words[:1] == ["choose"]:
        choose(words[1:], prog_name=f"{name} choose")
    elif words[:1] == ["channels"]:
        with messages(PROGRAM):
            from benchmarks.layers.command import command  # needs PyYAML, which measuring bundles does not
        command(words[1:], prog_name=f"{name} channels")
    elif words[:1] == ["load"]:
        from benchmarks.load.command import command as load

        load(words[1:], prog_name=f"{name} load")
    else:
        measure(words, prog_name=name)
