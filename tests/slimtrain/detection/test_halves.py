"""A detector in two parts computes what it does in one, gradients too."""

from __future__ import annotations

import pytest
import torch

from slimtrain.detection.halves import Halves
from slimtrain.detection.making import slimmable_detector
from slimtrain.models.detector import FASTER, MASK, RETINA
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.trained_detectors import SIZE, quick_detector


def network_of(kind: str) -> tuple[SlimmableNetwork, tuple[torch.Tensor, ...]]:
    module = quick_detector(kind)
    return slimmable_detector(module, (0.5, 1.0), image_size=SIZE, order="none"), module.example(SIZE, SIZE)


@pytest.mark.parametrize("kind", [FASTER, MASK])
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_two_parts_are_the_whole(kind: str, width: float) -> None:
    network, (images, *regions) = network_of(kind)
    network.train()
    results = []
    for parts in (True, False):
        network.zero_grad()
        torch.manual_seed(0)
        with network.at(network.plan(width)):
            if parts:
                halves = Halves(network)
                first = halves.first(images)
                assert set(first.outputs) == {name for name in _names(network) if not name.endswith("_logits")} - {
                    "box_deltas"
                }
                outputs = halves.second(first, *regions)
            else:
                outputs = network(images, *regions)
            torch.autograd.backward([value.square().sum() for value in outputs.values()])
        results.append((outputs, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}))
    (outputs, gradients), (right, right_gradients) = results
    assert list(outputs) == list(right) and set(gradients) == set(right_gradients)
    for name, value in right.items():
        torch.testing.assert_close(outputs[name], value, rtol=0, atol=0)
    for name, gradient in right_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=0)


def test_any_number_of_regions_and_any_size_of_images() -> None:
    network, _ = network_of(FASTER)
    images = torch.randn(3, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    rois = torch.tensor([[2.0, 4.0, 4.0, 40.0, 30.0], [0.0, 10.0, 8.0, 90.0, 90.0], [0.0, 1.0, 1.0, 9.0, 9.0]])
    halves = Halves(network.eval())
    outputs = halves.second(halves.first(images), rois)
    alone = halves.second(halves.first(images[2:]), torch.cat([torch.zeros(1, 1), rois[:1, 1:]], 1))
    assert outputs["class_logits"].shape == (3, 4)
    torch.testing.assert_close(outputs["class_logits"][:1], alone["class_logits"])
    none = halves.second(halves.first(images), rois[:0])
    assert none["class_logits"].shape == (0, 4)


def test_without_regions_all_is_in_the_first_part() -> None:
    network, (images,) = network_of(RETINA)
    halves = Halves(network.eval())
    whole = network(images)
    first = halves.first(images).outputs
    assert list(first) == list(whole)
    assert all(torch.equal(first[name], value) for name, value in whole.items())


def test_regions_can_come_one_after_the_other() -> None:
    """Those of masks are of what is detected, which the box head says first."""
    network, (images, rois, mask_rois) = network_of(MASK)
    halves = Halves(network.eval())
    whole = network(images, rois, mask_rois)
    boxes = halves.further(halves.first(images), rois)
    assert set(whole) - set(boxes.outputs) == {"mask_logits"}
    masks = halves.further(boxes, mask_rois)
    assert list(masks.outputs) == list(whole)
    for name, value in whole.items():
        torch.testing.assert_close(masks.outputs[name], value, rtol=0, atol=0)


def _names(network: SlimmableNetwork) -> tuple[str, ...]:
    return network.body.order.graph.form.names
