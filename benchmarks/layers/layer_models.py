"""The pairs of models that a layer's time is the difference of, by its channels: of a published architecture's layer, written
without torch, and of a traced network's, written with the exports' own writer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from benchmarks.onnx_models.layer import image_channels, with_layer, without_layer
from slimtrain.base.image_size import ImageSize
from slimtrain.costs.graph_layers import Part
from slimtrain.costs.layer_shapes import LayerShape
from slimtrain.graph.extents import Slimmed
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import MACS
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import Dim

Lattice = Mapping[int, Mapping[str, int]]  # channels that a dimension can have -> the slots of its groups there


class LayerModels(Protocol):
    """The models of a layer at `inp` and `out` channels."""

    def image(self, inp: int, out: int) -> tuple[ImageSize, int]:
        """Size and channels of the images that they take."""

    def base(self, inp: int, out: int) -> Hashable:
        """What the model without the layer depends on: points that agree in it share one."""

    def weights(self, inp: int, out: int) -> int:
        """How many weights the layer has, biases and norms left out or not."""

    def macs(self, inp: int, out: int) -> int:
        """Multiply-accumulates of one image."""

    def with_layer(self, inp: int, out: int, copies: int) -> bytes: ...

    def without_layer(self, inp: int, out: int, copies: int) -> bytes: ...


@dataclass(frozen=True)
class ShapeModels:
    """Of a layer of a published architecture."""

    layer: LayerShape

    def image(self, inp: int, out: int) -> tuple[ImageSize, int]:
        return self.layer.size, image_channels(self.layer)

    def base(self, inp: int, out: int) -> Hashable:
        return inp

    def weights(self, inp: int, out: int) -> int:
        return out * (1 if self.layer.single else inp) * self.layer.kernel**2

    def macs(self, inp: int, out: int) -> int:
        return self.weights(inp, out) * self.layer.positions

    def with_layer(self, inp: int, out: int, copies: int) -> bytes:
        return with_layer(self.layer, inp, out, copies)

    def without_layer(self, inp: int, out: int, copies: int) -> bytes:
        return without_layer(self.layer, inp, copies)


@dataclass(frozen=True)
class PartModels:
    """Of a layer of a traced network. `inputs` and `outputs`: the channels that it can have."""

    spec: GraphSpec
    part: Part
    inputs: Lattice
    outputs: Lattice

    def channels(self, inp: int, out: int) -> Mapping[str, int]:
        """The slots of its groups at so many channels."""
        return {**self.inputs[inp], **self.outputs[out]}

    @cached_property
    def _reads_outputs(self) -> bool:
        extents = (extent for value in self.part.reads for extent in self.spec.dims[value])
        return any(isinstance(extent, Slimmed) and extent.groups & self.part.outputs for extent in extents)

    def image(self, inp: int, out: int) -> tuple[ImageSize, int]:
        from benchmarks.onnx_models.part import image_shape, image_size

        shape = image_shape(self.spec, self.part, self.channels(inp, out))
        return image_size(shape), shape[0]

    def base(self, inp: int, out: int) -> Hashable:
        return (inp, out) if self._reads_outputs else inp

    def weights(self, inp: int, out: int) -> int:
        from benchmarks.onnx_models.part import weights

        return weights(self.spec, self.part, self.channels(inp, out))

    def macs(self, inp: int, out: int) -> int:
        sizing = Sizing(self.spec.graph, self.spec.groups, {**self.spec.groups.sizes, **self.channels(inp, out)})
        return sum(MACS[node.kind](sizing, node) for node in self.part.nodes if node.kind in MACS)

    def with_layer(self, inp: int, out: int, copies: int) -> bytes:
        return self._model(inp, out, copies, with_part=True)

    def without_layer(self, inp: int, out: int, copies: int) -> bytes:
        return self._model(inp, out, copies, with_part=False)

    def _model(self, inp: int, out: int, copies: int, *, with_part: bool) -> bytes:
        from benchmarks.onnx_models.part import part_model

        return part_model(self.spec, self.part, self.channels(inp, out), copies, with_part)


STEPS = 64  # places between narrowest and widest where several groups shrink together
FEW = 16  # slots that are taken one by one: heads, gates


def lattice(dim: Dim | int, low: Mapping[str, int], high: Mapping[str, int]) -> Lattice:
    """The channels that a dimension is measured at: of one group every number of slots between `low` and `high` (group ->
    slots), of several those at which all are narrowed alike."""
    if isinstance(dim, int):
        return {dim: {}}
    if len(dim.groups) == 1:
        (group,) = dim.groups
        return {dim.active({group: slots}): {group: slots} for slots in range(low[group], high[group] + 1)}
    places: dict[int, Mapping[str, int]] = {}
    for step in range(STEPS + 1):
        slots = {group: low[group] + round((high[group] - low[group]) * step / STEPS) for group in dim.groups}
        places[dim.active(slots)] = slots
    return places
