"""Measuring a network's layers over channels, and the latency table that comes out. See `layers.command` for the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cells.statistics import OTHER_LOAD
from benchmarks.layers.grid import OUTPUT, GridEntry, StaircaseLine, entries, lines, three_plans
from benchmarks.layers.layer_times import LayerTime, measure_layer, models_of
from benchmarks.layers.model_timer import REPEATS, WARMUP_S, Model, Sample, Timer
from benchmarks.layers.steps import find_step
from benchmarks.measure.method import Method
from benchmarks.measure.progress import OnProgress
from benchmarks.measure.rounds import schedule
from benchmarks.onnx_models.network import network_model
from slimexport.target.precision import EXACT
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.costs.graph_layers import GraphLayer
from slimtrain.costs.latency_grid import Axis, Times
from slimtrain.costs.latency_table import LatencyTable, NetworkShape
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec

NETWORK_SHARE = 10  # a whole network is measured so many times as long as a layer
LOADING_S = 0.03  # to write and load a model
DRIFT = 0.1
WHOLE = "whole_networks"  # in a table's settings: the networks that `constant_ms` and `factor` come from
SANE = (0.8, 1.5)  # of a table's factor


@dataclass(frozen=True)
class Grid:
    """What to measure. `points`: counts per dimension of the table, about. `unit`: channels between the counts of the
    staircases, `line` of them. `duration_s`: for each model, in all rounds."""

    points: int = 6
    unit: int = 8
    line: int = 24
    duration_s: float = 0.1


@dataclass(frozen=True)
class TimedDevice:
    """What it is measured on: `name`, and whatever else identifies it."""

    name: str
    backend: str
    batch: int
    threads: int | None
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Staircase:
    """A measured line, and its step (1: none seen)."""

    line: StaircaseLine
    times: tuple[LayerTime, ...]
    step: int


@dataclass(frozen=True)
class LayerMeasurement:
    """`table`, the `staircases`, and what a reader of both has to know."""

    table: LatencyTable
    staircases: tuple[Staircase, ...]
    notes: tuple[str, ...]


class Work:
    """Everything that is to be measured for a network at an image size."""

    def __init__(self, spec: WidthSpec, image_size: ImageSize, grid: Grid) -> None:
        self.spec, self.image_size, self.grid = spec, image_size, grid
        self.layers, self.of_layer, self.entries = entries(spec, image_size, grid.points)
        self.lines = lines(self.entries, grid.unit, grid.line)
        self.plans = three_plans(spec)

    @property
    def models(self) -> int:
        """How many models of single layers that takes."""
        tables = sum(models_of(entry.models, entry.points) for entry in self.entries)
        return tables + sum(models_of(line.entry.models, line.points) for line in self.lines)

    @property
    def expected_s(self) -> float:
        """About how long that takes, without loading large models."""
        turns = len(schedule(2, REPEATS)) / 2
        networks = 2 * len(self.plans) * (NETWORK_SHARE * self.grid.duration_s + turns * WARMUP_S)
        return networks + self.models * (self.grid.duration_s + turns * WARMUP_S + LOADING_S)


def whole_model(spec: WidthSpec, plan: ChannelPlan, image_size: ImageSize) -> Model:
    """A network of a plan, with random weights."""
    if isinstance(spec, NetworkSpec):
        return Model(image_size, partial(network_model, spec, plan, image_size), spec.in_channels)
    from benchmarks.onnx_models import part

    assert isinstance(spec, GraphSpec)
    return Model(image_size, partial(part.network_model, spec, plan), spec.in_channels)


def run_channels(
    work: Work,
    device: TimedDevice,
    timer: Timer,
    *,
    taken: Callable[[str, GridEntry, LayerTime], None] = lambda purpose, entry, time: None,
    progress: OnProgress = lambda doing, done, total: None,
) -> LayerMeasurement:
    """Measure `work` with `timer`. `taken` is told of every layer's time at once, with its purpose, `table` or `staircase`;
    `progress` what is being measured, and how many of how many models are done.

    Raises NotMeasured where a model does not run, KeyboardInterrupt on Ctrl-C: what `taken` was told is then all there is.
    """
    duration_s, total = work.grid.duration_s, work.models
    networks = {plan: whole_model(work.spec, plan, work.image_size) for plan in work.plans}
    progress("whole networks", 0, total)
    before = timer(networks, NETWORK_SHARE * duration_s)
    done = 0
    staircases = []
    for line in work.lines:
        progress(f"staircase of {line.entry.layer.name}", done, total)
        by_point = measure_layer(timer, line.entry.models, line.points, duration_s, partial(taken, "staircase", line.entry))
        times = tuple(by_point[point] for point in line.points)
        step = find_step(line.counts, [time.ms for time in times], [time.noise_ms for time in times])
        staircases.append(Staircase(line, times, step))
        done += models_of(line.entry.models, line.points)
    grids = []
    for entry in work.entries:
        progress(entry.layer.name, done, total)
        by_point = measure_layer(timer, entry.models, entry.points, duration_s, partial(taken, "table", entry))
        grids.append(_times(entry, by_point, _steps(staircases, entry)))
        done += models_of(entry.models, entry.points)
    progress("whole networks again", done, total)
    after = timer(networks, NETWORK_SHARE * duration_s)
    table = LatencyTable(
        network=NetworkShape.of(work.spec, work.image_size),
        device={"name": device.name},
        backend=device.backend,
        precision=EXACT,
        batch=device.batch,
        threads=device.threads,
        layers=work.layers,
        of_layer=work.of_layer,
        times=tuple(grids),
        constant_ms=0.0,
        environment=device.environment,
    )
    measured = [(before[plan].ms + after[plan].ms) / 2 for plan in work.plans]
    settings = {
        **timer.settings,
        "grid": vars(work.grid),
        "method": vars(Method(duration_s, REPEATS, WARMUP_S)),
        WHOLE: [
            {"name": plan.name, "channels": dict(plan.channels), "ms": ms}
            for plan, ms in zip(work.plans, measured, strict=True)
        ],
    }
    table = fitted(replace(table, settings=settings), work.plans, measured)
    return LayerMeasurement(table, tuple(staircases), tuple(_notes(work.plans, before, after, staircases, table)))


def _steps(staircases: Sequence[Staircase], entry: GridEntry) -> dict[str, int]:
    """The step of each axis, as seen on the layer that was measured finely for all of this kind."""
    return {stairs.line.axis: stairs.step for stairs in staircases if stairs.line.entry.layer.alike == entry.layer.alike}


def _times(entry: GridEntry, measured: Mapping[tuple[int, int], LayerTime], steps: Mapping[str, int]) -> Times:
    """A table's entry. A difference below zero is noise about a time that is nearly nothing."""
    inputs = Axis(entry.inputs, steps.get("input", 1))
    if entry.outputs is None:
        return Times(inputs, None, tuple((_rounded(measured[count, count].ms),) for count in entry.inputs))
    rows = tuple(tuple(_rounded(measured[inp, out].ms) for out in entry.outputs) for inp in entry.inputs)
    return Times(inputs, Axis(entry.outputs, steps.get(OUTPUT, 1)), rows)


