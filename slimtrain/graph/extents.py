"""How large a dimension is: fixed, so many per image, or as a plan says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from slimtrain.graph.graph import Batch, Graph, Value

if TYPE_CHECKING:  # numpy takes longer to load than all else here
    import numpy as np
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]


class Slimmed(ABC):
    """A dimension that a plan decides the size of. `channels`: group -> its active channels (slots)."""

    @abstractmethod
    def active(self, channels: Mapping[str, int]) -> int:
        """Its size."""

    @abstractmethod
    def positions(self, channels: Mapping[str, int]) -> slice | Positions:
        """What stays of it."""

    @property
    @abstractmethod
    def groups(self) -> frozenset[str]:
        """The channel groups that it depends on."""


Extent = int | Batch | Slimmed
Dims = Mapping[Value, tuple[Extent, ...]]


class HasDims(Protocol):
    """Whatever knows the extents of every value's dimensions in a graph. `reordered`: nodes after which a narrow network's
    channels stand in another order than the wide one's."""

    @property
    def dims(self) -> Dims: ...

    @property
    def reordered(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class WiredGraph:
    """A graph, and the extents of every value's dimensions."""

    graph: Graph
    dims: Dims
    reordered: frozenset[str] = frozenset()
