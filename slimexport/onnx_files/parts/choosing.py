"""Which parts of a detector's file get fewer bits, and which stay float32.

Layers do: backbone, pyramid and the hidden layers of all heads. What they end in does not: the last layers, whose numbers are
logits and codes of boxes, and all that is done with these. An fp16 number of some hundred is off by 0.1, so coordinates of
pixels are none; logits in 256 steps are equal by the dozen, so that a ranking by them is chance. The last layers are cheap.
RoIAlign is float32 too, as it reads coordinates, and ONNX gives it one type for these and for maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from slimexport.onnx_files.parts.cutting import Cut, Wiring

WEIGHTED = ("Conv", "Gemm", "ConvTranspose", "MatMul")
REGIONS, MAP = "rows", "map"  # what inner values' names end, or begin, with: regions of images, and maps of a pyramid


@dataclass(frozen=True)
class LowPart:
    """Layers that begin with one value: the images, or what was pooled of regions. `rows`: which inner value those are."""

    cut: Cut
    rows: str | None = None

    @property
    def begin(self) -> str:
        (name,) = self.cut.inputs
        return name


def low_parts(model: onnx.ModelProto, inner: Mapping[str, str]) -> list[LowPart]:
    """The parts of a detector's `model` (fp32) that may have fewer bits. `inner`: what its inner values are called
    (`slimtrain.detection.fixed.shipped.inner_values`): regions, and what layers give."""
    return _Choosing(model, inner).parts()


class _Choosing:
    def __init__(self, model: onnx.ModelProto, inner: Mapping[str, str]) -> None:
        self.model, self.wiring = model, Wiring(model)
        self.regions = {name: key for key, name in inner.items() if key.endswith(REGIONS)}
        self.ends = {name for key, name in inner.items() if not key.endswith(REGIONS)}
        self.told = {name for key, name in inner.items() if key.startswith(MAP)}
        self.stored = {tensor.name for tensor in model.graph.initializer}

    def parts(self) -> list[LowPart]:
        (image,) = (value.name for value in self.model.graph.input)
        every = self.wiring.between({image, *self.regions}, self.ends)
        low = every - self._of_regions(every) - self._last(every)
        parts = []
        for numbers in self._connected(low):
            begins = self.wiring.entering(numbers)
            assert len(begins) == 1, f"layers that begin with {', '.join(begins)}"
            cut = Cut((begins[0],), tuple(self.wiring.leaving(numbers, self.told)))
            parts.append(LowPart(cut, None if begins[0] == image else self._rows_of(begins[0])))
        return sorted(parts, key=lambda part: self.wiring.makers.get(part.begin, -1))

    def _weighs(self, number: int) -> bool:
        node = self.wiring.nodes[number]
        return node.op_type in WEIGHTED and node.input[1] in self.stored

    def _of_regions(self, every: set[int]) -> set[int]:
        """What is made of regions before a layer reads it."""
        values, numbers = set(self.regions), set[int]()
        for number in sorted(every):
            node = self.wiring.nodes[number]
            if values.intersection(node.input) and not self._weighs(number):
                numbers.add(number)
                values.update(node.output)
        return numbers

    def _last(self, every: set[int]) -> set[int]:
        """The last layers, and what is done with their numbers; nothing of what ends in maps."""
        numbers, needed = set[int](), list(self.ends - self.told)
        while needed:
            number = self.wiring.makers.get(needed.pop())
            if number is None or number not in every or number in numbers:
                continue
            numbers.add(number)
            if not self._weighs(number):
                needed += self.wiring.nodes[number].input
        return numbers

    def _connected(self, numbers: set[int]) -> list[set[int]]:
        """Nodes that hand values to each other."""
        left, groups = set(numbers), []
        while left:
            group, waiting = set[int](), [min(left)]
            while waiting:
                number = waiting.pop()
                if number in group:
                    continue
                group.add(number)
                node = self.wiring.nodes[number]
                near = [self.wiring.makers[name] for name in node.input if name in self.wiring.makers]
                near += [reader for name in node.output for reader in self.wiring.readers.get(name, ())]
                waiting += [other for other in near if other in left]
            groups.append(group)
            left -= group
        return groups

    def _rows_of(self, value: str) -> str | None:
        """Which regions a value is made of."""
        numbers = self.wiring.between(self.regions, [value])
        read = {name for number in numbers for name in self.wiring.nodes[number].input}
        return next((key for name, key in self.regions.items() if name in read), None)
