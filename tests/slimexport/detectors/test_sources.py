"""What a detector's files are verified and calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimexport.detectors.sources import open_images, probe_images, scene_settings
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.images import Preprocessing
from slimtrain.detection.fixed.shipped import whole_network
from tests.support.exported_detectors import small_slimmable_detector

HOW = Preprocessing(64, (0.5,) * 3, (0.25,) * 3, padded=True)


def checkpoint(probes: torch.Tensor | None = None) -> Checkpoint:
    whole = whole_network(small_slimmable_detector(), 64)
    return Checkpoint("d.pt", "0" * 64, whole, 64, HOW.mean, HOW.std, probe_images=probes)


def test_scenes_are_drawn_where_there_is_nothing_else() -> None:
    network = checkpoint()
    plans = network.spec.plans
    images = probe_images(network, plans, HOW, 3, choosing=False).images
    assert images.shape == (3, 3, 64, 64) and images.dtype == np.float32 and images.std() > 0.1
    assert np.array_equal(images, probe_images(network, plans, HOW, 3, choosing=False).images)


def test_images_that_the_checkpoint_carries_come_first() -> None:
    own = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    network = checkpoint(own)
    images = probe_images(network, network.spec.plans, HOW, choosing=False).images
    assert np.allclose(images[:5], (own.numpy() / 255 - 0.5) / 0.25, atol=1e-5), "of images so small all of them"


@pytest.mark.parametrize(("count", "expected"), [(None, 16), (3, 3), (30, 30)])
def test_scenes_fill_up_what_a_checkpoint_carries_too_few_of(count: int | None, expected: int) -> None:
    own = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    network = checkpoint(own)
    images = probe_images(network, network.spec.plans, HOW, count, choosing=False).images
    assert len(images) == expected == len({image.tobytes() for image in images})
    drawn = probe_images(checkpoint(), network.spec.plans, HOW, max(2, expected - 5), choosing=False).images
    assert np.array_equal(images[5:], drawn[: expected - 5] if expected > 5 else drawn[:0])


def test_more_are_chosen_where_channels_stand_still() -> None:
    black = torch.zeros(16, 3, 64, 64, dtype=torch.uint8)
    network = checkpoint(black)
    chosen = probe_images(network, network.spec.plans, HOW)
    assert 16 < len(chosen.images) <= 24


def test_photographs_are_padded(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(2):
        Image.new("RGB", (128, 64), (255, 0, 0)).save(tmp_path / f"{number}.png")
    network = checkpoint()
    images = probe_images(network, network.spec.plans, HOW, 2, tmp_path, choosing=False).images
    assert np.allclose(images[0, :, :32, :].mean((1, 2)), [2, -2, -2]) and not images[0, :, 32:].any()


def test_one_image_is_too_few(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "one.png")
    network = checkpoint()
    with pytest.raises(UserError, match="at least 2 readable images"):
        probe_images(network, network.spec.plans, HOW, 2, tmp_path)


def test_scenes_are_calibrated_on_and_are_other_ones() -> None:
    network = checkpoint()
    (batch,) = open_images("scenes", HOW).batches(4, 4)
    probes = probe_images(network, network.spec.plans, HOW, 4, choosing=False).images
    assert batch.shape == probes.shape and not np.allclose(batch, probes)


def test_gray_networks_get_none() -> None:
    with pytest.raises(UserError, match="scenes: are of 3 channels, the network takes 1"):
        open_images("scenes", Preprocessing(64, (0.5,), (0.25,)))


def test_digits_grow_with_large_images_alone() -> None:
    usual = scene_settings(Preprocessing(160, HOW.mean, HOW.std))
    large = scene_settings(Preprocessing((800, 1344), HOW.mean, HOW.std))
    assert (usual.smallest, usual.largest) == (18, 44) and large.largest > 200
