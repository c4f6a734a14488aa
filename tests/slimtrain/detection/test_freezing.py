"""What is frozen does not change, and the rest does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.detection.building import build
from slimtrain.detection.freezing import BODY, freeze
from slimtrain.models.detector import RETINA, SSDLITE
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.optimizer import sgd
from tests.support.small_configs import small_config


def trained(kind: str = RETINA, **keys: Any) -> tuple[SlimmableNetwork, dict[str, Tensor]]:
    """A detector after two steps at both switches, and its state before them; in float64, where small steps are some."""
    network = build(small_config(kind, **keys), 3, (0.5, 1.0), "s", 64, (0.0,) * 3, (1.0,) * 3).double()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    optimizer, draw = sgd(network, 1e-4, 0.9, False, 0.01), torch.Generator().manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        for plan in network.spec.plans:
            with network.at(plan):
                outputs: Any = network(torch.randn(2, 3, 64, 64, generator=draw, dtype=torch.float64))
                sum(output.pow(2).sum() for output in outputs.values()).backward()
        optimizer.step()
    return network, before


def changed(network: SlimmableNetwork, before: dict[str, Tensor]) -> set[str]:
    return {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}


def test_frozen_norms_stay_to_the_last_bit() -> None:
    network, before = trained(norms="frozen")
    of_norms = {key for key in before if ".bn." in key}
    assert of_norms and changed(network, before) == before.keys() - of_norms
    loose, begun = trained()
    assert changed(loose, begun) == begun.keys()


def test_a_frozen_norm_normalizes_by_its_statistics_in_training() -> None:
    network = build(small_config(RETINA, norms="frozen"), 3, (0.5, 1.0), "s", 64, (0.0,) * 3, (1.0,) * 3).double()
    draw = torch.Generator().manual_seed(1)
    for key, tensor in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    images = torch.randn(2, 3, 64, 64, generator=draw, dtype=torch.float64)
    for plan in network.spec.plans:
        with network.at(plan), torch.no_grad():
            outputs: Any = (network.train()(images), network.eval()(images))
        assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


@pytest.mark.parametrize(("stages", "names"), [(0, ("conv1", "bn1")), (2, ("conv1", "bn1", "layer1", "layer2"))])
def test_frozen_stages_of_a_resnet_are_the_stem_and_its_first_layers(stages: int, names: tuple[str, ...]) -> None:
    network, before = trained(frozen_stages=stages)
    expected = {key for key in before if key.startswith(tuple(f"{BODY}{name}." for name in names))}
    assert any("running_mean" in key for key in expected)
    assert changed(network, before) == before.keys() - expected


def test_frozen_stages_of_other_networks_are_what_their_maps_are_computed_of() -> None:
    config = small_config(SSDLITE, backbone="torchvision:mobilenet_v3_small", first_stage=2, frozen_stages=3)
    network = build(config, 3, (1.0,), "s", 64, (0.0,) * 3, (1.0,) * 3)
    learning = {name.split(".")[3] for name, p in network.named_parameters() if name.startswith(BODY) and p.requires_grad}
    frozen = {name.split(".")[3] for name, p in network.named_parameters() if name.startswith(BODY) and not p.requires_grad}
    # torchvision's table: stride 16 ends with the block before the last that halves its map, 9
    assert frozen == {str(block) for block in range(9)} and learning == {str(block) for block in range(9, 13)}
    assert {path for path, norm in network.norms.items() if norm.frozen} == {
        path for path in network.norms if path.startswith(BODY) and int(path.split(".")[3]) < 9
    }
    with pytest.raises(UserError, match="frozen_stages: 2: levels are made of this backbone's stages from 3 on"):
        freeze(network, stages=2, first_stage=2)


def test_nothing_is_frozen_unless_it_is_said() -> None:
    network = build(small_config(), 3, (1.0,), "s", 64, (0.0,) * 3, (1.0,) * 3)
    freeze(network)
    assert not any(norm.frozen for norm in network.norms.values())
