"""Channels that no image moves are counted, and no others: as hooks on the dense network see them, and closed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from slimexport.dense import dense_network
from slimexport.probes import reach as reaching
from slimexport.probes.reach import Reach, joined, reach_of
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.data.noise import noise_images
from slimtrain.slimmable.network import SlimmableNetwork

IMAGES = noise_images(6, 32, 9)


@pytest.fixture
def network() -> SlimmableNetwork:
    return untrained_network("s_mobilenet_v2")


@pytest.mark.parametrize("width", [0.35, 1.0])
def test_it_sees_what_hooks_on_the_dense_network_see(width: float, network: SlimmableNetwork) -> None:
    plan = network.plan(width)
    reach = reach_of(network, plan, IMAGES)
    inputs: list[torch.Tensor] = []
    dense = dense_network(network, plan)
    for module in dense.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone()))
    with torch.inference_mode():
        dense(torch.from_numpy(IMAGES))
    rows = [value.reshape(*value.shape[:2], -1) for value in inputs]
    low = torch.cat([row.amin(2) for row in rows], 1).numpy()
    assert sorted(reach.layers) == sorted(row.shape[1] for row in rows)
    np.testing.assert_allclose(np.sort(reach.low), np.sort(low), atol=1e-4)


def test_closed_channels_stand_still(network: SlimmableNetwork) -> None:
    """A norm's scale and shift of 0 in front of a ReLU6."""
    plan = network.plan(1.0)
    before = reach_of(network, plan, IMAGES).still(np.arange(len(IMAGES)))
    path = "features.0.1"
    with torch.no_grad():
        for name, value in network.norms[path].named_parameters():
            value[:5] = 0 if name.endswith("weight") else -1
    after = reach_of(network, plan, IMAGES)
    first = slice(after.layers[0], after.layers[0] + after.layers[1])  # what the stem gives, as the layer after it reads it
    ranges = (after.high.max(0) - after.low.min(0))[first]
    assert (ranges[:5] == 0).all() and (ranges[5:] > 0).all()
    assert after.still(np.arange(len(IMAGES))) >= before + 5


def test_a_network_is_as_it_was_after_it_was_watched(network: SlimmableNetwork) -> None:
    images = torch.from_numpy(IMAGES)
    with torch.inference_mode(), network.at(network.plan(0.35)):
        before = network(images)
    reach_of(network, network.plan(0.35), IMAGES)
    with torch.inference_mode(), network.at(network.plan(0.35)):
        assert torch.equal(network(images), before)
    assert network.body.watch is None


def test_what_moves_is_seen_in_the_terms_of_its_layer() -> None:
    low = np.zeros((2, 4))
    high = np.array([[1.0, 1e-5, 100.0, 1e-2], [1.0, 1e-5, 0.0, 0.0]])
    reach = Reach(low, high, (2, 2))
    assert reach.still(np.arange(2)) == 2  # 1e-5 of 1, 1e-2 of 100
    assert reach.still(np.array([1])) == 3
    assert joined([reach, reach]).still(np.arange(2)) == 4


def test_batches_are_of_one_size(network: SlimmableNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last one of two images would have torch prepare every layer anew."""
    sizes = []
    whole = SlimmableNetwork.forward

    def forward(self: SlimmableNetwork, *inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs[0]))
        return whole(self, *inputs)

    monkeypatch.setattr(SlimmableNetwork, "forward", forward)
    images = noise_images(66, 32, 9)
    assert reach_of(network, network.plan(0.35), images).low.shape[0] == 66
    assert reach_of(network, network.plan(0.35), np.concatenate([images] * 4)).low.shape[0] == 264
    assert sizes == [66] * 5
    monkeypatch.setattr(reaching, "LARGE_BATCH", 8)
    reach_of(network, network.plan(0.35), images[:11])
    assert sizes[5:] == [6, 5]


def test_maps_of_few_places_and_of_many_are_looked_through_alike(
    network: SlimmableNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = reach_of(network, network.plan(0.35), IMAGES)
    monkeypatch.setattr(reaching, "FEW", 0)
    many = reach_of(network, network.plan(0.35), IMAGES)
    assert (few.low == many.low).all() and (few.high == many.high).all()
