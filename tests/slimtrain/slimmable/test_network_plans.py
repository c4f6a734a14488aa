"""`at` gives the earlier plan back whatever happens; statistics set for a plan are checked, and count for it alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import PlanNorm
from tests.support.slimtrain_states import State, gap, images, network_of, random_state

SpecAndState = tuple[NetworkSpec, State]


@pytest.fixture(scope="module")
def us_v1() -> SpecAndState:
    """A US network and weights for it; every test makes a network of its own."""
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
    return spec, random_state(spec)


@torch.no_grad()
def logits(network: SlimmableNetwork, plan: ChannelPlan, x: Tensor) -> Tensor:
    with network.at(plan):
        return network(x)


def sizes_at(network: SlimmableNetwork, plan: ChannelPlan) -> dict[str, int]:
    return {path: plan.size(norm.dim) for path, norm in network.norms.items()}


def test_at_restores_the_earlier_plan_also_nested_and_after_an_exception(us_v1: SpecAndState) -> None:
    network = network_of(*us_v1)
    narrow, wide, x = network.spec.plan(0.25), network.spec.plan(1.0), images()
    expected_narrow, expected_wide = logits(network, narrow, x), logits(network, wide, x)
    assert gap(expected_narrow, expected_wide) > 0.1
    with torch.no_grad(), network.at(wide):
        with network.at(narrow) as inside:
            assert inside is network
            assert network.active == narrow
            assert torch.equal(network(x), expected_narrow)
            with network.at(wide):
                assert torch.equal(network(x), expected_wide)
            assert torch.equal(network(x), expected_narrow)
            with pytest.raises(RuntimeError), network.at(wide):
                network(x[:, :2])  # images of two channels
            assert torch.equal(network(x), expected_narrow)
            with pytest.raises(KeyboardInterrupt), network.at(wide):
                raise KeyboardInterrupt
            assert torch.equal(network(x), expected_narrow)
        assert network.active == wide
        assert torch.equal(network(x), expected_wide)
    assert network.active == network.spec.widest


def test_a_plan_of_another_network_leaves_the_network_as_it_was(us_v1: SpecAndState) -> None:
    network = network_of(*us_v1)
    plan, x = network.spec.plan(0.25), images()
    expected = logits(network, plan, x)
    partial = ChannelPlan("partial", {"features.0": 16, "features.1": 24})
    with torch.no_grad(), network.at(plan):
        with pytest.raises((KeyError, ValueError)), network.at(partial):
            pytest.fail("a plan without most groups became active")
        assert network.active == plan
        assert torch.equal(network(x), expected)


def test_a_width_without_statistics_says_so(us_v1: SpecAndState) -> None:
    network = network_of(*us_v1)
    plan = network.spec.plan(0.5)
    assert not network.has_statistics(plan)
    with pytest.raises(LookupError, match="no batch-norm statistics: calibrate"):
        logits(network, plan, images())
    spec = NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 10, ((8, 16) * 7, (16, 8) * 7))
    with pytest.raises(LookupError, match="none of the switches"):
        network_of(spec, random_state(spec))(images())  # the widest plan, which is no switch


@pytest.mark.parametrize("damage", ["missing", "added", "mean", "variance", "shape"])
def test_statistics_must_cover_exactly_the_norms_at_their_sizes(us_v1: SpecAndState, damage: str) -> None:
    network = network_of(*us_v1)
    plan = network.spec.plan(0.5)
    path = "features.3.body.4"
    sizes = sizes_at(network, plan)
    statistics = {path: (torch.zeros(size), torch.ones(size)) for path, size in sizes.items()}
    size = sizes[path]
    if damage == "missing":
        del statistics[path]
    elif damage == "added":
        path = "features.99.1"
        statistics[path] = (torch.zeros(8), torch.ones(8))
    elif damage == "mean":
        statistics[path] = (torch.zeros(size + 8), torch.ones(size))
    elif damage == "variance":
        statistics[path] = (torch.zeros(size), torch.ones(size + 8))
    else:
        statistics[path] = (torch.zeros(2, size // 2), torch.ones(2, size // 2))
    with pytest.raises(ValueError, match=path):
        network.set_statistics(plan, statistics)
    assert not network.has_statistics(plan)


def test_statistics_set_for_a_plan_count_at_once_and_for_it_alone(us_v1: SpecAndState) -> None:
    network, state = network_of(*us_v1), us_v1[1]
    plan, other, x = network.spec.plan(0.25), network.spec.plan(1.0), images()
    before, elsewhere = logits(network, plan, x), logits(network, other, x)
    own = {path: (torch.ones(s, dtype=x.dtype), torch.ones(s, dtype=x.dtype)) for path, s in sizes_at(network, plan).items()}
    with torch.no_grad(), network.at(plan):
        network.set_statistics(plan, own)
        assert gap(network(x), before) > 0.01  # the active plan uses them without being made active again
    assert torch.equal(logits(network, other, x), elsewhere)
    assert list(network.state_dict()) == list(state)


def test_statistics_set_for_a_plan_follow_the_network_to_another_dtype(us_v1: SpecAndState) -> None:
    network = network_of(*us_v1).float()
    plan = network.spec.plan(0.5)
    network.set_statistics(plan, {path: (torch.zeros(s), torch.ones(s)) for path, s in sizes_at(network, plan).items()})
    network.double()
    assert logits(network, plan, images()).dtype == torch.float64


@pytest.mark.parametrize("through", ["deepcopy", "pickle"])
def test_a_copy_is_a_network_of_its_own(us_v1: SpecAndState, through: str) -> None:
    network = network_of(*us_v1)
    plan, x = network.spec.plan(0.25), images()
    expected = logits(network, plan, x)
    twin = copy.deepcopy(network) if through == "deepcopy" else pickle.loads(pickle.dumps(network))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert not torch.allclose(logits(twin, plan, x), expected)
    assert torch.equal(logits(network, plan, x), expected)
    with twin.at(network.spec.plan(1.0)):
        assert network.active == network.spec.widest
        norms = [m for m in twin.modules() if isinstance(m, PlanNorm)]
        assert {network.active.size(norm.dim) for norm in norms} <= set(network.spec.plan(1.0).channels.values())


def test_statistics_left_at_their_beginning_are_none(us_v1: SpecAndState) -> None:
    # the published calibration of US networks resets them to 0 and 1 and then never updates them
    spec, state = us_v1
    narrow, wide = spec.plans
    reset = dict(state)
    for key, value in state.items():
        if ".bn.1." in key:
            reset[key] = torch.full_like(value, key.endswith("running_var"))
    network = network_of(spec, reset)
    assert network.has_statistics(narrow) and not network.has_statistics(wide)
    key = "features.13.body.4.bn.1.running_mean"
    assert network_of(spec, {**reset, key: state[key]}).has_statistics(wide)
    network.set_statistics(wide, {p: (torch.zeros(s), torch.ones(s)) for p, s in sizes_at(network, wide).items()})
    assert network.has_statistics(wide)  # what was set counts, whatever it is
