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


def _flat(outputs: object) -> list[torch.Tensor]:
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [value for value in values if isinstance(value, torch.Tensor)]  # type: ignore[attr-defined]
