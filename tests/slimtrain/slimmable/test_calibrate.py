"""Calibrated statistics are the cumulative average, over batches, of the batch mean and the unbiased batch variance, at every
norm of the dense network, the shared tail norm included. Expected values come from a forward pass written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support import slimtrain_oracle as oracle
from tests.support.module_layers import DenseLayers
from tests.support.slimtrain_states import State, images, network_of, random_state

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
        network = spec.build(DenseLayers(plan))
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


def assert_as_by_hand(statistics: dict[str, tuple[Tensor, Tensor]], expected: dict[str, list[Tensor]]) -> None:
    assert statistics.keys() == expected.keys()
    for path, parts in expected.items():
        for value, wanted in zip(statistics[path], parts, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-11, msg=path)


def calibrated(spec: NetworkSpec, plans: Sequence[ChannelPlan], batches: Iterable[Tensor]) -> SlimmableNetwork:
    network = network_of(spec, random_state(spec))
    calibrate(network, plans, batches)
    return network


@pytest.mark.parametrize("architecture", list(FORWARD))
def test_statistics_are_the_cumulative_average_also_with_a_smaller_last_batch(architecture: str) -> None:
    spec = us_spec(architecture)
    plan = spec.plan(0.4)
    batches = [images(4, 64, seed=1), images(4, 64, seed=2) * 2 + 1, images(2, 64, seed=3) - 1]
    expected = by_hand(dense(spec, plan), FORWARD[architecture], spec.channel_list(0.4), batches)
    statistics = calibrated(spec, [plan], batches).statistics(plan)
    assert_as_by_hand(statistics, expected)
    assert len(statistics) == {"mobilenet_v1": 27, "mobilenet_v2": 52, "resnet50": 53}[architecture]
    assert architecture != "mobilenet_v2" or "features.18.1" in statistics  # the tail's, shared in the published layout


def test_one_batch_is_its_own_average() -> None:
    spec = us_spec("mobilenet_v1")
    plan = spec.plan(0.25)
    expected = by_hand(dense(spec, plan), oracle.mobilenet_v1, spec.channel_list(0.25), [images(2)])
    assert_as_by_hand(calibrated(spec, [plan], [images(2)]).statistics(plan), expected)


def test_a_plan_that_no_width_describes() -> None:
    spec = us_spec("mobilenet_v1")
    counts = [8 * (1 + i % 2) for i in range(14)]
    plan = spec.wiring.plan("odd", counts)
    expected = by_hand(dense(spec, plan), oracle.mobilenet_v1, counts, [images(3)])
    assert_as_by_hand(calibrated(spec, [plan], [images(3)]).statistics(plan), expected)


def test_several_plans_share_one_reading_of_the_batches() -> None:
    spec = us_spec("mobilenet_v1")
    batches = [images(3, 64, seed=1), images(3, 64, seed=2)]
    plans = [spec.plan(width) for width in (0.25, 0.4, 0.6)]
    alone = [calibrated(spec, [plan], batches).statistics(plan) for plan in plans]
    together = calibrated(spec, plans, iter(batches))  # a second reading would find nothing
    for plan, one in zip(plans, alone, strict=True):
        other = together.statistics(plan)
        assert all(torch.equal(a, b) for path in one for a, b in zip(one[path], other[path], strict=True))


@pytest.mark.parametrize("family", ["s", "us", "autoslim"])
def test_only_the_statistics_of_the_plans_asked_for_change(family: str) -> None:
    if family == "autoslim":
        spec = NetworkSpec("mobilenet_v1", family, (1, 2), 10, ((8, 16) * 7, (16, 24) * 7))
    else:
        spec = NetworkSpec("mobilenet_v2", family, (0.25, 0.6), 10, width_range=(0.25, 0.6) if family == "us" else None)
    network = network_of(spec, random_state(spec))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = {path: pair[0].clone() for path, pair in network.statistics(spec.plans[1]).items()}
    calibrate(network, [spec.plans[0]], [images(4)])
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(torch.equal(other[path], pair[0]) for path, pair in network.statistics(spec.plans[1]).items())
    assert not torch.equal(other["features.0.1"][:8], network.statistics(spec.plans[0])["features.0.1"][0][:8])
    assert list(network.calibrated) == [spec.plans[0]]
    assert network.active == spec.widest


def test_what_norms_held_before_does_not_matter() -> None:
    spec = us_spec("mobilenet_v1")
    plan = spec.plan(0.25)
    network = calibrated(spec, [plan], [images(4)])
    first = network.statistics(plan)
    calibrate(network, [plan], [images(4, seed=9) * 5])
    assert not torch.equal(first["features.0.1"][0], network.statistics(plan)["features.0.1"][0])
    calibrate(network, [plan], [images(4)])
    again = network.statistics(plan)
    assert all(torch.equal(a, b) for path in first for a, b in zip(first[path], again[path], strict=True))


def test_no_gradients_are_kept_and_the_mode_stays() -> None:
    spec = us_spec("mobilenet_v1")
    network = network_of(spec, random_state(spec)).train()
    calibrate(network, [spec.plan(0.25)], [images(4)])
    assert not any(t.requires_grad for pair in network.statistics(spec.plan(0.25)).values() for t in pair)
    assert all(p.grad is None for p in network.parameters())
    assert network.training


@pytest.mark.parametrize(("counts", "bad"), [((1,), 1), ((4, 4, 1), 3)])
def test_a_batch_with_one_value_per_channel_is_named_and_nothing_changes(counts: tuple[int, ...], bad: int) -> None:
    spec = us_spec("mobilenet_v1")
    plan = spec.plan(0.25)
    network = calibrated(spec, [plan], [images(4)])
    before = network.statistics(plan)
    batches = [images(count, 32, seed=5) for count in counts]  # 32 pixels end as one
    with pytest.raises(UserError, match=rf"calibration batch {bad} has 1 image of 32 pixels.*--calibration-batch-size"):
        calibrate(network, [plan, spec.plan(0.6)], batches)
    assert list(network.calibrated) == [plan]
    after = network.statistics(plan)
    assert all(torch.equal(a, b) for path in before for a, b in zip(before[path], after[path], strict=True))


def test_one_image_of_more_pixels_is_enough() -> None:
    spec = us_spec("mobilenet_v1")
    plan = spec.plan(0.25)
    expected = by_hand(dense(spec, plan), oracle.mobilenet_v1, spec.channel_list(0.25), [images(1, 64)])
    assert_as_by_hand(calibrated(spec, [plan], [images(1, 64)]).statistics(plan), expected)


def test_no_batches_are_an_error() -> None:
    spec = us_spec("mobilenet_v1")
    with pytest.raises(UserError, match="no images to calibrate with"):
        calibrated(spec, [spec.plan(0.25)], [])
