"""A slimmable detector's forward pass in its two parts: what is computed of images, and what of regions of them.

The second begins where the first ended: maps are computed once, and gradients flow through both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from slimtrain.graph.graph import Graph, Value
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.prepared import Slots


@dataclass(frozen=True)
class First:
    """What the first part gave: `outputs` by name, and the slots that the second goes on from."""

    images: Tensor
    slots: Slots
    outputs: Mapping[str, Tensor]


class Halves:
    """The parts of `network`, a slimmable detector, at whichever plan is active. One without regions has only the first."""

    def __init__(self, network: SlimmableNetwork) -> None:
        self.network = network
        self.graph: Graph = network.body.order.graph

    @property
    def body(self) -> GraphBody:
        return self.network.body

    @cached_property
    def split(self) -> int:
        """The first node that depends on regions; the number of nodes where none does."""
        of_regions = {name for name, _ in self.graph.inputs[1:]}
        for number, node in enumerate(self.graph.nodes):
            if any(value.node in of_regions for value in node.inputs):
                return number
        return len(self.graph.nodes)

    @cached_property
    def _before(self) -> dict[str, Value]:
        """The outputs that are there by then."""
        nodes = {node.name for node in self.graph.nodes[: self.split]}
        named = zip(self.graph.form.names, self.graph.outputs, strict=True)
        return {name: value for name, value in named if value.node in nodes}

    def first(self, images: Tensor) -> First:
        """Of images [B, 3, H, W] what does not depend on regions."""
        body, empty = self.body, [None] * (len(self.graph.inputs) - 1)
        slots = body.begin(images, *empty)
        body.run(slots, images, 0, self.split)
        return First(images, slots, {name: slots[body.order.slots[value]] for name, value in self._before.items()})

    def second(self, first: First, *regions: Tensor) -> dict[str, Tensor]:
        """All outputs by name, at `regions` [R, 5]: one tensor for each of the network's further inputs. It can be called once
        for each first part, as that part's slots go with it."""
        slots = first.slots
        slots[1 : 1 + len(regions)] = regions
        self.body.run(slots, first.images, self.split, len(self.graph.nodes))
        outputs: dict[str, Tensor] = self.body.given(slots)
        return outputs
