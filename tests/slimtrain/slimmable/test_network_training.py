"""In training mode every switch keeps its own statistics, and gradients reach exactly the active corner."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.slimtrain_states import State, images, network_of, random_state

MOMENTUM = 0.1
SPECS = {
    "s": NetworkSpec("mobilenet_v1", "s", (0.25, 0.5), 10),
    "us": NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 1.0)),
    "s_v2": NetworkSpec("mobilenet_v2", "s", (0.25, 0.5), 10),
    "autoslim": NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 10, ((8, 16) * 7, (16, 24) * 7)),
}


def training(spec: NetworkSpec) -> tuple[SlimmableNetwork, State]:
    network = network_of(spec, random_state(spec)).train()
    return network, {key: value.clone() for key, value in network.state_dict().items()}


def changed(network: SlimmableNetwork, before: State) -> set[str]:
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", list(SPECS))
def test_a_training_pass_touches_the_statistics_of_its_switch_only(name: str) -> None:
    spec = SPECS[name]
    for index, plan in enumerate(spec.plans):
        network, before = training(spec)
        with network.at(plan):
            network(images(4))
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        own = {f"{path}.bn.{index}.{key}" for path in network.norms for key in statistics} & before.keys()
        shared = {f"{path}.{key}" for path in network.norms for key in statistics} & before.keys()
        assert bool(shared) == (name == "s_v2")  # its tail norm is one for all switches
        assert changed(network, before) == own | shared


@pytest.mark.parametrize("name", ["s", "us"])
def test_running_statistics_move_by_the_momentum_towards_the_batch(name: str) -> None:
    network, before = training(SPECS[name])
    seen: list[Tensor] = []
    stem = network.get_submodule("features.0.1")
    stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = images(4)
    with network.at(network.spec.plans[1]):
        network(x)
    after = network.state_dict()
    values = seen[0].transpose(0, 1).flatten(1)
    for key, batch in (("running_mean", values.mean(1)), ("running_var", values.var(1, unbiased=True))):
        expected = (1 - MOMENTUM) * before[f"features.0.1.bn.1.{key}"] + MOMENTUM * batch
        torch.testing.assert_close(after[f"features.0.1.bn.1.{key}"], expected, rtol=1e-10, atol=1e-12)
    assert int(after["features.0.1.bn.1.num_batches_tracked"]) == 1


def test_a_us_width_without_statistics_trains_and_leaves_none() -> None:
    spec = SPECS["us"]
    network, before = training(spec)
    with network.at(spec.plan(0.8)):
        logits = network(images(4))
    assert bool(torch.isfinite(logits).all())
    assert changed(network, before) == set()


@pytest.mark.parametrize("name", list(SPECS))
def test_an_evaluation_pass_touches_nothing(name: str) -> None:
    network, before = training(SPECS[name])
    network.eval()
    with network.at(network.spec.plans[0]):
        network(images(4))
    assert changed(network, before) == set()


def test_training_normalizes_with_the_batch_whatever_statistics_are_stored() -> None:
    spec = SPECS["us"]
    network, _ = training(spec)
    x, plan = images(4), spec.plans[0]
    with torch.no_grad(), network.at(plan):
        first = network(x)
        for norm in network.norms.values():
            stored = norm.get_submodule("bn.0")
            stored.running_mean.fill_(1e3)  # type: ignore[operator]
        torch.testing.assert_close(network(x), first, rtol=0, atol=0)


def test_gradients_reach_the_active_corner_and_nothing_else() -> None:
    spec = SPECS["us"]
    network, _ = training(spec)
    narrow = spec.plans[0]
    with network.at(narrow):
        network(images(4)).square().sum().backward()
    gradients = {key: p.grad for key, p in network.named_parameters()}
    conv = gradients["features.3.body.3.weight"]
    assert conv is not None
    out, inp = narrow.channels["features.3"], narrow.channels["features.2"]
    assert bool((conv[:out, :inp] != 0).any(0).any(1).any(1).all())
    rest = conv.clone()
    rest[:out, :inp] = 0
    assert int(rest.count_nonzero()) == 0
    scale = gradients["features.3.body.4.weight"]
    assert scale is not None
    assert int(scale[:out].count_nonzero()) > 0 and int(scale[out:].count_nonzero()) == 0


def test_at_holds_for_the_backward_pass_and_gradients_of_switches_add_up() -> None:
    spec = SPECS["s"]
    single: list[dict[str, Tensor]] = []
    for plans in ([spec.plans[0]], [spec.plans[1]], list(spec.plans)):
        network, _ = training(spec)
        for plan in plans:
            with network.at(plan):
                network(images(4)).square().sum().backward()
        single.append({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    weight = "features.3.body.3.weight"
    torch.testing.assert_close(single[0][weight] + single[1][weight], single[2][weight], rtol=1e-9, atol=1e-12)
