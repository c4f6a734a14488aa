"""Untrained networks are reproducible and behave like trained ones: activations of order one at every plan, logits that depend
on the image."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.checkpoints import untrained
from slimtrain.checkpoints.layout import check_values
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.data.noise import noise_images
from slimtrain.models.published import published_spec
from slimtrain.models.registry import network_names
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.slimtrain_states import PUBLISHED

LISTED = [name for name in network_names() if not name.startswith("autoslim") or name in PUBLISHED]


def activations(network: SlimmableNetwork, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The logits, and path of every norm -> the standard deviation of what it makes."""
    deviations = {}
    hooks = [
        norm.register_forward_hook(lambda m, i, out, path=path: deviations.update({path: float(out.std())}))
        for path, norm in network.norms.items()
    ]
    logits = network(x)
    for hook in hooks:
        hook.remove()
    return logits, deviations


@pytest.mark.parametrize("name", LISTED)
@torch.inference_mode()
def test_activations_are_of_order_one_and_logits_tell_images_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of US-ResNets, whose 31 widths take up to 11 s, the three that are looked at."""
    spec = published_spec(name)
    if name.startswith("us_resnet"):
        spec = dataclasses.replace(
            spec, switches=(spec.switches[0], spec.switches[len(spec.switches) // 2], spec.switches[-1])
        )
        monkeypatch.setattr(untrained, "random_spec", lambda name: spec)
    network = untrained_network(name)
    assert network.spec == spec
    assert not network.training
    check_values(network.state_dict(), name)
    images = torch.from_numpy(noise_images(4, 64, seed=11))  # not the images that statistics were taken from
    plans = network.spec.plans
    for plan in {plans[0], plans[len(plans) // 2], plans[-1]}:
        with network.at(plan):
            logits, deviations = activations(network, images)
        assert 0.1 < float(logits.std()) < 10, plan.name
        spread = float((logits.amax(0) - logits.amin(0)).max() / logits.abs().max())
        assert spread > 0.05, f"{plan.name}: logits of different images differ by {spread:.1%} of their scale"
        assert len(deviations) == len(network.norms)
        assert all(0.05 < deviation < 5 for deviation in deviations.values()), plan.name


def test_the_same_name_and_seed_give_the_same_network() -> None:
    one, same, other = (untrained_network("s_mobilenet_v2", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    changed = {key for key in one if one[key].is_floating_point() and not torch.equal(one[key], other[key])}
    assert changed == {key for key in one if one[key].is_floating_point()}


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = untrained_network("s_mobilenet_v1").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same = untrained_network("s_mobilenet_v1").state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)


def test_classes_may_be_chosen() -> None:
    assert untrained_network("s_mobilenet_v1", classes=7).get_submodule("classifier.0").weight.shape == (7, 1024)


def test_statistics_of_plans_differ_from_one_another_and_from_the_default() -> None:
    spec, state = published_spec("us_mobilenet_v2"), untrained_network("us_mobilenet_v2").state_dict()
    # what this norm reads depends on all groups but the two after it
    read = {tuple(n for g, n in plan.channels.items() if g not in ("features.17", "features.18")) for plan in spec.plans}
    held = [state[f"features.17.body.4.bn.{i}.running_var"][:144] for i in range(27)]
    assert len({tuple(variances.tolist()) for variances in held}) == len(read) > 15
    assert all(bool((t != 1).all()) for key, t in state.items() if key.endswith("running_var"))
    assert all(bool((t != 0).all()) for key, t in state.items() if key.endswith("running_mean"))


def test_an_unknown_name_and_one_without_lists_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean"):
        untrained_network("us_mobilenet")
    with pytest.raises(UserError, match="no channel lists were published"):
        untrained_network("autoslim_resnet101")


@torch.inference_mode()
@pytest.mark.parametrize("channels", [1, 4])
def test_of_images_with_other_channels(channels: int) -> None:
    network = untrained_network(f"s_mobilenet_v1,in_channels={channels}, classes=10")
    assert network.spec == replace(published_spec("s_mobilenet_v1", 10), in_channels=channels)
    images = torch.from_numpy(noise_images(4, (64, 48), 11, channels))
    with network.at(network.spec.plans[0]):
        logits, deviations = activations(network, images)
    assert all(0.05 < deviation < 10 for deviation in deviations.values())
    assert float((logits.amax(0) - logits.amin(0)).max() / logits.abs().max()) > 0.05
