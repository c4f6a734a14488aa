"""The channel groups of networks whose groups are known."""

from __future__ import annotations

import pytest
import torch

from slimtrain.graph.graph import Graph, Node, TensorType, Value
from slimtrain.graph.policy import Policy
from slimtrain.groups.groups import find_groups
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import CLASSES, Shuffled, Unknown, images, network

OUTER, INNER, FREE = Policy(), Policy("inner", "inner"), Policy("inner", "inner", "free")
KNOWN = [
    ("plain", OUTER, {"body.0.0": 16, "body.1.0": 32}),
    ("residual", OUTER, {"body.0.0": 32, "body.1.conv1.0": 24, "body.2.conv1.0": 24}),
    ("gate", OUTER, {"body.0.0": 16, "body.2.fc1": 8, "body.3.0": 32}),
    ("grouped", OUTER, {"body.0.0": 8, "body.2.0": 32}),  # eight whole groups
    ("grouped", INNER, {"body.0.0": 4, "body.1.0": 8, "body.2.0": 32}),  # four inputs and eight outputs in every group
    ("concatenation", OUTER, {"body.stem.0": 16, "body.a.0": 8, "body.b.0": 8}),
    ("split", OUTER, {"body.stem.0": 16, "body.stem.0#2": 16, "body.out.0": 24}),
    ("transformer", OUTER, {"patches": 48, "block.qkv": 6, "block.mlp.0": 96}),  # six heads
    ("transformer", INNER, {"patches": 48, "block.qkv": 8, "block.mlp.0": 96}),  # of eight channels
    ("windows", OUTER, {"qkv": 5, "patches": 40, "proj": 40}),
    ("windows", INNER, {"qkv": 8, "patches": 40, "proj": 40}),
    ("standardized", OUTER, {"body": 24, "body.stem": 8}),  # four groups of a norm, eight places in each
    ("prelu", OUTER, {"conv1": 16, "conv2": 32, "hidden": 20}),
    ("signal", OUTER, {"conv1": 32}),
    ("upsampled", OUTER, {"down.0": 32, "up": 16, "shuffled": 16}),  # four channels make one place of the shuffle
]


@pytest.mark.parametrize(("name", "policy", "expected"), KNOWN)
def test_groups_are_the_known_ones(name: str, policy: Policy, expected: dict[str, int]) -> None:
    groups = find_groups(trace(network(name), images(2)).graph, policy)
    assert groups.sizes == expected


def test_a_slot_of_a_head_is_all_of_its_channels() -> None:
    graph = trace(network("transformer"), images(2)).graph
    groups = find_groups(graph)
    (heads,) = (group for group in groups.groups if group.slots == 6)
    assert set(heads.dims) == {("block.qkv.weight", 0, 24), ("block.qkv.bias", 0, 24), ("block.proj.weight", 1, 8)}


def test_what_is_pinned_says_where_and_why() -> None:
    graph = trace(network("windows"), images(2)).graph
    pinned = {(row.parameter, row.dim): row for row in find_groups(graph).pinned}
    table = pinned["table", 0]
    assert (table.positions, table.op) == (49, "index.Tensor") and "user_networks.py:" in table.place
    assert pinned["head.weight", 0].reason == "the network gives it out" and pinned["head.weight", 0].positions == CLASSES
    assert "image channels" in pinned["patches.weight", 1].reason


def test_an_operator_without_a_rule_pins_what_it_reads_and_says_so() -> None:
    torch.manual_seed(0)
    groups = find_groups(trace(Unknown(), images(2)).graph)
    assert groups.sizes == {"second": 24}
    (row,) = (row for row in groups.pinned if (row.parameter, row.dim) == ("first.weight", 0))
    assert row.op == "cummax" and "no rule" in row.reason and "user_networks.py:" in row.place


def test_shuffles_taken_for_any_order_leave_halves_whole() -> None:
    torch.manual_seed(0)
    graph = trace(Shuffled(), images(2)).graph
    exact, free = find_groups(graph, INNER), find_groups(graph, FREE)
    assert min(free.sizes.values()) == 16 and min(exact.sizes.values()) < 16
    assert free.reordered and not exact.reordered


def test_a_sum_with_a_fixed_tensor_is_pinned() -> None:
    image = TensorType((1, 4))
    nodes = (
        Node("out", "linear", {"input": Value("x"), "weight": Value("w"), "bias": None}, (image,)),
        Node("sum", "add.Tensor", {"self": Value("out"), "other": Value("y"), "alpha": 1}, (image,)),
        Node("last", "linear", {"input": Value("sum"), "weight": Value("v"), "bias": None}, (image,)),
    )
    from slimtrain.graph.graph import Parameter

    parameters = tuple(Parameter(name, name, TensorType((4, 4))) for name in "wv")
    graph = Graph((("x", image), ("y", image)), parameters, nodes, (Value("last"),))
    assert find_groups(graph).sizes == {}
    without = Graph(
        (("x", image),),
        parameters,
        (nodes[0], Node("last", "linear", {**nodes[2].arguments, "input": Value("out")}, (image,))),
        (Value("last"),),
    )
    assert find_groups(without).sizes == {"w": 4}
