"""A network's stages, one after the other, are the network; blocks say which of their norms end a branch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.blocks import Block
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
                before, given = given.x.clone(), stage.run(read := given)
                if stage.groups:  # several plans may go on from here
                    assert torch.equal(read.x, before)
            assert torch.equal(given.x, network(images))


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_group_is_in_some_stage(architecture: str) -> None:
    spec = small(architecture)
    network = network_of(spec)
    groups = [stage.groups for stage in network.body.stages()]
    assert frozenset().union(*groups) == set(spec.widest.channels)
    first, *_ = (stage for stage in groups if stage)
    assert first == {spec.wiring.groups[0]}


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "resnet50", "shufflenet"])
def test_a_block_whose_branches_end_in_nothing_hands_on_its_input(architecture: str) -> None:
    """That is what a branch's end is: with scale and shift of 0 there, a block that adds its input adds it to nothing."""
    network = network_of(small(architecture))
    shapes: dict[Block, tuple[torch.Tensor, torch.Tensor]] = {}
    added = [block for block in network.modules() if isinstance(block, Block) and list(block.branch_ends())]
    assert 3 < len(added) < sum(isinstance(block, Block) for block in network.modules())
    for block in added:
        for norm in block.branch_ends():
            for parameter in norm.parameters():
                nn.init.zeros_(parameter)
        block.register_forward_hook(lambda block, inputs, output: shapes.update({block: (inputs[0], output)}))
    with torch.inference_mode(), network.at(network.spec.plans[0]):
        network(noise(2, 64))
    for x, out in shapes.values():
        assert torch.equal(out, x if architecture == "mobilenet_v2" else x.relu())
    assert len(shapes) == len(added)
