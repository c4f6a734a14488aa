"""A network's stages, one after the other, are the network; which norms end a branch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimtrain.checkpoints.untrained import branch_ends
from slimtrain.graph.graph import Value
from slimtrain.graph.order import added_branches
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.stages import StageInput
from tests.support.run_helpers import network_of, noise


def small(architecture: str) -> NetworkSpec:
    return NetworkSpec(architecture, "s", (0.25, 0.5), 5)


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "mnasnet", "resnet50", "shufflenet"])
def test_the_stages_one_after_the_other_are_the_network_bit_for_bit(architecture: str) -> None:
    spec = small(architecture)
    network = network_of(spec)
    images = noise(3, 64)
    for plan in spec.plans:
        with torch.inference_mode(), network.at(plan):
            given = StageInput(images)
            for stage in network.body.stages():
                before = [t.clone() if isinstance(t, Tensor) else t for t in given.x]
                read, given = given, stage.run(given)
                for old, tensor in zip(before, read.x, strict=True):  # several plans may go on from here
                    assert old is tensor or (isinstance(old, Tensor) and torch.equal(old, tensor))
            assert torch.equal(given.x, network(images))


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_group_is_in_some_stage(architecture: str) -> None:
    spec = small(architecture)
    network = network_of(spec)
    groups = [stage.groups for stage in network.body.stages()]
    assert frozenset().union(*groups) == set(spec.widest.channels)
    first, *_ = (stage for stage in groups if stage)
    assert first == {spec.wiring.groups[0]}


@pytest.mark.parametrize(("architecture", "count"), [("mobilenet_v2", 10), ("resnet50", 12), ("shufflenet", 13)])
def test_a_branch_that_ends_in_nothing_hands_on_its_input(architecture: str, count: int) -> None:
    """That is what a branch's end is: with scale and shift of 0 there, its sum is what it was added to."""
    network = network_of(small(architecture))
    for norm in branch_ends(network):
        for parameter in norm.parameters():
            nn.init.zeros_(parameter)
    body, sums = network.body, 0
    ends = set(added_branches(body.order.graph))
    images = noise(2, 64)
    with torch.inference_mode(), network.at(network.spec.plans[0]):
        slots = body.begin(images)
        for index, node in enumerate(body.order.graph.nodes):
            before = {value: slots[body.order.slots[value]] for value in node.inputs}
            body.run(slots, images, index, index + 1)
            if node.kind == "add" and ends & before.keys():
                (x,) = (
                    before.keys() - ends
                    if len(before.keys() - ends) == 1
                    else (min(before, key=body.order.slots.__getitem__),)
                )
                assert torch.equal(slots[body.order.slots[Value(node.name)]], before[x])
                sums += 1
    assert sums == count
