"""The slimmable network computes, at any plan, what a forward pass by hand on the leading corners of its weights does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support import slimtrain_oracle as oracle
from tests.support.slimtrain_states import State, gap, images, network_of, random_state

EXACT = 1e-10  # of the scale, in float64
Forward = Callable[[State, Sequence[int], oracle.Norm, Tensor], Tensor]
FORWARD: dict[str, Forward] = {
    "mobilenet_v1": oracle.mobilenet_v1,
    "mobilenet_v2": oracle.mobilenet_v2,
    "resnet50": oracle.resnet50,
}
Pair = tuple[SlimmableNetwork, State]


def us_spec(architecture: str, low: float = 0.25, high: float = 1.0, *more: float) -> NetworkSpec:
    return NetworkSpec(architecture, "us", (low, high, *more), 10, width_range=(low, high))


def network_and_state(spec: NetworkSpec) -> Pair:
    state = random_state(spec)
    return network_of(spec, state), state


@torch.no_grad()
def logits(network: SlimmableNetwork, plan: ChannelPlan, x: Tensor) -> Tensor:
    with network.at(plan):
        return network(x)


@pytest.mark.parametrize("architecture", list(FORWARD))
@pytest.mark.parametrize("widths", [(0.3, 0.6), (1.0, 0.5, 1.5)])
def test_s_networks_of_any_switches(architecture: str, widths: tuple[float, ...]) -> None:
    spec = NetworkSpec(architecture, "s", widths, 10)
    network, state = network_and_state(spec)
    x = images()
    for index, width in enumerate(widths):
        expected = FORWARD[architecture](state, spec.channel_list(width), oracle.switchable(state, index), x)
        assert gap(logits(network, spec.plan(width), x), expected) < EXACT


@pytest.mark.parametrize("architecture", list(FORWARD))
def test_us_networks_of_any_range_and_order(architecture: str) -> None:
    spec = us_spec(architecture, 0.15, 1.5, 0.8)  # minimum, maximum, further
    network, state = network_and_state(spec)
    x = images()
    for index, width in enumerate((0.15, 1.5, 0.8)):
        expected = FORWARD[architecture](state, spec.channel_list(width), oracle.universal(state, index), x)
        assert gap(logits(network, spec.plan(width), x), expected) < EXACT


@pytest.mark.parametrize("architecture", list(FORWARD))
def test_non_uniform_plans_slice_every_group_on_its_own(architecture: str) -> None:
    spec = us_spec(architecture)
    network, state = network_and_state(spec)
    draw = torch.Generator().manual_seed(5)
    counts = {
        group: count if group in spec.fixed_groups else int(torch.randint(1, count + 1, (), generator=draw))
        for group, count in spec.widest.channels.items()
    }
    plan = ChannelPlan("mine", counts)
    statistics = {}
    for path, norm in network.norms.items():
        size = plan.size(norm.dim)
        statistics[path] = (torch.randn(size, dtype=torch.float64) / 10, torch.rand(size, dtype=torch.float64) + 0.5)
    network.set_statistics(plan, statistics)
    x = images()
    expected = FORWARD[architecture](state, [counts[g] for g in spec.wiring.groups], oracle.given(state, statistics), x)
    assert gap(logits(network, plan, x), expected) < EXACT


def test_autoslim_networks_with_lists_of_their_own() -> None:
    lists = ((8, 16, 8, 40, 24, 24, 56, 32, 32, 72, 48, 48, 64, 80), (16, 8, 32, 16, 40, 64, 24, 88, 56, 32, 48, 96, 40, 56))
    spec = NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 10, lists)
    network, state = network_and_state(spec)
    x = images()
    for index, counts in enumerate(lists):
        expected = oracle.mobilenet_v1(state, counts, oracle.switchable(state, index), x)
        assert gap(logits(network, spec.plans[index], x), expected) < EXACT
