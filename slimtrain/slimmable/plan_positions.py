"""What a plan keeps of a stored tensor's dimension: a leading corner as a view, anything else by its positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from slimtrain.graph.extents import Positions

Kept = slice | Tensor


def kept_of(positions: slice | Positions, device: torch.device | None = None) -> Kept:
    """Positions as torch takes them; ascending ones that begin at 0 without a gap are a slice."""
    if isinstance(positions, slice):
        return positions
    if len(positions) and positions[-1] == len(positions) - 1:
        return slice(len(positions))
    return torch.from_numpy(positions).to(device)


def take(tensor: Tensor, dim: int, kept: Kept) -> Tensor:
    """What stays of one dimension."""
    if isinstance(kept, slice):
        stop = kept.stop
        return tensor if stop is None or stop == tensor.shape[dim] else tensor.narrow(dim, 0, stop)
    return tensor.index_select(dim, kept.to(tensor.device))
