"""What a plan keeps of a stored tensor: a leading corner as a view, anything else by its positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimtrain.graph.extents import Slimmed
from slimtrain.graph.graph import Value
from slimtrain.graph.pieces import Pieces
from slimtrain.graph.sizes import Sizing

Kept = slice | Tensor


def kept_of(dim: Slimmed, channels: Mapping[str, int], device: torch.device | None = None) -> Kept:
    """The positions of a dimension that stay under `channels` (group to active slots), as torch takes them: a slice where
    they begin at 0 without a gap."""
    if isinstance(dim, Pieces):
        runs = [*dim.runs(channels)]
        if len(runs) == 1 and runs[0][0] == 0:
            return slice(runs[0][1])
    positions = dim.positions(channels)
    return positions if isinstance(positions, slice) else torch.from_numpy(positions).to(device)


def take(tensor: Tensor, dim: int, kept: Kept) -> Tensor:
    """What stays of one dimension."""
    if isinstance(kept, slice):
        stop = kept.stop
        return tensor if stop is None or stop == tensor.shape[dim] else tensor.narrow(dim, 0, stop)
    return tensor.index_select(dim, kept.to(tensor.device))


@dataclass(frozen=True)
class Cut:
    """What stays of a tensor: of its leading corner (dimensions behind the last slice stay whole) the positions of `picked`
    dimensions."""

    corner: tuple[slice, ...] = ()
    picked: tuple[tuple[int, Tensor], ...] = ()

    @staticmethod
    def of(kept: Sequence[Kept | None]) -> Cut:
        """From what stays of every dimension, None where all does."""
        corner = [part if isinstance(part, slice) else slice(None) for part in kept]
        while corner and corner[-1] == slice(None):
            corner.pop()
        return Cut(tuple(corner), tuple((dim, part) for dim, part in enumerate(kept) if isinstance(part, Tensor)))

    def __call__(self, tensor: Tensor) -> Tensor:
        """A view where a corner is all that it is."""
        if self.corner:
            tensor = tensor[self.corner]
        for dim, positions in self.picked:
            tensor = tensor.index_select(dim, positions.to(tensor.device))
        return tensor


def cut_of(sizing: Sizing, value: Value) -> Cut:
    """What stays of a stored tensor at a plan."""
    extents, kept = sizing.groups.dims[value], sizing.kept(value)
    return Cut.of(
        [
            None if positions is None or not isinstance(extent, Slimmed) else kept_of(extent, sizing.channels)
            for extent, positions in zip(extents, kept, strict=True)
        ]
    )
