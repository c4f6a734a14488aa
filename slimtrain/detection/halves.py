"""A slimmable detector's forward pass in its parts: what is computed of images, and what of regions of them.

Each begins where the one before ended: maps are computed once, and gradients flow through all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from slimtrain.graph.graph import Graph
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.prepared import Slots


@dataclass(frozen=True)
class First:
    """What the first part gave, or several: `outputs` by name, and the slots that the next goes on from. `regions`: how many
    of the network's inputs of regions it was computed of."""

    images: Tensor
    slots: Slots
    outputs: Mapping[str, Tensor]
    regions: int = 0


class Halves:
    """The parts of `network`, a slimmable detector, at whichever plan is active. One without regions has only the first."""

    def __init__(self, network: SlimmableNetwork) -> None:
        self.network = network
        self.graph: Graph = network.body.order.graph

    @property
    def body(self) -> GraphBody:
        return self.network.body

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """Of each input of regions the first node that reads it or stands behind one that does; then the number of nodes."""
        nodes = self.graph.nodes
        firsts = [len(nodes)]
        for name, _ in reversed(self.graph.inputs[1:]):
            reading = (number for number, node in enumerate(nodes) if any(value.node == name for value in node.inputs))
            firsts.insert(0, min(next(reading, len(nodes)), firsts[0]))
        return tuple(firsts)

    @property
    def split(self) -> int:
        """The first node that depends on regions; the number of nodes where none does."""
        return self.splits[0]

    def _outputs(self, slots: Slots, end: int) -> dict[str, Tensor]:
        """The outputs that are there before node `end`."""
        nodes = {node.name for node in self.graph.nodes[:end]}
        named = zip(self.graph.form.names, self.graph.outputs, strict=True)
        return {name: slots[self.body.order.slots[value]] for name, value in named if value.node in nodes}

    def first(self, images: Tensor) -> First:
        """Of images [B, 3, H, W] what does not depend on regions."""
        body, empty = self.body, [None] * (len(self.graph.inputs) - 1)
        slots = body.begin(images, *empty)
        body.run(slots, images, 0, self.split)
        return First(images, slots, self._outputs(slots, self.split))

    def further(self, before: First, regions: Tensor) -> First:
        """What the network's next regions [R, 5] add, those behind them not known yet. It can be called once for what was
        `before`, as with `second`, whose place it takes step by step."""
        slots, count = before.slots, before.regions + 1
        slots[count] = regions
        self.body.run(slots, before.images, self.splits[count - 1], self.splits[count])
        return First(before.images, slots, self._outputs(slots, self.splits[count]), count)

    def second(self, first: First, *regions: Tensor) -> dict[str, Tensor]:
        """All outputs by name, at `regions` [R, 5]: one tensor for each of the network's further inputs. It can be called once
        for each first part, as that part's slots go with it."""
        slots = first.slots
        slots[1 : 1 + len(regions)] = regions
        self.body.run(slots, first.images, self.split, len(self.graph.nodes))
        outputs: dict[str, Tensor] = self.body.given(slots)
        return outputs
