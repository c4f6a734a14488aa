"""Which weights decay, compared with the published layouts; a step by hand; initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.optimizer import initialize, sgd
from tests.support.slimtrain_states import layout_shapes, network_of, random_state

SMALL = NetworkSpec("mobilenet_v2", "s", (0.25, 0.5), 10)


def grouped(network: SlimmableNetwork) -> tuple[set[str], set[str]]:
    """Names of decayed and of other parameters."""
    optimizer = sgd(network, 0.1, 0.9, True, 1e-4)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed: set[str] = set()
    others: set[str] = set()
    for group in optimizer.param_groups:
        assert group["weight_decay"] in (0.0, 1e-4)
        (decayed if group["weight_decay"] else others).update(names[id(p)] for p in group["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    return decayed, others


@pytest.mark.parametrize(
    "name", ["s_mobilenet_v1", "us_mobilenet_v1", "us_mobilenet_v2", "s_resnet50", "s_shufflenet", "autoslim_mnasnet"]
)
def test_ordinary_convolutions_and_linear_weights_decay_and_nothing_else(name: str) -> None:
    """A kernel [out, in, k, k] that reads more than one channel, or a matrix: told from the layout's shapes."""
    with torch.device("meta"):
        network = SlimmableNetwork(published_spec(name))
    shapes = layout_shapes(name)
    expected = {key for key, shape in shapes.items() if len(shape) == 2 or (len(shape) == 4 and shape[1] > 1)}
    decayed, others = grouped(network)
    assert decayed == expected
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert others == {key for key in shapes if not key.endswith(statistics)} - expected
    depthwise = {key for key, shape in shapes.items() if len(shape) == 4 and shape[1] == 1}
    assert others >= depthwise and bool(depthwise) == (name != "s_resnet50")


def by_hand(w: float, gradients: list[float], lr: float, momentum: float, nesterov: bool, decay: float) -> float:
    """SGD as in Sutskever et al. 2013, in torch's form: v = m v + g, w -= lr (g + m v) or lr v."""
    velocity = 0.0
    for gradient in gradients:
        g = gradient + decay * w
        velocity = momentum * velocity + g
        w -= lr * (g + momentum * velocity if nesterov else velocity)
    return w


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_by_hand(nesterov: bool) -> None:
    network = network_of(SMALL, random_state(SMALL))
    before = {name: float(p.detach().flatten()[0]) for name, p in network.named_parameters()}
    optimizer = sgd(network, 0.1, 0.9, nesterov, 0.5)
    gradients = [0.25, -1.0, 0.5]
    for gradient in gradients:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    for name in ("features.2.body.0.weight", "features.2.body.3.weight", "classifier.0.weight", "classifier.0.bias"):
        decay = 0.5 if name in ("features.2.body.0.weight", "classifier.0.weight") else 0.0
        after = float(dict(network.named_parameters())[name].detach().flatten()[0])
        assert after == pytest.approx(by_hand(before[name], gradients, 0.1, 0.9, nesterov, decay), rel=1e-12)


def initialized(spec: NetworkSpec, seed: int, noise: int) -> dict[str, Tensor]:
    torch.manual_seed(noise)
    network = SlimmableNetwork(spec)
    state = torch.get_rng_state()
    initialize(network, seed)
    assert torch.equal(torch.get_rng_state(), state)
    return dict(network.state_dict())


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, second = initialized(SMALL, 3, noise=0), initialized(SMALL, 3, noise=1)
    other = initialized(SMALL, 4, noise=0)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    differing = {key for key in first if not torch.equal(first[key], other[key])}
    assert differing == {key for key in first if first[key].dim() in (2, 4)}


def test_initial_weights_have_the_spread_of_he_et_al() -> None:
    network = SlimmableNetwork(NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 1000, width_range=(0.25, 1.0)))
    initialize(network, 0)
    state = network.state_dict()
    # Variance 2 / fan out: output channels that an input channel reaches, times the kernel's area.
    for key, fan_out in [
        ("features.13.body.3.weight", 1024),
        ("features.0.0.weight", 32 * 9),
        ("features.13.body.0.weight", 9),  # depthwise: each input reaches one output
    ]:
        values = state[key]
        assert float(values.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=5 / values.numel() ** 0.5)
        assert abs(float(values.mean())) < 5 * float(values.std()) / values.numel() ** 0.5
    assert float(state["classifier.0.weight"].std()) == pytest.approx(0.01, rel=0.01)
    assert int(state["classifier.0.bias"].count_nonzero()) == 0
    for norm in network.norms:
        assert bool((state[f"{norm}.weight"] == 1).all()) and int(state[f"{norm}.bias"].count_nonzero()) == 0
