"""Images to measure with: random, rotated among enough buffers, out of one pool."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cells.inputs import UNKNOWN_CACHE_BYTES, RandomImages, assumed_cache, cache_bytes
from slimtrain.base.image_size import ImageSize, sides

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize("image_size", [4, 5, 32])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_buffers_are_random_and_larger_than_twice_the_cache(image_size: int, batch: int) -> None:
    images = RandomImages(image_size)
    buffers = images.buffers(batch, 256 * KIB)
    assert all(buffer.shape == (batch, 3, image_size, image_size) and buffer.dtype == np.float32 for buffer in buffers)
    assert sum(buffer.nbytes for buffer in buffers) > 512 * KIB
    assert sum(buffer.nbytes for buffer in buffers[1:]) <= 512 * KIB  # and no more than that takes
    assert images.covers_cache(batch, 256 * KIB)
    assert all(buffer.flags.c_contiguous and not buffer.flags.writeable for buffer in buffers)
    assert {buffer.ctypes.data % 64 for buffer in buffers} == {buffers[0].ctypes.data % 64}
    assert not any(np.shares_memory(*pair) for pair in itertools.pairwise(buffers))
    every = np.concatenate([buffer.reshape(-1) for buffer in buffers])
    assert abs(every.mean()) < 0.02
    assert abs(every.std() - 1) < 0.02
    assert len(np.unique([buffer.reshape(-1)[0] for buffer in buffers])) == len(buffers)


def test_without_a_cache_there_are_two_buffers_that_differ() -> None:
    first, second = RandomImages(4).buffers(1, 0)
    assert not np.array_equal(first, second)
    assert first.any() and second.any()


def test_the_cap_is_kept_and_told() -> None:
    images = RandomImages(32, most_bytes=100 * KIB)  # an image takes 12 KiB
    buffers = images.buffers(1, MIB)
    assert len(buffers) == 8
    assert not images.covers_cache(1, MIB)
    assert images.covers_cache(1, 40 * KIB)
    assert not images.covers_cache(1, 48 * KIB)  # 96 KiB are not more than twice as much
    assert len(images.buffers(16, MIB)) == 2  # larger than the cap, and yet two


def test_all_batches_share_one_pool() -> None:
    images = RandomImages(32)
    one, eight, again = images.buffers(1, MIB), images.buffers(8, MIB), images.buffers(1, MIB)
    assert again is one  # of small images there are many: one list for all
    assert np.shares_memory(one[0], eight[0])
    held = sum(block.nbytes for block in images._blocks)
    assert held < 1.2 * 2 * MIB


def test_a_grown_pool_leaves_earlier_buffers_what_they_are() -> None:
    images = RandomImages(8)
    before = images.buffers(1, KIB)
    copies = [buffer.copy() for buffer in before]
    assert len(images.buffers(1, 64 * KIB)) > len(before)
    for buffer, copy in zip(before, copies, strict=True):
        np.testing.assert_array_equal(buffer, copy)


def test_a_seed_gives_the_same_images() -> None:
    one, same, other = (RandomImages(8, seed=seed).buffers(1, KIB)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def lay_out(root: Path, caches: dict[str, tuple[str, str]]) -> Path:
    for place, (level, size) in caches.items():
        folder = root / place.replace("/", "/cache/")
        folder.mkdir(parents=True)
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    return root


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ({"cpu0/index0": ("1", "48K"), "cpu0/index2": ("2", "2048K"), "cpu0/index3": ("3", "491520K")}, 480 * MIB),
        ({"cpu0/index3": ("3", "480M"), "cpu1/index3": ("3", "32M")}, 480 * MIB),
        ({"cpu0/index0": ("1", "64K"), "cpu0/index2": ("2", "512K"), "cpu4/index2": ("2", "1024K")}, MIB),
        ({"cpu0/index2": ("2", "4096K"), "cpu0/index3": ("3", "2048K")}, 2 * MIB),
        ({"cpu0/index3": ("3", "1G")}, 1 << 30),
        ({"cpu0/index3": ("3", "65536")}, 64 * KIB),
        ({"cpu0/index0": ("1", "48K"), "cpu0/index3": ("3", "?")}, 48 * KIB),
        ({"cpu0/index3": ("3", "0K")}, UNKNOWN_CACHE_BYTES),
        ({"cpufreq/index3": ("3", "1M")}, UNKNOWN_CACHE_BYTES),
        ({}, UNKNOWN_CACHE_BYTES),
    ],
)
def test_the_last_level_is_found(tmp_path: Path, caches: dict[str, tuple[str, str]], expected: int) -> None:
    assert cache_bytes(lay_out(tmp_path, caches)) == expected


def test_this_machine_has_a_cache() -> None:
    assert cache_bytes() >= 64 * KIB
    assert UNKNOWN_CACHE_BYTES == 32 * MIB


def test_an_assumed_cache_ends_with_its_block() -> None:
    own = cache_bytes()
    with assumed_cache(123):
        with assumed_cache(None):
            assert cache_bytes() == 123
        with assumed_cache(4):
            assert cache_bytes() == 4
        assert cache_bytes() == 123
    assert cache_bytes() == own


@pytest.mark.parametrize(("size", "channels"), [((6, 10), 1), ((10, 6), 4), (8, 2)])
def test_images_of_any_shape_and_channels(size: ImageSize, channels: int) -> None:
    images = RandomImages(size, channels=channels)
    shape = (3, channels, *sides(size))
    buffers = images.buffers(3, 64 * KIB)
    assert {buffer.shape for buffer in buffers} == {shape}
    assert sum(buffer.nbytes for buffer in buffers) > 2 * 64 * KIB and images.covers_cache(3, 64 * KIB)
