"""Loss and accuracies against loops over single images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.evaluate import Scores, evaluate, to_device
from tests.support.slimtrain_processes import alone
from tests.support.slimtrain_states import images, network_of, random_state

COUNT = 13


def spec(classes: int) -> NetworkSpec:
    return NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), classes, width_range=(0.25, 0.5), stem_stride=1)


def batches(x: Tensor, labels: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(list(sizes)), labels.split(list(sizes)), strict=True))  # type: ignore[no-untyped-call]


def by_hand(network: SlimmableNetwork, width: float, x: Tensor, labels: Tensor) -> Scores:
    """One image after the other; the place of its class is the number of classes that score higher."""
    loss = first = among = 0.0
    network.eval()
    for image, label in zip(x, labels.tolist(), strict=True):
        with torch.no_grad(), network.at(network.spec.plan(width)):
            scores = network(image[None])[0].tolist()
        loss += math.log(sum(math.exp(score) for score in scores)) - scores[label]
        place = sum(score > scores[label] for score in scores)
        first += place == 0
        among += place < 5
    return Scores(loss / len(x), first / len(x), among / len(x), len(x))


@pytest.mark.parametrize("classes", [2, 4, 5, 6, 40])
def test_results_are_those_of_single_images(classes: int) -> None:
    network = network_of(spec(classes), random_state(spec(classes)))
    x = images(COUNT, 32)
    labels = torch.randint(classes, (COUNT,), generator=torch.Generator().manual_seed(classes))
    with torch.no_grad():  # half of the labels are what the network says, else few would be right
        labels[::2] = network(x).argmax(1)[::2]
    results = evaluate(network, [network.spec.plan(w) for w in (0.5, 0.25)], batches(x, labels, (6, 6, 1)), alone())
    for width, result in zip((0.5, 0.25), results, strict=True):
        expected = by_hand(network, width, x, labels)
        assert (result.top1, result.top5, result.images) == (expected.top1, expected.top5, expected.images)
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
        assert classes > 5 or result.top5 == 1
    assert results[0].top1 >= 7 / 13
    assert classes == 40 or results[0].top5 > results[0].top1 or results[0].top1 == 1
    assert classes < 40 or results[0].top5 < 1


def test_the_size_of_batches_makes_no_difference() -> None:
    network = network_of(spec(10), random_state(spec(10)))
    x, labels = images(COUNT, 32), torch.arange(COUNT) % 10
    plans = list(network.spec.plans)
    by_batches = [evaluate(network, plans, batches(x, labels, sizes), alone()) for sizes in ((13,), (1,) * 13, (5, 8))]
    for results in by_batches[1:]:
        for a, b in zip(results, by_batches[0], strict=True):
            assert (a.top1, a.top5, a.images) == (b.top1, b.top5, b.images)
            assert a.loss == pytest.approx(b.loss, rel=1e-6)


def test_without_images_there_is_nothing_to_divide_by() -> None:
    network = network_of(spec(10), random_state(spec(10)))
    assert evaluate(network, list(network.spec.plans), [], alone()) == [Scores(0, 0, 0, 0)] * 2


def test_the_network_keeps_its_statistics_and_its_plan_and_is_left_in_evaluation_mode() -> None:
    network = network_of(spec(10), random_state(spec(10))).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    active = network.active
    evaluate(network, list(network.spec.plans), batches(images(4, 32), torch.arange(4), (2, 2)), alone())
    assert not network.training and network.active == active
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.train()
    with network.at(network.spec.plans[0]):  # nothing of inference mode stays behind
        network(images(4, 32)).sum().backward()


def test_a_network_that_broke_shows() -> None:
    network = network_of(spec(10), random_state(spec(10)))
    network.get_parameter("classifier.0.bias").data.fill_(float("nan"))
    (result,) = evaluate(network, network.spec.plans[:1], batches(images(4, 32), torch.arange(4), (4,)), alone())
    assert math.isnan(result.loss)


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_laid_out_as_asked(channels_last: bool) -> None:
    x = images(2, 32).float()
    moved = to_device(x, torch.device("cpu"), channels_last)
    assert torch.equal(moved, x)
    assert moved.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_half_precision_and_memory_layout_change_results_little() -> None:
    network = network_of(spec(10), random_state(spec(10))).float()
    data = batches(images(8, 32).float(), torch.arange(8), (8,))
    plans = list(network.spec.plans)
    plain = evaluate(network, plans, data, alone())
    half = evaluate(network, plans, data, alone(), amp="bf16", channels_last=True)
    last = evaluate(network, plans, data, alone(), channels_last=True)
    for a, b, c in zip(plain, half, last, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=0.05) and b.loss != a.loss
        assert c.loss == pytest.approx(a.loss, rel=1e-4)
