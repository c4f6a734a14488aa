"""What plans share before all regions is computed once, and is the same to the bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimtrain.detection.halves import Halves
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.shared_halves import SharedHalves
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import FASTER, MASK, RETINA
from slimtrain.search.slimming import Slimming
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.trained_detectors import SIZE, drawn_images, quick_detector

KINDS = (FASTER, MASK, RETINA)


class Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def number(self) -> int:
        return sum(calls for name, calls in self.calls.items() if "conv" in name)


def universal(kind: str = FASTER) -> SlimmableNetwork:
    return slimmable_detector(quick_detector(kind), (0.5, 1.0), family="us", image_size=SIZE, order="none").eval()


def candidates(network: SlimmableNetwork) -> tuple[ChannelPlan, list[ChannelPlan]]:
    slimming = Slimming(network.spec, groups=2)
    current = slimming.steps(slimming.start)[2]
    return current, [*slimming.steps(current), current]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_each_plan_by_itself(kind: str) -> None:
    network = universal(kind)
    current, plans = candidates(network)
    shared, alone, images = SharedHalves(network), Halves(network), drawn_images(3)
    shared.share(current)
    with torch.inference_mode(), network.averaging(1.0):
        for plan in sorted(plans, key=lambda plan: shared.first_difference(current, plan)):
            with network.at(plan):
                for _ in range(2):  # a loss and a detection ask for it
                    ours, theirs = shared.first(images), alone.first(images)
                    assert ours.outputs.keys() == theirs.outputs.keys()
                    assert all(torch.equal(ours.outputs[name], value) for name, value in theirs.outputs.items())
                    if kind == RETINA:
                        continue
                    regions = [torch.tensor([[1.0, 4, 4, 40, 40], [0, 8, 8, 30, 50]])] * (len(shared.graph.inputs) - 1)
                    heads, right = shared.second(ours, *regions), alone.second(theirs, *regions)
                    assert all(torch.equal(heads[name], value) for name, value in right.items())


def test_as_many_convolutions_as_differ_and_none_for_what_reads_regions_alone() -> None:
    """A convolution runs for every plan that differs by then, and once more as long as the current plan goes on."""
    network = universal()
    current, plans = candidates(network)
    images = drawn_images(2)
    shared = SharedHalves(network)
    nodes = [number for number, node in enumerate(shared.graph.nodes[: shared.split]) if node.kind == "conv2d"]
    begins = sorted(shared.first_difference(current, plan) for plan in plans)
    expected = sum(sum(begin <= node for begin in begins) + (node < begins[-1]) for node in nodes)
    assert 0 < begins.count(shared.split) < len(begins)  # the heads' groups, and the current plan itself
    counts = []
    for halves in (shared, Halves(network)):
        if isinstance(halves, SharedHalves):
            halves.share(current)
        with torch.inference_mode(), network.averaging(1.0), Convolutions() as counting:
            for plan in sorted(plans, key=lambda plan: shared.first_difference(current, plan)):
                with network.at(plan):
                    halves.first(images)
        counts.append(counting.number)
    assert counts == [expected, len(nodes) * len(plans)] and counts[0] < counts[1]


def test_other_images_and_another_current_plan_begin_anew() -> None:
    network = universal()
    current, plans = candidates(network)
    shared, alone = SharedHalves(network), Halves(network)
    with torch.inference_mode(), network.averaging(1.0), network.at(plans[0]):
        for share, images in (
            (current, drawn_images(2)),
            (current, drawn_images(2, 7)),
            (plans[0], drawn_images(2)),
            (None, None),
        ):
            shared.share(share)
            given = drawn_images(2, 9) if images is None else images
            for name, value in alone.first(given).outputs.items():
                assert torch.equal(shared.first(given).outputs[name], value)


def test_plans_in_another_order_are_a_mistake() -> None:
    network = universal()
    current, plans = candidates(network)
    shared, images = SharedHalves(network), drawn_images(2)
    ordered = sorted(plans, key=lambda plan: shared.first_difference(current, plan))
    shared.share(current)
    with torch.inference_mode(), network.averaging(1.0):
        with network.at(ordered[-1]):
            shared.first(images)
        with network.at(ordered[0]), pytest.raises(ValueError, match="order them by that"):
            shared.first(images)
