"""The graphs that the tables of the published architectures write, beside what tracing the same networks gives."""

from __future__ import annotations

import pytest
import torch

from slimexport.dense import materialize
from slimtrain.graph.graph import PARAMETER, STATISTIC, Batch, Value
from slimtrain.models.channels import Dim
from slimtrain.models.published import random_spec
from slimtrain.slimmable.program import Program, check_types
from tests.support.graph_cases import traced

NAMES = ["us_mobilenet_v1", "s_mobilenet_v2", "us_resnet50", "s_shufflenet", "autoslim_mnasnet"]
SIDE = 64


def narrow(name: str) -> float:
    return 1 if name.startswith("autoslim") else 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_table_writes_the_graph_that_tracing_its_network_gives(name: str) -> None:
    """Operator by operator, at a plan: the same arguments but for names, the same shapes, the same values."""
    spec = random_spec(name)
    plan = spec.plan(narrow(name))
    dense = materialize(f"random:{name}", plan=plan, fold=False)
    expected, tensors = traced(dense, (3, SIDE, SIDE))
    sizing = spec.sizing(plan, SIDE)
    ours = {Value(p.node): p.name for p in sizing.graph.parameters} | {Value("images"): "images"}
    theirs = {Value(p.node): p.name for p in expected.graph.parameters} | {Value(expected.graph.inputs[0][0]): "images"}
    assert len(sizing.graph.nodes) == len(expected.graph.nodes)
    for node, other in zip(sizing.graph.nodes, expected.graph.nodes, strict=True):
        ours |= {Value(node.name, index): f"{node.name}.{index}" for index in range(len(node.outputs))}
        theirs |= {Value(other.name, index): f"{node.name}.{index}" for index in range(len(node.outputs))}
        (op, arguments), (other_op, other_arguments) = sizing.call(node), expected.call(other)
        assert op == other_op and arguments.keys() == other_arguments.keys()
        assert [ours[value] for value in node.inputs] == [theirs[value] for value in other.inputs]
        for key, argument in arguments.items():
            if not isinstance(argument, Value | tuple) and key != "cudnn_enabled":
                assert argument == other_arguments[key], (node, key)
        shapes = [sizing.shape(Value(node.name, index)) for index in range(len(node.outputs))]
        assert shapes == [type_.shape for type_ in other.outputs]
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (logits,) = Program.of(sizing).run([images], tensors)
        assert torch.equal(logits, dense(images))


@pytest.mark.parametrize("name", NAMES)
def test_its_parameters_are_those_of_the_state_dict_in_its_order(name: str) -> None:
    spec = random_spec(name)
    state = materialize(f"random:{name}", plan=spec.plans[-1], fold=False).state_dict()
    graph = spec.graph
    order = [key for key in state if not key.endswith("num_batches_tracked")]
    assert {p.name for p in graph.parameters} == set(order)
    kinds = {p.name: p.kind for p in graph.parameters}
    assert all(kinds[key] == (STATISTIC if "running" in key else PARAMETER) for key in order)
    full = {p.name: p.type.shape for p in graph.parameters}
    widest = materialize(f"random:{name}", plan=spec.plans[-1], fold=False)
    if spec.plans[-1] == spec.widest:
        assert {key: tuple(widest.state_dict()[key].shape) for key in order} == full


@pytest.mark.parametrize("name", NAMES)
def test_its_shapes_are_those_that_its_operators_give(name: str) -> None:
    check_types(random_spec(name).wired(96).graph)


def test_images_that_are_no_squares_and_other_channels() -> None:
    from dataclasses import replace

    spec = replace(random_spec("us_mobilenet_v1"), in_channels=4)
    graph = spec.wired((64, 96)).graph
    assert graph.inputs[0][1].shape == (Batch(), 4, 64, 96)
    assert graph.nodes[0].outputs[0].shape == (Batch(), 32, 32, 48)
    check_types(graph)


def test_shares_and_differences_add_up() -> None:
    out, inp = Dim.of("out"), Dim.of("inp")
    third = (out - inp) // 3
    assert Dim.total([third] * 3) == out - inp
    assert Dim.total([out - inp, inp]) == out
    assert Dim.total([out, out]).active({"out": 5}) == 10
    assert Dim.total([third, third]).active({"out": 12, "inp": 6}) == 4
