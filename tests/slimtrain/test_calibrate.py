"""Calibrated statistics are the cumulative average, over batches, of the batch mean and the unbiased batch variance, at every
norm of the dense network, the shared tail norm included. Expected values come from a forward pass written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import slimtrain_oracle as oracle
import torch
from slimtrain_states import State, images, random_state
from torch import Tensor, nn

from slimtrain.calibrate import cumulative_statistics
from slimtrain.channels import ChannelPlan
from slimtrain.errors import UserError
from slimtrain.layers import DenseLayers
from slimtrain.spec import NetworkSpec

Forward = Callable[[State, Sequence[int], oracle.Norm, Tensor], Tensor]
FORWARD: dict[str, Forward] = {
    "mobilenet_v1": oracle.mobilenet_v1,
    "mobilenet_v2": oracle.mobilenet_v2,
    "resnet50": oracle.resnet50,
}


def us_spec(architecture: str) -> NetworkSpec:
    return NetworkSpec(architecture, "us", (0.25, 0.6), 10, width_range=(0.25, 0.6))


def dense(spec: NetworkSpec, plan: ChannelPlan, seed: int = 0) -> nn.Module:
    """A dense network of ordinary layers in float64: leading corners of random weights of the widest plan."""
    with torch.device("meta"):
        network = spec.arch.build(DenseLayers(plan), spec.wiring, spec.classes)
    source, state = random_state(spec, seed), {}
    for key, empty in network.state_dict().items():
        wide = source.get(key)
        if wide is None:  # statistics, which are to be computed: nonsense, so that using them shows
            state[key] = torch.full(empty.shape, 7, dtype=torch.int64 if empty.dtype == torch.int64 else torch.float64)
        else:
            state[key] = wide[tuple(slice(size) for size in empty.shape)].clone()
    network.load_state_dict(state, assign=True)
    return network


def by_hand(network: nn.Module, forward: Forward, counts: Sequence[int], batches: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Path of every norm -> [mean, variance] averaged over batches, each batch counting alike."""
    state, seen = network.state_dict(), dict[str, list[tuple[Tensor, Tensor]]]()

    def norm(path: str, x: Tensor) -> Tensor:
        values = x.transpose(0, 1).flatten(1)
        count = values.shape[1]
        mean = values.sum(1) / count
        squares = ((values - mean[:, None]) ** 2).sum(1)
        seen.setdefault(path, []).append((mean, squares / (count - 1)))
        return oracle.normalized(x, mean, squares / count, state[f"{path}.weight"], state[f"{path}.bias"])

    for batch in batches:
        forward(state, counts, norm, batch)
    return {path: [torch.stack(both).mean(0) for both in zip(*parts, strict=True)] for path, parts in seen.items()}


def assert_as_by_hand(found: dict[str, tuple[Tensor, Tensor]], expected: dict[str, list[Tensor]]) -> None:
    assert found.keys() == expected.keys()
    for path, parts in expected.items():
        for value, wanted in zip(found[path], parts, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-11, msg=path)


@pytest.mark.parametrize("architecture", list(FORWARD))
def test_statistics_are_the_cumulative_average_also_with_a_smaller_last_batch(architecture: str) -> None:
    spec = us_spec(architecture)
    plan = spec.plan(0.4)
    network = dense(spec, plan)
    batches = [images(4, 64, seed=1), images(4, 64, seed=2) * 2 + 1, images(2, 64, seed=3) - 1]
    expected = by_hand(network, FORWARD[architecture], spec.channel_list(0.4), batches)
    (found,) = cumulative_statistics([network], batches)
    assert_as_by_hand(found, expected)
    assert len(found) == {"mobilenet_v1": 27, "mobilenet_v2": 52, "resnet50": 53}[architecture]
    assert architecture != "mobilenet_v2" or "features.18.1" in found  # the tail's, shared in the published layout


def test_one_batch_is_its_own_average() -> None:
    spec = us_spec("mobilenet_v1")
    network = dense(spec, spec.plan(0.25))
    expected = by_hand(network, oracle.mobilenet_v1, spec.channel_list(0.25), [images(2)])
    assert_as_by_hand(cumulative_statistics([network], [images(2)])[0], expected)


def test_several_networks_share_one_reading_of_the_batches() -> None:
    spec = us_spec("mobilenet_v1")
    batches = [images(3, 64, seed=1), images(3, 64, seed=2)]
    networks = [dense(spec, spec.plan(width), seed) for seed, width in enumerate((0.25, 0.4, 0.6))]
    alone = [cumulative_statistics([network], batches)[0] for network in networks]
    read = iter(batches)  # a second reading would find nothing
    together = cumulative_statistics(iter(networks), read)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for path in one for a, b in zip(one[path], other[path], strict=True))


def test_what_norms_held_before_does_not_matter() -> None:
    spec = us_spec("mobilenet_v1")
    network = dense(spec, spec.plan(0.25))
    first = {path: (m.clone(), v.clone()) for path, (m, v) in cumulative_statistics([network], [images(4)])[0].items()}
    cumulative_statistics([network], [images(4, seed=9) * 5])
    again = cumulative_statistics([network.eval()], [images(4)])[0]
    assert all(torch.equal(a, b) for path in first for a, b in zip(first[path], again[path], strict=True))


def test_no_gradients_are_kept() -> None:
    spec = us_spec("mobilenet_v1")
    network = dense(spec, spec.plan(0.25))
    (found,) = cumulative_statistics([network], [images(4)])
    assert not any(t.requires_grad for pair in found.values() for t in pair)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("counts", "bad"), [((1,), 1), ((4, 4, 1), 3)])
def test_a_batch_with_one_value_per_channel_is_named(counts: tuple[int, ...], bad: int) -> None:
    spec = us_spec("mobilenet_v1")
    network = dense(spec, spec.plan(0.25))
    batches = [images(count, 32) for count in counts]  # 32 pixels end as one
    with pytest.raises(UserError, match=rf"calibration batch {bad} has 1 image of 32 pixels.*--calibration-batch-size"):
        cumulative_statistics([network], batches)


def test_one_image_of_more_pixels_is_enough() -> None:
    spec = us_spec("mobilenet_v1")
    network = dense(spec, spec.plan(0.25))
    (found,) = cumulative_statistics([network], [images(1, 64)])
    assert_as_by_hand(found, by_hand(network, oracle.mobilenet_v1, spec.channel_list(0.25), [images(1, 64)]))


def test_no_batches_are_an_error() -> None:
    spec = us_spec("mobilenet_v1")
    with pytest.raises(UserError, match="no images to calibrate with"):
        cumulative_statistics([dense(spec, spec.plan(0.25))], [])
