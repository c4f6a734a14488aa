"""What plans cost in a search, and targets of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import cost_model, format_cost, parse_targets, target_name
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.slimming import Slimming
from tests.support.dense_costs import measured_cost
from tests.support.search_toys import RESNET, V1, V2, Priced


@pytest.mark.parametrize("spec", [V1, V2, RESNET])
@pytest.mark.parametrize("kind", ["macs", "params", "activations"])
def test_counted_costs(spec: NetworkSpec, kind: str) -> None:
    slimming, cost = Slimming(spec), cost_model(kind, spec, 64)
    for plan in (slimming.start, slimming.steps(slimming.start)[3], slimming.floor):
        assert cost(plan) == getattr(measured_cost(spec, plan, 64), kind)
    assert cost.name == kind


def test_macs_leave_out_the_pools() -> None:
    spec = published_spec("us_mobilenet_v1")
    cost, whole = cost_model("macs", spec, 224), CostCounter(spec, 224)(spec.widest)
    assert cost(spec.widest) == whole.macs == whole.published_macs - 1024 * 7 * 7


def test_costs_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"cost 'mac': not known \(did you mean 'macs'\?\)"):
        cost_model("mac", V1, 32)
    with pytest.raises(UserError, match=r"needs a table of the device.*python -m benchmarks channels"):
        cost_model("latency", V1, 32)
    with pytest.raises(UserError, match=r"t.json: a latency table, but the cost is macs"):
        cost_model("macs", V1, 32, Path("t.json"))


@pytest.mark.parametrize(
    ("text", "cost", "expected"),
    [
        ("150M,325M, 572m", "macs", [572e6, 325e6, 150e6]),
        ("1.5G", "macs", [1.5e9]),
        ("570M,1G,570M", "macs", [1e9, 570e6]),
        ("2.5K", "params", [2500.0]),
        ("12000", "activations", [12000.0]),
        ("5.0,2.5", "latency", [5.0, 2.5]),
        ("5ms, 7.25 MS", "latency", [7.25, 5.0]),
    ],
)
def test_targets_as_they_are_written(text: str, cost: str, expected: list[float]) -> None:
    assert parse_targets(text, cost) == expected


@pytest.mark.parametrize(
    ("text", "cost", "message"),
    [
        ("150X", "macs", "macs target '150X': not a number"),
        ("", "macs", "macs target '': not a number"),
        ("150M,,", "params", "params target '': not a number"),
        ("-5M", "macs", "macs target -5: expected a positive"),
        ("5M", "latency", "latency target '5M': not a number"),
        ("nan", "latency", "expected a positive number"),
        ("0", "latency", "expected a positive number"),
    ],
)
def test_targets_that_are_none(text: str, cost: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_targets(text, cost)


MS = Priced("latency", "ms")


@pytest.mark.parametrize(
    ("target", "cost", "name", "text"),
    [
        (150e6, Priced(), "macs_150M", "150M MACs"),
        (1.5e9, Priced(), "macs_1_5G", "1.5G MACs"),
        (999999.0, Priced(), "macs_999_999K", "1000K MACs"),
        (532.0, Priced("params", "parameters"), "params_532", "532 parameters"),
        (2.5, MS, "latency_2_5ms", "2.5 ms"),
        (0.05, MS, "latency_0_05ms", "0.05 ms"),
        (1200.0, MS, "latency_1200ms", "1200 ms"),
    ],
)
def test_names_of_targets(target: float, cost: Priced, name: str, text: str) -> None:
    assert target_name(target, cost) == name
    assert format_cost(target, cost) == text
