"""What the `groups` command prints."""

from __future__ import annotations

import torch

from slimtrain.graph.policy import Policy
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import graph_cost
from slimtrain.groups.groups import find_groups
from slimtrain.groups.rounding import channels_at
from slimtrain.tracing.report import groups_report
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import Shuffled, Unknown, images, network


def report(name: str, policy: Policy | None = None) -> str:
    graph = trace(network(name), images(2)).graph
    return groups_report(name, graph, find_groups(graph, policy))


def test_groups_tell_their_channels_and_modules() -> None:
    text = report("transformer")
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert "6 x 24" in lines["block.qkv"] and "block.qkv, block.proj" in lines["block.qkv"]
    assert "48" in lines["patches"] and "token" in lines["patches"]
    assert "need no calibration" in text


def test_what_stays_is_named_with_place_and_reason_and_kernels_are_not() -> None:
    text = report("windows")
    assert "table (49): one position of it is taken by its number, at the network (user_networks.py:" in text
    assert "kernel" not in text and "image channels" not in text


def test_costs_are_those_of_the_widths() -> None:
    graph = trace(network("plain"), images(2)).graph
    groups = find_groups(graph)
    text = groups_report("plain", graph, groups, (1.0, 0.5))
    half = graph_cost(Sizing(graph, groups, channels_at(groups.sizes, 0.5)))
    full = graph_cost(Sizing(graph, groups, groups.sizes))
    assert f"{half.macs / full.macs:.3f}" in text and f"{half.params:,}" in text


def test_another_policy_is_advised_where_it_exists_and_follows() -> None:
    text = report("grouped")
    assert "--conv-groups inner" in text and "--heads" not in text and "--shuffles" not in text
    assert "may narrow more" not in report("grouped", Policy("inner", "inner"))
    torch.manual_seed(0)
    graph = trace(Shuffled(), images(2)).graph
    assert "--shuffles free" in groups_report("s", graph, find_groups(graph))


def test_nothing_to_slim_is_said() -> None:
    class Nothing(Unknown):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cummax(self.first(x), 1).values

    graph = trace(Nothing(), images(2)).graph
    text = groups_report("nothing", graph, find_groups(graph))
    assert "nothing to slim here" in text and "cummax has no rule here" in text
