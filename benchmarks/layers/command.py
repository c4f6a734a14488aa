"""`python -m benchmarks channels`: how long a network's layers take at other numbers of channels, and where that steps.

Measures single layers of a network, in its own shapes, over a grid of channel counts; writes the latency table that a search
can use as its cost, the staircases as pictures, and says in words where time steps.
"""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.cells.backends import BACKENDS, CPU, CUDA, ONNXRUNTIME_CPU
from benchmarks.layers.grid import GridEntry
from benchmarks.layers.layer_times import LayerTime
from benchmarks.layers.model_timer import TABLE_BACKENDS, ModelTimer
from benchmarks.layers.plots import draw
from benchmarks.layers.run import Grid, LayerMeasurement, TimedDevice, Work, run_channels, title
from benchmarks.layers.sources import find_network
from benchmarks.layers.steps import sentence
from benchmarks.machine.environment import command_line, environment
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.threads import pinned
from slimexport.target.cuda.device import device_name
from slimtrain.base.command import CONTEXT, INTERRUPTED, Command, messages
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.files import Advice, disk_error
from slimtrain.base.growing import GrowingFile
from slimtrain.base.image_size import ImageSize, as_image_size, format_size
from slimtrain.base.text import count
from slimtrain.costs.graph_layers import GraphLayer
from slimtrain.costs.latency_table import write_latency_table
from slimtrain.graph.policy import POLICIES, POLICY_TEXTS
from slimtrain.models.spec import MOST_IMAGE_CHANNELS

TABLE, ROWS = "latency_table.json", "channels.csv"
OUTPUT = Path("measured")
ADVICE = Advice("What was measured before stays. Free some space and run again.", "Choose another --output-dir.")
OF_THE_NETWORK = ("image_size", "in_channels", "classes", "stem_stride", "widths", *POLICIES)  # which network it is
LAYER_COLUMNS = ("name", "kind", "kernel", "stride", "side")


