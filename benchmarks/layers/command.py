"""`python -m benchmarks channels`: how long a network's layers take at other numbers of channels, and where that steps.

Measures single layers of a network, in its own shapes, over a grid of channel counts; writes the latency table that a search
can use as its cost, the staircases as pictures, and says in words where time steps.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
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
from benchmarks.layers.steps import sentence
from benchmarks.machine.environment import command_line, environment
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.threads import pinned
from slimexport.target.cuda.device import device_name
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, read_manifest
from slimtrain.base.command import CONTEXT, INTERRUPTED, Command, messages
from slimtrain.base.errors import ResourceError, UserError, nearest
from slimtrain.base.image_size import ImageSize, as_image_size, format_size
from slimtrain.base.text import count
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.latency_table import write_latency_table
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.registry import network_names
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS, NetworkSpec

TABLE, ROWS = "latency_table.json", "channels.csv"
OUTPUT = Path("measured")
STEM_STRIDES = (2, 1)
DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE = 1000, 224
OF_THE_NETWORK = ("image_size", "in_channels", "classes", "stem_stride", "widths")  # options that say which network it is
LAYER_COLUMNS = ("name", "kind", "kernel", "stride", "side")


def find_network(
    name: str,
    *,
    image_size: ImageSize | None = None,
    in_channels: int | None = None,
    classes: int | None = None,
    stem_stride: int | None = None,
    widths: tuple[float, float] | None = None,
) -> tuple[NetworkSpec, ImageSize]:
    """The network called `name`, or the one of a bundle's folder, and the image size. What is not given is as published, or as
    in the bundle. `widths`: narrowest and widest of a universally slimmable network.

    Raises UserError for what is neither, BundleError for a damaged bundle.
    """
    plan_channels: Mapping[str, int] = {}
    macs = None
    if name not in network_names():
        folder = Path(name)
        if not (folder / MANIFEST).is_file():
            raise UserError(
                f"{name!r}: neither a network{nearest(name, network_names())} nor a bundle's folder with a {MANIFEST}. "
                f"The networks are {', '.join(network_names())}."
            )
        manifest = read_manifest(folder)
        if not manifest.artifacts:
            raise BundleError(f"{folder / MANIFEST}: names no files. The manifest is damaged, export again.")
        name, size, own_classes = manifest.source.network, manifest.input.image_size, manifest.output.classes
        image_size = size if image_size is None else image_size
        classes = own_classes if classes is None else classes
        own_channels = manifest.input.channels
        in_channels = own_channels if in_channels is None else in_channels
        plan_channels, macs = manifest.artifacts[0].channels, manifest.artifacts[0].macs
    spec = published_spec(name, DEFAULT_CLASSES if classes is None else classes)
    if widths is not None:
        if spec.family != "us":
            raise UserError(f"--range: {name} has no range of widths, it has {spec.describe_widths()}.")
        middle = tuple(width for width in spec.switches if widths[0] < width < widths[1])
        spec = replace(spec, switches=(widths[0], *middle, widths[1]), width_range=widths)
    if stem_stride is None and macs is not None:
        own = replace(spec, classes=own_classes, in_channels=own_channels)
        stem_stride = _stem_stride(own, plan_channels, macs, size, name)
    spec = replace(spec, stem_stride=stem_stride or STEM_STRIDES[0], in_channels=in_channels or IMAGE_CHANNELS)
    image_size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    spec.check_image_size(image_size)
    return spec, image_size


def _stem_stride(spec: NetworkSpec, channels: Mapping[str, int], macs: int, image_size: ImageSize, name: str) -> int:
    """The stride that gives a bundle's network its MACs: the manifest does not name it."""
    plan = ChannelPlan("bundle", channels)
    for stride in STEM_STRIDES:
        try:
            if CostCounter(replace(spec, stem_stride=stride), image_size)(plan).macs == macs:
                return stride
        except KeyError:
            break
    raise UserError(
        f"this bundle's {name} is not the published one: its channels and MACs are of another network. Name one of "
        f"{', '.join(network_names())} instead, with --range, --classes, --in-channels and "
        "--image-size."
    )


class Rows:
    """`channels.csv`, written line by line: what was measured before Ctrl-C stays. For a `with` block."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}). Choose another --output-dir.") from error
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(("purpose", *LAYER_COLUMNS, *(column.name for column in fields(LayerTime))))

    def add(self, purpose: str, entry: GridEntry, time: LayerTime) -> None:
        shape = entry.layer
        layer = [shape.name, shape.kind, shape.kernel, shape.stride, format_size(shape.size)]
        self.writer.writerow((purpose, *layer, *(getattr(time, column.name) for column in fields(LayerTime))))
        self.file.flush()
        self.count += 1

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *ended: object) -> None:
        self.file.close()


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


@click.command("channels", cls=Command, context_settings=CONTEXT)
@click.argument("network", metavar="NETWORK_OR_BUNDLE")
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

    Writes latency_table.json, channels.csv and staircase_*.png. Needs the onnx package, no torch. No clock or power setting
    is changed.
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
