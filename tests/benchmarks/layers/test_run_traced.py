"""Latency tables of traced networks, with known times: by layer, as a whole, in a file, and at channels in between."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.layers.grid import INPUT, OUTPUT, entries, lines, plan_range
from benchmarks.layers.layer_models import lattice
from benchmarks.layers.run import WHOLE, Grid, LayerMeasurement, TimedDevice, Work, run_channels, title, whole_model
from slimtrain.costs.graph_layers import graph_layers
from slimtrain.costs.latency_table import LatencyTableError, read_latency_table, write_latency_table
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.tracing.slimmed import make_slimmable
from tests.support import channel_fakes
from tests.support.channel_fakes import FormulaTimer, model_ms
from tests.support.user_networks import SHAPE, network

SIZE = 16
DEVICE = TimedDevice("a formula", "onnxruntime-cpu", 1, 2, {})
NAMES = ("residual", "gate", "concatenation", "split", "grouped")


@cache
def traced(name: str) -> GraphSpec:
    spec = make_slimmable(network(name), torch.zeros(2, *SHAPE), name=name, order="none", check=False).spec
    assert isinstance(spec, GraphSpec)
    return spec


@cache
def measured(name: str) -> LayerMeasurement:
    return run_channels(Work(traced(name), SIZE, Grid(4, 8, 8, 0.1)), DEVICE, FormulaTimer())


def random_plans(spec: GraphSpec, count: int) -> list[ChannelPlan]:
    """In fours, for which probes are alike."""
    draw, low = np.random.default_rng(1), spec.plan(spec.range[0]).channels
    counts = {group: [*range(low[group], most, 4), most] for group, most in spec.groups.sizes.items()}
    return [ChannelPlan("mine", {group: int(draw.choice(few)) for group, few in counts.items()}) for _ in range(count)]


@pytest.fixture
def by_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula without steps, which tables with few points meet."""

    def smooth(kernel: int, inputs: int, outputs: int, groups: int, positions: int) -> float:
        return 1e-3 + 1e-7 * inputs * outputs * kernel**2 * positions

    monkeypatch.setattr(channel_fakes, "layer_ms", smooth)
    monkeypatch.setattr(channel_fakes, "linear_ms", lambda inputs, outputs: 2e-3 + 1e-7 * inputs * outputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("by_macs")
def test_whole_networks_are_predicted(name: str) -> None:
    """Their time is the sum of their operators', by the formula: what is left are probes. Groups shrink each by itself."""
    spec = traced(name)
    table = run_channels(Work(spec, SIZE, Grid(3, 8, 2, 0.1)), DEVICE, FormulaTimer()).table
    assert table.layers == graph_layers(spec) and len(table.settings[WHOLE]) == 3
    times = []
    for plan in random_plans(spec, 6):
        times.append(model_ms(whole_model(spec, plan, SIZE).make()))
        assert table.cost_ms(plan) == pytest.approx(times[-1], rel=0.02)
    assert max(times) > 1.1 * min(times)


@pytest.mark.parametrize("name", ["gate", "concatenation", "transformer"])
def test_a_table_survives_its_file(name: str, tmp_path: Path) -> None:
    spec, table = traced(name), measured(name).table
    write_latency_table(tmp_path / "t.json", table)
    again = read_latency_table(tmp_path / "t.json", spec, SIZE, "a formula")
    assert (again.layers, again.times, again.network) == (table.layers, table.times, table.network)
    plans = random_plans(spec, 3)
    assert [again.cost_ms(plan) for plan in plans] == [table.cost_ms(plan) for plan in plans]
    write_latency_table(tmp_path / "u.json", again)
    assert (tmp_path / "u.json").read_bytes() == (tmp_path / "t.json").read_bytes()


def test_every_plan_of_the_range_has_a_cost() -> None:
    for name in (*NAMES, "transformer"):
        spec, table = traced(name), measured(name).table
        for plan in (*random_plans(spec, 20), *plan_range(spec), spec.widest):
            assert table.cost_ms(plan) > 0
        with pytest.raises(LatencyTableError, match=r"measured are .* channels MODEL --range LOW:HIGH \(MODEL: its"):
            table.cost_ms(ChannelPlan("mine", dict.fromkeys(spec.groups.sizes, 1)))


@pytest.mark.parametrize("name", [*NAMES, "transformer", "shuffle", "standardized"])
def test_every_layer_has_an_entry_that_spans_all_plans(name: str) -> None:
    spec = traced(name)
    layers, of_layer, grid_entries = entries(spec, SIZE, 4)
    assert layers == graph_layers(spec)
    for layer, place in zip(layers, of_layer, strict=True):
        entry = grid_entries[place]
        assert layer.name in entry.names and (entry.outputs is None) == layer.single
        for plan in plan_range(spec):
            assert entry.inputs[0] <= plan.size(layer.inp) <= entry.inputs[-1]
            outputs = entry.outputs or entry.inputs
            assert outputs[0] <= plan.size(layer.out) <= outputs[-1]
        for axis, counts in ((INPUT, entry.inputs), (OUTPUT, entry.outputs or ())):
            assert all(entry.can_have(axis, count) for count in counts) and len(counts) <= 4


def test_layers_that_differ_in_names_alone_are_measured_once() -> None:
    grid_entries = entries(traced("residual"), SIZE, 4)[2]
    shared = [set(entry.names) for entry in grid_entries if len(entry.names) > 1]
    assert {"body.1.conv1.0", "body.2.conv1.0"} in shared


def test_lines_follow_one_group_and_say_which_layer() -> None:
    work = Work(traced("gate"), SIZE, Grid(4, 4, 8, 0.1))
    staircases = measured("gate").staircases
    kinds = {(line.entry.layer.kind, line.axis): line.counts for line in lines(work.entries, 4, 8)}
    assert kinds["depthwise conv2d 3x3", INPUT] == (8, 12, 16)
    assert all(title(stairs).startswith(f"{stairs.line.entry.layer.name}, ") for stairs in staircases)


def test_channels_that_can_be_measured() -> None:
    low, high = {"a": 8, "b": 2}, {"a": 32, "b": 6}
    assert dict(lattice(3, low, high)) == {3: {}}
    assert dict(lattice(Dim((("b", 64),)), low, high)) == {64 * slots: {"b": slots} for slots in range(2, 7)}
    both = lattice(Dim((("a", 1), ("b", 4))), low, high)
    assert (min(both), max(both)) == (16, 56)
    for total, slots in both.items():
        assert slots["a"] + 4 * slots["b"] == total
        assert abs((slots["a"] - 8) / 24 - (slots["b"] - 2) / 4) < 0.15  # both are narrowed alike
