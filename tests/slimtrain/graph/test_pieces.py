"""Pieces against the positions that they stand for."""

from __future__ import annotations

import random

import numpy as np
import pytest

from slimtrain.graph.pieces import FIXED, Piece, Pieces, pieces_of

GROUPS = ["a", "b"]


def random_line(draw: random.Random) -> tuple[list[int], list[int]]:
    """Group (-1: fixed) and slot of every position, put together of runs."""
    which, ranks = [], []
    for _ in range(draw.randint(1, 6)):
        group, start, count, repeat = draw.randint(-1, 1), draw.randint(0, 5), draw.randint(1, 5), draw.randint(1, 3)
        for slot in range(start, start + count):
            which += [group] * repeat
            ranks += [slot] * repeat
    return which, ranks


@pytest.mark.parametrize("seed", range(40))
def test_what_stays_is_what_every_position_says(seed: int) -> None:
    draw = random.Random(seed)
    which, ranks = random_line(draw)
    pieces = Pieces(pieces_of(GROUPS, np.array(ranks), np.array(which)))
    channels = {group: draw.randint(0, 10) for group in GROUPS}
    expected = [i for i, (g, r) in enumerate(zip(which, ranks, strict=True)) if g < 0 or r < channels[GROUPS[g]]]
    assert pieces.full == len(which)
    assert pieces.positions(channels).tolist() == expected
    assert pieces.active(channels) == len(expected)
    assert [i for start, length in pieces.runs(channels) for i in range(start, start + length)] == expected
    for bound in range(len(which) + 1):
        assert pieces.kept_before(bound, channels) == sum(i < bound for i in expected)


def test_a_whole_group_is_one_piece() -> None:
    assert pieces_of(GROUPS, np.arange(64), np.zeros(64, int)) == (Piece("a", 0, 64),)


def test_heads_are_slots_of_many_positions() -> None:
    ranks = np.repeat(np.arange(3), 8)
    assert pieces_of(GROUPS, np.tile(ranks, 2), np.zeros(48, int)) == (Piece("a", 0, 3, 8), Piece("a", 0, 3, 8))


def test_fixed_positions_belong_to_no_group() -> None:
    pieces = Pieces(pieces_of(GROUPS, np.array([9, 9, 0, 1]), np.array([-1, -1, 1, 1])))
    assert pieces.pieces == (Piece(FIXED, 0, 2), Piece("b", 0, 2)) and pieces.groups == {"b"}
