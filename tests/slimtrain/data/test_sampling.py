"""Draws against what they promise: balanced, mixed, from the whole, the same again."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from slimtrain.data.sampling import Draw, draw, in_rounds, share_by_class

LABELS = [0] * 700 + [1] * 40 + [2] * 260  # class by class, as names sort them


def by_class(indices: object, labels: list[int] = LABELS) -> Counter[int]:
    return Counter(np.asarray(labels)[np.asarray(indices)].tolist())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30, 120, 121, 160, 700, 999, 1000, 5000])
def test_a_draw_holds_as_many_of_each_class_as_can_be(count: int) -> None:
    drawn = draw(LABELS, count)
    taken = min(count, 1000)
    assert len(drawn) == len(set(drawn.indices.tolist())) == taken and drawn.total == 1000
    counts, sizes = by_class(drawn.indices), Counter(LABELS)
    assert drawn.per_class == tuple(counts[c] for c in sorted(counts))
    for label in sizes:  # a class of which more could be had has at most one less than any other
        assert counts[label] == sizes[label] or counts[label] >= max(counts.values()) - 1


def test_a_draw_is_the_same_again_and_another_by_another_seed() -> None:
    first = draw(LABELS, 100).indices
    assert np.array_equal(first, draw(LABELS, 100).indices)
    assert not np.array_equal(first, draw(LABELS, 100, 1).indices)
    state = random.getstate()
    draw(LABELS, 100, "search:3")
    assert random.getstate() == state


@pytest.mark.parametrize("count", [80, 400, 1000])
def test_every_batch_of_a_draw_mixes_the_classes_as_chance_does(count: int) -> None:
    """The labels' unbiased variance within batches of a draw is that of the whole draw, on average over seeds."""
    within, whole = [], []
    for seed in range(200):
        labels = np.asarray(LABELS)[draw(LABELS, count, seed).indices]
        within += [batch.var(ddof=1) for batch in np.split(labels, count // 8)]
        whole.append(labels.var(ddof=1))
    assert np.mean(within) == pytest.approx(np.mean(whole), rel=0.05)


def test_without_classes_images_come_from_the_whole_set() -> None:
    indices = draw([0] * 10_000, 500).indices
    counts, _ = np.histogram(indices, 10, (0, 10_000))
    assert counts.min() > 25 and counts.max() < 80
    assert draw([0] * 10_000, 500).describe() == "500 of 10,000 images"


def test_all_images_are_an_order_of_all() -> None:
    drawn = draw(LABELS, 1000)
    assert sorted(drawn.indices.tolist()) == list(range(1000))
    listed = list(range(1000))
    random.Random(0).shuffle(listed)  # as searches have always drawn them
    assert drawn.indices.tolist() == listed


def test_every_beginning_of_rounds_is_balanced() -> None:
    order = in_rounds(LABELS)
    assert sorted(order.tolist()) == list(range(1000))
    for count in (2, 3, 10, 60, 120):
        counts = by_class(order[:count])
        assert max(counts.values()) - min(counts.get(label, 0) for label in range(3)) <= 1
    assert by_class(order[:160])[1] == 40
    alone = in_rounds([0] * 1000)
    assert alone[:100].max() > 500, "from the whole of a class"
    assert in_rounds([0] * 1000, seed=1).tolist() != alone.tolist() == in_rounds([0] * 1000).tolist()


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_a_share_is_taken_of_every_class(share: float) -> None:
    labels = [*LABELS, 3, 4, 4]
    rest, drawn = share_by_class(labels, share)
    assert sorted([*rest.tolist(), *drawn.tolist()]) == list(range(1003))
    counts, sizes = by_class(drawn, labels), Counter(labels)
    assert counts[3] == 0  # its only image is trained on
    for label in (0, 1, 2, 4):
        assert 1 <= counts[label] < sizes[label]
        assert abs(counts[label] - share * sizes[label]) < 1 or counts[label] in (1, sizes[label] - 1)
    assert np.array_equal(drawn, share_by_class(labels, share)[1])
    assert not np.array_equal(drawn, share_by_class(labels, share, 5)[1])


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6])
def test_a_share_of_many_small_classes_is_that_of_all(share: float) -> None:
    """Each rounded for itself, half of 3 images would be 2 in every class."""
    labels = [label for label in range(100) for _ in range(3 + label % 4)]
    assert len(share_by_class(labels, share)[1]) == pytest.approx(share * len(labels), abs=1)
    assert len(share_by_class([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 0.5)[1]) == 6


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        (draw([0, 1, 2, 3] * 3000, 256), "256 of 12,000 images, 64 of each of 4 classes"),
        (draw([0, 1, 2] * 5, 4), "4 of 15 images, 1 to 2 of each of 3 classes"),
        (draw(list(range(1000)) * 2, 256), "256 of 2,000 images, 1 of each of 256 of 1,000 classes"),
        (draw([0], 5), "1 of 1 image"),
        (draw([], 5), "0 of 0 images"),
    ],
)
def test_a_draw_says_how_many_of_how_many(drawn: Draw, text: str) -> None:
    assert drawn.describe() == text
