"""At which channel counts layers are measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.layers.grid import INPUT, OUTPUT, entries, lines, plan_range, spread_counts, three_plans
from slimtrain.costs.layer_shapes import layer_shapes
from slimtrain.models.published import PUBLISHED, published_spec
from slimtrain.models.spec import NetworkSpec


@pytest.mark.parametrize(
    ("low", "high", "points", "expected"),
    [
        (8, 32, 6, (8, 16, 24, 32)),
        (3, 3, 6, (3,)),
        (256, 1024, 6, (256, 384, 576, 704, 896, 1024)),
        (12, 120, 2, (12, 120)),
        (9, 1500, 4, (9, 512, 1024, 1500)),
        (7, 9, 8, (7, 8, 9)),
    ],
)
def test_counts_are_spread_from_end_to_end(low: int, high: int, points: int, expected: tuple[int, ...]) -> None:
    assert spread_counts(low, high, points) == expected


def test_counts_are_always_rising_and_hold_both_ends() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        low = int(draw.integers(1, 300))
        high, points = low + int(draw.integers(0, 1200)), int(draw.integers(2, 12))
        counts = spread_counts(low, high, points)
        assert (counts[0], counts[-1]) == (low, high) and list(counts) == sorted(set(counts)) and len(counts) <= points


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layer_has_an_entry_that_spans_all_plans(name: str) -> None:
    spec = published_spec(name)
    layers, of_layer, grid_entries = entries(spec, 64, 5)
    assert layers == layer_shapes(spec, 64) and len(of_layer) == len(layers)
    for layer, place in zip(layers, of_layer, strict=True):
        entry = grid_entries[place]
        assert layer.name in entry.names
        same = ("kind", "kernel", "stride", "size", "activation")
        assert [getattr(layer, key) for key in same] == [getattr(entry.layer, key) for key in same]
        for plan in plan_range(spec):
            assert entry.inputs[0] <= plan.size(layer.inp) <= entry.inputs[-1]
            if entry.outputs is not None:
                assert entry.outputs[0] <= plan.size(layer.out) <= entry.outputs[-1]
    assert len({name for entry in grid_entries for name in entry.names}) == len(layers)


def test_counts_reach_the_ends_of_a_range_whatever_widths_have_statistics() -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (0.5, 0.7), 10, width_range=(0.15, 1.5))
    _, _, grid_entries = entries(spec, 64, 4)
    last = grid_entries[-1]
    assert (last.inputs[0], last.inputs[-1]) == (spec.plan(0.15).channels["features.13"], 1536) == (152, 1536)


def test_each_kind_of_layer_has_a_line_along_each_axis() -> None:
    _, _, grid_entries = entries(published_spec("us_mobilenet_v1"), 224, 6)
    kinds = {(*line.entry.layer.alike, line.axis) for line in lines(grid_entries, 8, 24)}
    assert kinds == {
        ("conv", 3, 2, OUTPUT),
        ("conv", 1, 1, INPUT),
        ("conv", 1, 1, OUTPUT),
        ("depthwise", 3, 1, INPUT),
        ("depthwise", 3, 2, INPUT),
        ("linear", 1, 1, INPUT),
    }
    for line in lines(grid_entries, 8, 24):
        assert len(line.counts) <= 24 and len(set(np.diff(line.counts))) == 1 and line.counts[0] % 8 == 0
        fixed = {(out if line.axis == INPUT else inp) for inp, out in line.points}
        assert line.entry.outputs is None or len(fixed) == 1


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50"])
def test_three_plans_are_the_ends_and_the_middle(name: str) -> None:
    spec = published_spec(name)
    plans = three_plans(spec)
    total = [sum(plan.channels.values()) for plan in plans]
    assert len(plans) == 3 and total == sorted(total)
    every = [sum(plan.channels.values()) for plan in spec.plans]
    assert (total[0], total[-1]) == (min(every), max(every))
    one = NetworkSpec("mobilenet_v1", "s", (0.5,))
    assert three_plans(one) == [one.plan(0.5)]
