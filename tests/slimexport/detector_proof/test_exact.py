"""Heads in float64, some regions at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from slimexport.detector_proof import exact as module
from slimexport.detector_proof.exact import Exact, regions_of_all_levels
from slimtrain.models.detector import FASTER, KEYPOINT, MASK
from tests.support.detector_files import SIZE, detector_file


@pytest.mark.parametrize("kind", [FASTER, MASK, KEYPOINT])
def test_regions_some_at_a_time_give_what_all_at_once_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = detector_file(kind)
    network = copy.deepcopy(file.network).double()
    plan = network.plan(file.width)
    some = regions_of_all_levels(SIZE, file.settings, 2, 13)
    regions = (some,) if kind == FASTER else (some, some[::2])
    monkeypatch.setattr(module, "TOGETHER", 7)
    given = Exact(network, plan, file.images[:2]).second(*regions)
    with torch.inference_mode(), network.at(plan):
        images = torch.from_numpy(file.images[:2]).double()
        outputs = dict(
            zip(
                network.spec.graph.form.names,
                _flat(network(images, *(torch.from_numpy(rows).double() for rows in regions))),
                strict=True,
            )
        )
    assert {"class_logits", "box_deltas"} <= given.keys() and len(given) == (2 if kind == FASTER else 3)
    for name, values in given.items():
        np.testing.assert_allclose(
            values.numpy(), outputs[name].numpy(), rtol=0, atol=1e-12 * float(outputs[name].abs().max())
        )


def test_images_are_computed_one_after_the_other_and_their_maps_held_once() -> None:
    file = detector_file(FASTER)
    network = copy.deepcopy(file.network).double()
    plan = network.plan(file.width)
    seen: list[int] = []
    image = network.body.order.graph.inputs[0][0]
    network.body.watch = lambda node, get: seen.extend(len(get(value)) for value in node.inputs if value.node == image)
    exact = Exact(network, plan, file.images)
    network.body.watch = None
    assert seen == [1] * len(file.images)
    maps = {values.untyped_storage().data_ptr() for values in exact.first.values()}
    held = {slot.untyped_storage().data_ptr() for first in exact._of_images for slot in first.slots if slot is not None}
    inputs = {first.images.untyped_storage().data_ptr() for first in exact._of_images}
    assert held <= maps | inputs and len(maps) == len(exact.first)


def test_regions_of_every_image_are_pooled_from_its_own_maps() -> None:
    file = detector_file(FASTER)
    network = copy.deepcopy(file.network).double()
    plan = network.plan(file.width)
    regions = regions_of_all_levels(SIZE, file.settings, 3, 5)
    mixed = regions[np.random.default_rng(0).permutation(len(regions))]
    given = Exact(network, plan, file.images).second(mixed)["class_logits"].numpy()
    for row, values in zip(mixed, given, strict=True):
        image = int(row[0])
        alone = Exact(network, plan, file.images[image : image + 1]).second(row[None] * [0, 1, 1, 1, 1])
        np.testing.assert_allclose(values[None], alone["class_logits"].numpy(), rtol=0, atol=1e-12 * np.abs(given).max())


def test_of_no_region_there_is_no_row() -> None:
    file = detector_file(FASTER)
    network = copy.deepcopy(file.network).double()
    given = Exact(network, network.plan(file.width), file.images).second(np.zeros((0, 5), np.float32))
    assert {name: len(values) for name, values in given.items()} == {"class_logits": 0, "box_deltas": 0}


def _flat(outputs: object) -> list[torch.Tensor]:
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [value for value in values if isinstance(value, torch.Tensor)]  # type: ignore[attr-defined]
