"""Where plans begin to differ, and that what comes after is computed at each plan."""

from __future__ import annotations

import pytest
import torch

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.prefix import SharedPrefix
from slimtrain.search.slimming import Slimming
from slimtrain.slimmable.stages import StageInput
from tests.support.run_helpers import noise
from tests.support.search_toys import MNAS, RESNET, SIZE, V1, V2, small_network


@pytest.mark.parametrize("spec", [V1, V2, MNAS, RESNET])
def test_the_first_difference_is_where_results_begin_to_differ(spec: NetworkSpec) -> None:
    """By running every stage of both plans. Where a layer reads what an earlier one wrote, shapes differ already there."""
    network = small_network(spec)
    prefix = SharedPrefix(network)
    slimming = Slimming(spec)
    batch = noise(2, SIZE, 3)

    def outputs(plan: ChannelPlan) -> list[list[torch.Tensor]]:
        activations, given = [], StageInput(batch)
        with torch.inference_mode(), network.averaging(1.0), network.at(plan):
            for i in range(len(prefix.stages)):
                given = prefix.run(given, i, i + 1)
                tensors = given.x if isinstance(given.x, list) else [given.x]
                activations.append([tensor.clone() for tensor in tensors if tensor is not None])
        return activations

    before = outputs(slimming.start)
    for plan in slimming.steps(slimming.start)[::3]:
        first = prefix.first_difference(slimming.start, plan)
        pairs = zip(before, outputs(plan), strict=True)
        assert next(i for i, (a, b) in enumerate(pairs) if not all(map(torch.equal, a, b))) == first
    assert prefix.first_difference(slimming.start, slimming.start) == len(prefix.stages) - 1


def test_a_sweep_gives_every_plan_s_own_logits_from_the_one_that_differs_first_on() -> None:
    network = small_network(V2)
    prefix, slimming, batch = SharedPrefix(network), Slimming(V2), noise(4, SIZE, 3)
    plans = [*reversed(slimming.steps(slimming.start)[::4]), slimming.start]
    with torch.inference_mode(), network.averaging(1.0):
        swept = list(prefix.sweep(slimming.start, plans, batch))
        for number, logits in swept:
            with network.at(plans[number]):
                assert torch.equal(logits, network(batch))
    firsts = [prefix.first_difference(slimming.start, plans[number]) for number, _ in swept]
    assert firsts == sorted(firsts) and sorted(number for number, _ in swept) == list(range(len(plans)))
