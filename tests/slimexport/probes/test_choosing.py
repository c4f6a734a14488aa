"""Images are added until nearly all channels move, those first that move most."""

import numpy as np
import pytest
import torch

from slimexport.probes.choosing import MORE, MORE_PIXELS, choose, greedy, most_exact, most_others, others
from slimexport.probes.reach import Reach, reach_of
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.data.images import Images
from slimtrain.data.noise import noise_images


def _reach(moves: list[set[int]], channels: int) -> Reach:
    high = np.array([[1.0 if channel in image else 0.0 for channel in range(channels)] for image in moves])
    return Reach(np.zeros_like(high), high, (channels,))


def test_the_image_that_moves_most_of_the_rest_comes_first() -> None:
    reach = _reach([{0}, {0, 1}, {1, 2}, {2, 3, 4, 5}, {1}], 6)
    assert greedy(reach, [0], 10) == [0, 3, 1] and greedy(reach, [0], 2) == [0, 3]


def test_it_ends_where_nothing_moves_the_rest() -> None:
    reach = _reach([{0}, {1}, {0, 1}], 6)
    assert greedy(reach, [0], 10) == [0, 1]


def test_images_that_move_all_are_left_alone() -> None:
    network = untrained_network("us_mobilenet_v1")
    images = noise_images(4, 64, 1)

    def more() -> Images:
        raise AssertionError("nobody asked for more")

    assert choose(network, [network.plan(0.25)], images, more, 16).images is images


@pytest.mark.parametrize("most", [3, 16])
def test_more_are_taken_where_channels_stand_still(most: int) -> None:
    network = untrained_network("us_mobilenet_v1")
    torch.manual_seed(0)
    plans = [network.plan(width) for width in (0.25, 0.3)]
    images = noise_images(2, 32, 1)
    pool = 3 * noise_images(32, 32, 5)
    result = choose(network, plans, images, lambda: pool, most)
    chosen = result.images
    assert (result.unreached > 0.02) == (most == 3)
    assert len(images) < len(chosen) <= most and np.array_equal(chosen[:2], images)
    for plan in plans:
        before, after = (reach_of(network, plan, those) for those in (images, chosen))
        assert after.still(np.arange(len(chosen))) < before.still(np.arange(2))
        if most == 16:
            assert after.still(np.arange(len(chosen))) <= before.still(np.arange(2)) / 3


def test_what_images_move_that_are_not_taken_is_said() -> None:
    """As many as somebody asked for."""
    network = untrained_network("us_mobilenet_v1")
    images, noise = noise_images(2, 32, 1), 3 * noise_images(24, 32, 5)
    result = choose(network, [network.plan(0.25)], images, lambda: noise, 2)
    assert np.array_equal(result.images, images)
    reach = reach_of(network, network.plan(0.25), np.concatenate([images, noise]))
    expected = (reach.still(np.arange(2)) - reach.still(np.arange(26))) / reach.channels
    assert result.unreached == pytest.approx(expected) and expected > 0.05


def test_others_are_none_of_those_that_were_chosen_and_numbers_that_halves_can_hold() -> None:
    pool = noise_images(8, 16, 3)
    pool[5] *= 1e6
    kept = others(pool[[2, 0]], pool)
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept, pool[[1, 3, 4, 6, 7]].astype(np.float16))
    assert others(pool, pool).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(("shape", "count"), [((3, 16, 16), MORE), ((3, 224, 224), 2), ((3, 2048, 2048), 1), ((12, 50), MORE)])
def test_large_images_are_few(shape: tuple[int, ...], count: int) -> None:
    assert most_others(shape) == count
    assert count == 1 or count * np.prod(shape[1:]) <= MORE_PIXELS


def test_the_network_runs_none_of_large_images() -> None:
    assert [most_exact((3, size, size)) for size in (16, 32, 64, 224)] == [MORE, 32, 8, 0]
