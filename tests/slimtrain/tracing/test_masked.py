"""Sliced networks against full ones with the removed channels masked, and the graph against the user's module."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from slimtrain.graph.policy import Policy
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.groups import find_groups
from slimtrain.slimmable.program import Program
from slimtrain.tracing.masked import masked
from slimtrain.tracing.reading import Traced
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import NETWORKS, images, network, outputs

POLICIES = {
    "outer": Policy(),
    "inner": Policy("inner", "inner"),
    "free": Policy("inner", "inner", "free"),
}
EXACT = 1e-10


def relative(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module", params=list(NETWORKS))
def traced(request: pytest.FixtureRequest) -> tuple[str, Traced]:
    return request.param, trace(network(request.param), images(2))


def exact(traced: Traced) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in traced.tensors.items()}


def test_the_graph_computes_what_the_module_computes(traced: tuple[str, Traced]) -> None:
    name, read = traced
    x = images(3, dtype=torch.float64)
    with torch.no_grad():
        expected = outputs(network(name).double()(x))
    result = Program.full(read.graph, torch.float64).run([x], exact(read))
    assert len(result) == len(expected)
    assert all(relative(ours, theirs) < 1e-12 for ours, theirs in zip(result, expected, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_sliced_network_is_the_masked_one(traced: tuple[str, Traced], policy: str, batch: int) -> None:
    _, read = traced
    groups = find_groups(read.graph, POLICIES[policy])
    assert groups.groups
    draw = random.Random(f"{policy} {batch}")
    half = {name: max(1, slots // 2) for name, slots in groups.sizes.items()}
    mixed = {name: draw.randint(1, slots) for name, slots in groups.sizes.items()}
    x = images(batch, dtype=torch.float64)
    for channels in (half, mixed):
        sizing = Sizing(read.graph, groups, channels)
        result = Program.of(sizing, torch.float64).run([x], exact(read))
        expected = masked(sizing, [x], exact(read))
        for output, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
            kept = sizing.kept(read.graph.outputs[output])
            assert not any(positions is not None for positions in kept)  # what is given out is pinned
            assert relative(ours, theirs) < EXACT


def test_a_wrong_slice_is_no_masked_network() -> None:
    """The oracle bites: channels of a concatenation that are taken from the front alone."""
    read = trace(network("concatenation"), images(2))
    groups = find_groups(read.graph)
    sizing = Sizing(read.graph, groups, {name: max(1, slots // 2) for name, slots in groups.sizes.items()})
    program = Program.of(sizing, torch.float64)
    gaps = {name: kept for name, kept in program.kept.items() if any(not isinstance(k, slice) for _, k in kept)}
    assert gaps  # not every dimension is a leading corner
    front = {
        name: tuple((dim, k if isinstance(k, slice) else slice(len(k))) for dim, k in kept)
        for name, kept in program.kept.items()
    }
    x = images(2, dtype=torch.float64)
    wrong = Program(program.graph, program.operations, front).run([x], exact(read))[0]
    assert relative(wrong, masked(sizing, [x], exact(read))[0]) > 1e-3