class Rows:
    """`channels.csv`, written line by line: what was measured before Ctrl-C stays. For a `with` block."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(path, error, ADVICE) from error
        self.file = GrowingFile(path, ADVICE)
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(("purpose", *LAYER_COLUMNS, *(column.name for column in fields(LayerTime))))

    def add(self, purpose: str, entry: GridEntry, time: LayerTime) -> None:
        shape = entry.layer
        if isinstance(shape, GraphLayer):  # `kind` says kernel and stride
            layer: list[object] = [shape.name, shape.kind, "", "", shape.reads]
        else:
            layer = [shape.name, shape.kind, shape.kernel, shape.stride, format_size(shape.size)]
        self.writer.writerow((purpose, *layer, *(getattr(time, column.name) for column in fields(LayerTime))))
        self.count += 1

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *ended: Any) -> None:
        self.file.__exit__(*ended)


def summary_lines(measured: LayerMeasurement) -> list[str]:
    """Where time steps, a line for each staircase, and what to doubt."""
    said = []
    for stairs in measured.staircases:
        text = sentence(
            [*stairs.line.counts],
            [time.ms for time in stairs.times],
            [time.noise_ms for time in stairs.times],
            stairs.step,
            stairs.line.what,
        )
        said.append(f"{title(stairs)}: {text}")
    table = measured.table
    said.append(
        f"a network takes {table.constant_ms:.3g} ms + {table.factor:.3f} x the sum of its {len(table.layers)} layers' times"
    )
    return [*said, *measured.notes]


def this_device(backend: str, batch: int, threads: int | None) -> TimedDevice:
    """The CPU or GPU that `backend` runs on here, with the environment."""
    here = environment()
    name = here["cpu"]
    if BACKENDS[backend].device == CUDA:
        name = device_name()
    return TimedDevice(str(name or "unknown"), backend, batch, threads, here)


def _range(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split(":"))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected LOW:HIGH, as in 0.15:1.5.") from None
    if not 0 < low < high < float("inf"):
        raise click.BadParameter(f"{value!r}: expected LOW below HIGH, both above 0, as in 0.15:1.5.")
    return low, high


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> ImageSize | None:
    try:
        return None if value is None else as_image_size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def _policy_options(decorated: Any) -> Any:
    """What is narrowed of a module where there is a choice."""
    for name, text in reversed(POLICY_TEXTS.items()):
        flag, (usual, *_) = f"--{name.replace('_', '-')}", POLICIES[name]
        said = f"Of a module. {text}  [default: {usual}]"
        decorated = click.option(flag, name, type=click.Choice(POLICIES[name]), help=said)(decorated)
    return decorated


@click.command("channels", cls=Command, context_settings=CONTEXT)
@click.argument("network", metavar="NETWORK")
@click.option("--backend", type=click.Choice(TABLE_BACKENDS), default=ONNXRUNTIME_CPU, help="What runs the layers.")
@click.option("--batch", type=click.IntRange(1), default=1, metavar="N", help="Images per run.")
@click.option(
    "--image-size",
    callback=_size,
    metavar="SIZE",
    help="Pixels a side, or height and width as in 256x192.  [default: the bundle's, or 224]",
)
@click.option(
    "--in-channels",
    type=click.IntRange(1, MOST_IMAGE_CHANNELS),
    metavar="N",
    help="Of the images: 1 is gray.  [default: the bundle's, or 3]",
)
@click.option("--classes", type=click.IntRange(1), metavar="N", help="Of the last layer.  [default: the bundle's, or 1000]")
@click.option(
    "--stem-stride", type=click.IntRange(1, 2), metavar="N", help="1 for small images.  [default: the bundle's, or 2]"
)
@click.option(
    "--range", "widths", callback=_range, metavar="LOW:HIGH", help="Widths of a US network.  [default: as published]"
)
@_policy_options
@click.option("--points", type=click.IntRange(2), default=Grid.points, metavar="N", help="Counts per dimension.")
@click.option(
    "--unit",
    type=click.IntRange(1),
    default=Grid.unit,
    metavar="N",
    help="Channels between staircase counts.",
)
@click.option("--line", type=click.IntRange(2), default=Grid.line, metavar="N", help="Counts per staircase.")
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    default=Grid.duration_s,
    metavar="S",
    help="Per model, all rounds.",
)
@click.option("--threads", type=int, metavar="N", help="On CPUs.  [default: one per physical core]")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), metavar="DIR", help="Of the table.  [default: measured/channels_NETWORK]"
)
@click.option("--overwrite", is_flag=True, help="Replace a table that is there.")
@click.option("--no-plots", is_flag=True, help="Write no pictures.")
def command(network: str, output_dir: Path | None, overwrite: bool, no_plots: bool, **options: Any) -> None:
    """Where latency steps as a network's layers lose channels, and the latency table that a search uses as its cost.

    \b
      python -m benchmarks channels us_mobilenet_v1
      python -m benchmarks channels us_mobilenet_v2 --range 0.15:1.5
      python -m benchmarks channels exports/us_mobilenet_v1 --batch 8 --unit 2 --line 48
      python -m benchmarks channels runs/mine/us_mobilenet_v3_small.pt
      python -m benchmarks channels timm:regnetx_002 --image-size 64 --classes 10

    NETWORK is a published network, a bundle of one, a checkpoint, or a module: torchvision:NAME, timm:NAME,
    package.module:function. The layers of a module are its convolutions, linear layers, products, attentions and
    concatenations, each with all that is computed from it up to the next; measuring them needs torch.

    Writes latency_table.json, channels.csv and staircase_*.png. Needs the onnx package, for published networks no torch. No
    clock or power setting is changed.
    """
    with messages("benchmarks"):
        spec, size = find_network(network, **{name: options[name] for name in OF_THE_NETWORK})
        folder = output_dir or OUTPUT / f"channels_{spec.name}"
        if (folder / TABLE).exists() and not overwrite:
            raise UserError(
                f"{folder / TABLE}: is there already. Choose another --output-dir, or replace it with --overwrite."
            )
        require_onnx()
        grid = Grid(options["points"], options["unit"], options["line"], options["duration"])
        measured, written = _measure(Work(spec, size, grid), options["backend"], options["batch"], options["threads"], folder)
        _report(measured, folder, written, plots=not no_plots)


def require_onnx() -> None:
    """ResourceError where the models that are measured cannot be written."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            f"onnx is not installed, or does not load ({error}): pip install onnx. Layers are measured as ONNX files."
        ) from error


def _measure(work: Work, backend: str, batch: int, threads: int | None, folder: Path) -> tuple[LayerMeasurement, list[str]]:
    """Measure `work` and write the table and all times into `folder`: what was measured, and the names of both files."""
    with ExitStack() as stack:
        pinning = stack.enter_context(pinned(threads))
        timer = ModelTimer(backend, batch, pinning["threads"])
        device = this_device(backend, batch, pinning["threads"] if BACKENDS[backend].device == CPU else None)
        models = f"{count(work.models, 'model')} of {count(len(work.entries), 'different layer')}"
        click.echo(
            f"{work.spec.name} at {format_size(work.image_size)} px: {models}, {work.grid.duration_s:g} s each: about "
            f"{work.expected_s / 60:.1f} min",
            err=True,
        )
        rows = stack.enter_context(Rows(folder / ROWS))
        progress = stack.enter_context(RoundProgress())
        try:
            measured = run_channels(work, device, timer, taken=rows.add, progress=progress)
        except KeyboardInterrupt:
            click.echo(
                f"benchmarks: interrupted; the {rows.count} layer times that were measured are in {folder / ROWS}, too few "
                f"for a {TABLE}.",
                err=True,
            )
            sys.exit(INTERRUPTED)
    settings = {**measured.table.settings, "command": command_line()}
    write_latency_table(folder / TABLE, replace(measured.table, settings=settings))
    return measured, [TABLE, ROWS]


def _report(measured: LayerMeasurement, folder: Path, written: list[str], plots: bool) -> None:
    """Draw the staircases and say what there is to see; `written` are the names of the files that are there already."""
    if plots:
        try:
            written = [*written, *(path.name for path in draw(measured, folder))]
        except UserError as error:
            click.echo(f"no plots: {error}", err=True)
    click.echo("\n".join(summary_lines(measured)))
    click.echo(f"{folder}: {', '.join(written)}", err=True)
