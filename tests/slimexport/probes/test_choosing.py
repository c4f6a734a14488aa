"""Images are added until nearly all channels move, those first that move most."""

import numpy as np
import pytest
import torch

from slimexport.probes.choosing import (
    MORE,
    MORE_PIXELS,
    choose,
    far_reaching,
    farthest,
    greedy,
    most_exact,
    most_others,
    others,
    turned,
)
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


def test_a_pool_that_holds_an_image_twice_gives_it_once() -> None:
    pool = noise_images(4, 16, 3)
    np.testing.assert_array_equal(others(pool[:1], pool[[0, 1, 2, 1, 3, 2]]), pool[[1, 2, 3]].astype(np.float16))


def test_images_are_turned_in_every_way_that_keeps_their_size() -> None:
    image = np.arange(12.0, dtype=np.float32).reshape(1, 3, 2, 2)
    ways = turned(image)
    assert len({way.tobytes() for way in ways}) == 4
    assert [way[0].tolist() for way in ways] == [[[0, 1], [2, 3]], [[1, 0], [3, 2]], [[2, 3], [0, 1]], [[0, 2], [1, 3]]]
    assert turned(image.reshape(1, 3, 1, 4)).shape == (3, 3, 1, 4)
    assert turned(image.reshape(1, 3, 4)).shape == (1, 3, 4)


def test_an_image_that_moves_a_channel_first_comes_before_those_that_move_others_farther() -> None:
    """Channels 0 to 2; image 0 is known, 1 widens the first by half, 2 opens the last a little, 3 does nothing new."""
    high = np.array([[0.5, 0.5, 0.0], [1.0, 0.5, 0.0], [0.5, 0.5, 1.0], [0.2, 0.5, 0.0]])
    reach = Reach(np.zeros_like(high), high, (3,))
    assert farthest(reach, 1, 2) == [2, 1]
    assert sorted(farthest(reach, 1, 9)) == [1, 2, 3]


def test_images_that_move_what_no_image_of_the_pool_does_are_held_against_the_network() -> None:
    network = untrained_network("us_mobilenet_v1")
    plan, pool = network.plan(0.25), noise_images(80, 32, 9)
    images = pool[:2]
    held = others(images, far_reaching(network, [plan], images, pool))[: most_exact(pool.shape[1:])].astype(np.float32)
    first = others(images, pool)[: len(held)].astype(np.float32)
    assert len(held) == 32
    reach = reach_of(network, plan, np.concatenate([images, first, held]))
    before, after = np.r_[0 : 2 + len(first)], np.r_[0:2, 2 + len(first) : len(reach.low)]
    widths = [reach.high[chosen].max(0) - reach.low[chosen].min(0) for chosen in (before, after)]
    assert np.sqrt(widths[1]).sum() > np.sqrt(widths[0]).sum()
    large = np.zeros((3, 3, 224, 224), np.float32)
    assert far_reaching(network, [plan], large[:2], large) is large, "the network runs none of those"


@pytest.mark.parametrize(("shape", "count"), [((3, 16, 16), MORE), ((3, 224, 224), 2), ((3, 2048, 2048), 1), ((12, 50), MORE)])
def test_large_images_are_few(shape: tuple[int, ...], count: int) -> None:
    assert most_others(shape) == count
    assert count == 1 or count * np.prod(shape[1:]) <= MORE_PIXELS


def test_the_network_runs_none_of_large_images() -> None:
    assert [most_exact((3, size, size)) for size in (16, 32, 64, 224)] == [MORE, 32, 8, 0]


def test_the_farthest_are_those_of_looking_at_all_every_time() -> None:
    generator = np.random.default_rng(6)
    low = -generator.exponential(size=(40, 30)) * generator.integers(0, 2, (40, 30))
    reach = Reach(low, low + generator.exponential(size=(40, 30)), (30,))
    widths, chosen = reach.high.max(0) - reach.low.min(0), [0, 1, 2]
    while len(chosen) < 15:
        ranges = [reach.high[[*chosen, i]].max(0) - reach.low[[*chosen, i]].min(0) for i in range(40)]
        chosen.append(int(np.argmax([np.sqrt(share / widths).sum() * (i not in chosen) for i, share in enumerate(ranges)])))
    assert farthest(reach, 3, 12) == chosen[3:]


def test_images_of_which_a_network_computes_infinities_are_taken_too() -> None:
    reach = _reach([{0}, {1}, {2}], 3)
    reach.high[2] = np.inf
    assert sorted(farthest(reach, 1, 2)) == [1, 2]


def test_those_taken_are_those_of_counting_all_channels_every_time() -> None:
    generator = np.random.default_rng(8)
    low = -generator.exponential(size=(40, 300)) * generator.integers(0, 2, (40, 300))
    reach = Reach(low, low + generator.exponential(size=(40, 300)) ** 4 / 100, (100, 200))
    chosen = [0, 1]
    while reach.still(np.array(chosen)) > 3 and len(chosen) < 12:
        counts = [reach.still(np.array([*chosen, i])) for i in range(40)]
        if min(counts) == reach.still(np.array(chosen)):
            break
        chosen.append(int(np.argmin(counts)))
    assert len(chosen) > 4
    assert greedy(reach, [0, 1], 12) == chosen
