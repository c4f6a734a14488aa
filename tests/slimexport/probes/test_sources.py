"""Probe images are those that were given, else those that the checkpoint carries, else noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slimexport.probes.sources import POOL, carried_images, other_images, probe_images
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.checkpoints.own_layout import own_content, read_probe_images
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.checkpoints.writing import save
from slimtrain.data.images import preprocessing_of

PIXELS = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (8, 3, 32, 32), np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A file that carries images."""
    path = tmp_path_factory.mktemp("carrying") / "mine.pt"
    save(own_content(untrained_network("s_mobilenet_v1"), 32, (0.5,) * 3, (0.25,) * 3, probe_images=PIXELS), path)
    return open_checkpoint(path)


def test_noise_where_nothing_is_known(checkpoint: Checkpoint) -> None:
    bare = replace(checkpoint, probe_images=None)
    images, more = probe_images(bare, preprocessing_of(bare, 32), 2)
    pool = more()
    assert images.shape == (2, 3, 32, 32) and len(pool) == POOL and np.array_equal(pool[:2], images)


@pytest.mark.parametrize(("calibrated", "others"), [(None, 8 + POOL), ("digits", 8)])
def test_carried_images_are_normalized_and_come_before_noise(
    calibrated: str | None, others: int, checkpoint: Checkpoint
) -> None:
    images, more = probe_images(checkpoint, preprocessing_of(checkpoint, 32), 3, calibrated=calibrated)
    np.testing.assert_allclose(images, ((PIXELS[:3].numpy() / 255) - 0.5) / 0.25, atol=1e-6)
    assert len(more()) == others


def test_other_images_are_of_the_kinds_that_probe_images_are(checkpoint: Checkpoint, tmp_path: Path) -> None:
    preprocessing, bare = preprocessing_of(checkpoint, 32), replace(checkpoint, probe_images=None)
    carried = carried_images(checkpoint, preprocessing)
    files = np.random.default_rng(2).normal(size=(9, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "files.npy", files)
    with_noise = other_images(checkpoint, preprocessing, 20)
    noise = other_images(bare, preprocessing, 20)
    assert len(noise) == 20 and noise[10:].std() > 2 * noise[:10].std()
    np.testing.assert_array_equal(with_noise, np.concatenate([carried, noise]))
    for count, expected in ((5, 5), (20, 9)):
        given = other_images(checkpoint, preprocessing, count, given=tmp_path / "files.npy")
        assert len(given) == expected and all(any(np.array_equal(one, other) for other in files) for one in given)
        calibrated = other_images(checkpoint, preprocessing, count, calibrated=tmp_path / "files.npy")
        np.testing.assert_array_equal(calibrated, np.concatenate([carried, given]))


def test_more_probes_than_a_file_carries_are_filled_up(checkpoint: Checkpoint) -> None:
    images, _ = probe_images(checkpoint, preprocessing_of(checkpoint, 32), 11)
    assert len(images) == 11


def test_carried_images_take_the_size_that_is_exported(checkpoint: Checkpoint) -> None:
    images = carried_images(checkpoint, preprocessing_of(checkpoint, (48, 64)))
    assert images.shape == (8, 3, 48, 64) and images.dtype == np.float32


def test_integers_are_proven_on_images_of_the_kind_that_they_are_calibrated_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    bare = replace(checkpoint, probe_images=None)
    given = np.random.default_rng(1).normal(size=(9, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "calibration.npy", given)
    images, more = probe_images(bare, preprocessing_of(bare, 32), 2, calibrated=tmp_path / "calibration.npy")
    assert len(images) == 2 and len(more()) == 9 and all(any(np.array_equal(one, other) for other in given) for one in images)


def test_given_images_count_before_all(checkpoint: Checkpoint, tmp_path: Path) -> None:
    given = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "given.npy", given)
    preprocessing = preprocessing_of(checkpoint, 32)
    images, more = probe_images(checkpoint, preprocessing, 2, tmp_path / "given.npy", "digits")
    assert len(images) == 2 and len(more()) == 5 and all(any(np.array_equal(one, other) for other in given) for one in images)
    np.save(tmp_path / "one.npy", given[:1])
    with pytest.raises(UserError, match="at least 2 readable images"):
        probe_images(checkpoint, preprocessing, 2, tmp_path / "one.npy")


@pytest.mark.parametrize(
    "images",
    [PIXELS.float(), PIXELS[0], PIXELS[:, :1], PIXELS[:0], PIXELS.expand(80, 8, 3, 32, 32)[:, 0], "text", [1]],
    ids=str,
)
def test_a_file_that_carries_something_else_is_damaged(images: object) -> None:
    with pytest.raises(CheckpointError, match="probe_images"):
        read_probe_images({"probe_images": images}, "mine.pt", 3)


def test_a_file_that_carries_none_is_none() -> None:
    assert read_probe_images({}, "mine.pt", 3) is None
