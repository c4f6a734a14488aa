"""Which positions of a dimension a plan keeps, where a dimension is put together of channel groups in any way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimtrain.graph.extents import Slimmed

if TYPE_CHECKING:
    from slimtrain.graph.extents import Positions

FIXED = ""  # the group of what no plan slims


@dataclass(frozen=True)
class Piece:
    """Slots `start` to `start + count` of `group`, one after the other, each `repeat` positions wide (a head's channels)."""

    group: str
    start: int
    count: int
    repeat: int = 1

    @property
    def full(self) -> int:
        """Positions that it has at the widest plan."""
        return self.count * self.repeat

    def slots(self, channels: Mapping[str, int]) -> int:
        """How many of its slots stay under `channels` (group to active slots): the leading ones of the group do."""
        if self.group == FIXED:
            return self.count
        return min(max(channels[self.group] - self.start, 0), self.count)

    def active(self, channels: Mapping[str, int]) -> int:
        return self.slots(channels) * self.repeat


@dataclass(frozen=True)
class Pieces(Slimmed):
    """A dimension: pieces in their order. `batch`: all of it once more for every image, the images outermost."""

    pieces: tuple[Piece, ...]
    batch: bool = False

    def active(self, channels: Mapping[str, int]) -> int:
        """The size of this dimension (for one image) under `channels`."""
        return sum(piece.active(channels) for piece in self.pieces)

    @property
    def full(self) -> int:
        return sum(piece.full for piece in self.pieces)

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(piece.group for piece in self.pieces) - {FIXED}

    def runs(self, channels: Mapping[str, int]) -> Iterator[tuple[int, int]]:
        """What stays, as (first position, how many), neighbours joined."""
        at = begin = end = 0
        for piece in self.pieces:
            active = piece.active(channels)
            if at > end and active:
                if end > begin:
                    yield begin, end - begin
                begin = end = at
            end += active
            at += piece.full
        if end > begin:
            yield begin, end - begin

    def positions(self, channels: Mapping[str, int]) -> Positions:
        """Every position that stays, ascending."""
        import numpy as np  # longer to load than all else that reads a graph

        return np.concatenate([np.arange(start, start + length) for start, length in self.runs(channels)] or [np.arange(0)])

    def kept_before(self, position: int, channels: Mapping[str, int]) -> int:
        """How many positions stay of the first `position`: where a slice begins once the dimension is sliced."""
        kept = at = 0
        for piece in self.pieces:
            if at >= position:
                break
            kept += min(piece.active(channels), position - at)
            at += piece.full
        return kept


def pieces_of(groups: Sequence[str], ranks: Positions, which: Positions) -> tuple[Piece, ...]:
    """Positions as few pieces: `which[i]` is the index in `groups` of position i's group, -1 where it is fixed, `ranks[i]` its
    slot there."""
    import numpy as np

    fixed = which < 0
    ranks = np.where(fixed, 0, ranks)
    # Positions with equal slots, one behind the other, are one slot's channels; fixed ones are any number of them.
    starts = np.flatnonzero((np.diff(which, prepend=-2) != 0) | (np.diff(ranks, prepend=-1) != 0))
    lengths = np.diff(starts, append=len(which))
    which, ranks = which[starts], ranks[starts]
    # A piece goes on where the next slot of its group has as many channels.
    goes_on = (which[1:] == which[:-1]) & (which[1:] >= 0) & (lengths[1:] == lengths[:-1]) & (ranks[1:] == ranks[:-1] + 1)
    firsts = np.flatnonzero(np.concatenate([np.ones(min(len(starts), 1), bool), ~goes_on]))
    counts = np.diff(firsts, append=len(starts))
    rows = np.stack([which[firsts], ranks[firsts], counts, lengths[firsts]], axis=1).tolist()
    return tuple(
        Piece(FIXED, 0, length) if group < 0 else Piece(groups[group], rank, count, length)
        for group, rank, count, length in rows
    )
