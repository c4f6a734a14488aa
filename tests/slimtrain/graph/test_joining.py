"""Graphs joined: what they compute together, what they are called, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.graph.extents import Slimmed, WiredGraph
from slimtrain.graph.graph import Batch, Graph, Value
from slimtrain.graph.joining import Part, joined
from slimtrain.groups.groups import find_groups
from slimtrain.slimmable.program import Program
from slimtrain.tracing.slimmed import trace


class Interrupted(nn.Module):
    """Its second output needs what somebody makes of its first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        late = self.second(chosen)  # stands before what it waits for
        return {"early": self.first(images), "late": late}


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class Slims(Slimmed):
    """Half of six channels."""

    groups = frozenset({"g"})

    def active(self, channels: Mapping[str, int]) -> int:
        return 3

    def positions(self, channels: Mapping[str, int]) -> slice:
        return slice(3)


def between() -> Graph:
    return trace(Calls(lambda self, x: {"chosen": x.relu() + self.shift, "same": x}), torch.zeros(2, 6)).graph


@pytest.fixture(scope="module")
def network() -> Interrupted:
    torch.manual_seed(0)
    return Interrupted().eval()


def test_a_graph_runs_on_where_another_gives_what_it_waits_for(network: Interrupted) -> None:
    traced = trace(network, (torch.zeros(2, 4), torch.zeros(2, 6)))
    ends = {"late": ("net", "late"), "passed": ("mid", "same"), "early": ("net", "early")}
    (taken,) = (name for name, _ in between().inputs)
    wires = {("net", "chosen"): ("mid", "chosen"), ("mid", taken): ("net", "early")}
    whole = joined({"net": Part(traced.graph), "mid": Part(between())}, wires, {"pixels": ("net", "images")}, ends).graph
    assert [name for name, _ in whole.inputs] == ["pixels"] and whole.form.names == ("late", "passed", "early")
    assert {p.name for p in whole.parameters} == {*dict(network.named_parameters()), "mid.shift"}
    assert {node.name.startswith("mid_") for node in whole.nodes if node.module == "mid"} == {True}
    tensors = dict(traced.tensors) | {name: torch.from_numpy(array) for name, array in whole.constants.items()}
    images = torch.randn(5, 4)
    late, passed, early = Program.full(whole).run([images], tensors)
    with torch.no_grad():
        expected = network.first(images)
        assert torch.equal(early, expected) and torch.equal(passed, expected)
        assert torch.equal(late, network.second(expected.relu() + torch.arange(1.0, 7.0)))


def test_dimensions_of_a_plan_stay_its_own() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            inside = self.first(images)
            return {"inside": inside, "end": self.second(inside)}

    graph = trace(Narrow(), torch.zeros(2, 4)).graph
    groups = find_groups(graph)
    after = Part(trace(Calls(lambda self, x: {"twice": x * 2}), torch.zeros(2, 3)).graph)
    (name,) = (name for name, _ in after.graph.inputs)
    whole = joined(
        {"net": Part(graph, groups), "after": after},
        {("after", name): ("net", "end")},
        {"images": ("net", "images")},
        {"twice": ("after", "twice")},
    )
    assert set(whole.dims) == set(whole.graph.types)
    weight = next(p for p in whole.graph.parameters if p.name == "first.weight")
    assert whole.dims[Value(weight.node)] == groups.dims[Value(weight.node)]


def test_what_a_plan_narrows_is_not_handed_on() -> None:
    graph = trace(Interrupted(), (torch.zeros(2, 4), torch.zeros(2, 6))).graph
    early = graph.outputs[graph.form.names.index("early")]
    six = Slims()
    narrowed = WiredGraph(graph, {value: type_.shape for value, type_ in graph.types.items()} | {early: (Batch(), six)})
    after = Part(trace(Calls(lambda self, x: {"twice": x * 2}), torch.zeros(2, 6)).graph)
    (name,) = (name for name, _ in after.graph.inputs)
    inputs = {"images": ("net", "images"), "chosen": ("net", "chosen")}
    with pytest.raises(ValueError, match="early of net has channels that a plan drops"):
        joined(
            {"net": Part(graph, narrowed), "after": after},
            {("after", name): ("net", "early")},
            inputs,
            {"y": ("after", "twice")},
        )


def test_what_does_not_fit_is_said(network: Interrupted) -> None:
    net = Part(trace(network, (torch.zeros(2, 4), torch.zeros(2, 6))).graph)
    mid = Part(between())
    (taken,) = (name for name, _ in mid.graph.inputs)
    parts = {"net": net, "mid": mid}
    good = {("net", "chosen"): ("mid", "chosen"), ("mid", taken): ("net", "early")}
    inputs = {"images": ("net", "images")}
    ends = {"late": ("net", "late")}
    for wires, given, message in (
        ({("net", "chosen"): ("mid", "chosen")}, inputs, f"input {taken} of mid is nothing"),
        (good, inputs | {"x": ("mid", taken)}, f"input {taken} of mid is two things"),
        (good | {("mid", taken): ("net", "middle")}, inputs, "is to be middle of net, which gives early, late"),
        (good | {("mid", taken): ("net", "late")}, inputs, r"is float32 \[.*6\], and late of net float32 \[.*3\]"),
        (good, {net.graph.nodes[0].name: ("net", "images")}, "stands twice"),
    ):
        with pytest.raises(ValueError, match=message):
            joined(parts, wires, given, ends)


def test_parts_that_wait_for_each_other_are_refused() -> None:
    parts = {name: Part(trace(Calls(lambda self, x: {"y": x + self.shift}), torch.zeros(2, 6)).graph) for name in ("a", "b")}
    (taken,) = (name for name, _ in parts["a"].graph.inputs)
    with pytest.raises(ValueError, match="parts read each other in a circle"):
        joined(parts, {("a", taken): ("b", "y"), ("b", taken): ("a", "y")}, {}, {"y": ("a", "y")})
