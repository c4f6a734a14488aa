"""The slimmable network, opened from a published layout, gives the stored float64 logits of all 86 switches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.models.published import published_spec
from tests.support import REFERENCE
from tests.support.slimtrain_states import PUBLISHED, gap, layout

TOLERANCE = 1e-6  # of the scale, max |logit|; the oracle is stored as float32, which is good for 6e-8


@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_of_every_switch_are_the_golden_ones(
    name: str, checkpoint_path: Callable[[str], Path], golden_images: np.ndarray
) -> None:
    checkpoint = open_checkpoint(checkpoint_path(name))
    assert checkpoint.spec == published_spec(name)
    assert not checkpoint.network.training
    network, images = checkpoint.network.double(), torch.from_numpy(golden_images).double()
    errors, logits = {}, []
    with np.load(REFERENCE / "golden" / f"{name}.npz") as golden, torch.inference_mode():
        assert sorted(golden.files) == sorted(str(switch) for switch in layout(name)["switches"])
        for plan in checkpoint.spec.plans:
            expected = torch.from_numpy(golden[str(plan.width)]).double()
            with network.at(plan):
                logits.append(network(images))
            errors[plan.name] = gap(logits[-1], expected)
    assert len(errors) == len(layout(name)["switches"])
    assert all(error < TOLERANCE for error in errors.values()), errors
    # the oracle tells switches apart: neighbours differ by far more than the tolerance
    assert all(gap(a, b) > 1e-2 for a, b in pairwise(logits))


def test_there_are_86_switches() -> None:
    assert sum(len(layout(name)["switches"]) for name in PUBLISHED) == 86