def _rounded(ms: float) -> float:
    return round(max(0.0, ms), 7)


def fitted(table: LatencyTable, plans: Sequence[ChannelPlan], measured_ms: Sequence[float]) -> LatencyTable:
    """`table` with the `constant_ms` and `factor` that predict the latency of whole networks best."""
    constant_ms, factor = fit_line([sum(table.layers_ms(plan)) for plan in plans], measured_ms)
    return replace(table, constant_ms=round(constant_ms, 7), factor=round(factor, 6))


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(constant, factor), neither below zero, with the least squares of relative errors of constant + factor * x for y > 0.

    One point, or points of one x, fix the factor alone.
    """
    ratio, inverse = np.asarray(x, np.float64) / np.asarray(y), 1 / np.asarray(y, np.float64)
    through_zero = 0.0, float(ratio.sum() / (ratio @ ratio))
    if len(set(x)) < 2:
        return through_zero
    (constant, factor), *_ = np.linalg.lstsq(np.stack([inverse, ratio], 1), np.ones(len(ratio)), rcond=None)
    if constant < 0:
        return through_zero
    return float(constant), max(0.0, float(factor))


def _notes(
    plans: Sequence[ChannelPlan],
    before: Mapping[ChannelPlan, Sample],
    after: Mapping[ChannelPlan, Sample],
    staircases: Sequence[Staircase],
    table: LatencyTable,
) -> list[str]:
    """Reasons to doubt the figures."""
    notes = []
    load = table.environment.get("other_load") or 0
    if load > OTHER_LOAD:
        notes.append(f"other processes kept {load:.1f} cores busy when this began. Stop them and measure again.")
    drift = max((after[plan].ms / before[plan].ms - 1 for plan in plans), key=abs)
    if abs(drift) > DRIFT:
        notes.append(
            f"the machine drifted: whole networks took {drift:+.0%} at the end of the run against its beginning. Measure "
            "again on a quieter machine."
        )
    noise = np.median([time.noise_ms / max(time.ms, 1e-6) for stairs in staircases for time in stairs.times] or [0.0])
    if noise > DRIFT:
        notes.append(f"noisy: the rounds of half of the layers differ by more than {noise:.0%}. Measure longer (--duration).")
    if not SANE[0] <= table.factor <= SANE[1]:
        notes.append(
            f"whole networks take {table.factor:.2f} times what their layers do, expected about 1: something slowed one of "
            "them down. Measure again."
        )
    return notes


def title(stairs: Staircase) -> str:
    """A line's layer: `features.7.body.3, 1x1 at 14x14`."""
    layer = stairs.line.entry.layer
    if isinstance(layer, GraphLayer):
        return f"{layer.name}, {layer.kind} of {layer.reads}"
    if layer.kind == "linear":
        return f"{layer.name}, linear"
    kind = "depthwise " if layer.kind == "depthwise" else ""
    stride = f" stride {layer.stride}" if layer.stride > 1 else ""
    return f"{layer.name}, {kind}{layer.kernel}x{layer.kernel}{stride} at {'x'.join(map(str, sides(layer.size)))}"
