"""The ONNX graph that is being written: nodes, initializers, and names that are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]
PENDING = "%"  # begins the names that values bear until their operator is written as a whole


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, with a number where it is taken; it is taken then."""
    number, unique = 0, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


@dataclass
class Sheet:
    """What is written so far. `image`: the input whose first size is the batch. Equal constants are stored once."""

    image: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    stored: dict[Any, str] = field(default_factory=dict)
    pending: int = 0
    batch: str = ""

    def unique(self, name: str) -> str:
        return unique_name(name, self.taken)

    def store(self, name: str, array: Array) -> str:
        """The initializer of an array, called `name` or nearly so."""
        name = self.unique(name)
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")  # which leaves scalars as they are
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.initializers.append(TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes()))
        return name

    def constant(self, array: Array) -> str:
        """The initializer of a small array, shared by all who read the same."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.stored:
            self.stored[key] = self.store(f"constant.{len(self.stored)}", array)
        return self.stored[key]

    def images(self) -> str:
        """The number of images that the network runs on, int64 [1]."""
        if not self.batch:
            (shape, self.batch) = (self.unique("batch.shape"), self.unique("batch.size"))
            self.nodes.append(helper.make_node("Shape", [self.image], [shape], name=shape))
            first = self.constant(np.zeros(1, np.int64))
            self.nodes.append(helper.make_node("Gather", [shape, first], [self.batch], name=self.batch, axis=0))
        return self.batch

    def prune(self, outputs: list[str]) -> None:
        """Leave out what no output needs: a tensor whose every element is written over."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.output):
                kept.append(node)
                needed.update(node.input)
        self.nodes[:] = reversed(kept)
        self.initializers[:] = [tensor for tensor in self.initializers if tensor.name in needed]

    def add(self, nodes: list[onnx.NodeProto], results: list[str], name: str) -> list[str]:
        """Append the nodes of one operator under its name; what `results`, some of their outputs, are called now. A single
        result bears the operator's name, several are numbered, what lies between says its own operator behind it."""
        own = [result for result in dict.fromkeys(results) if result.startswith(PENDING)]
        names: dict[str, str] = {}
        if own:
            base = self.unique(name)
            names = {result: base if len(results) == 1 else self.unique(f"{base}.{results.index(result)}") for result in own}
        whole = next((node for node in nodes if own and len(results) > 1 and len(node.output) > 1), None)
        for node in nodes:
            for output in node.output:
                if output not in names:
                    names[output] = self.unique(f"{name}.{node.op_type.lower()}")
            node.input[:] = [names.get(value, value) for value in node.input]
            node.output[:] = [names[value] for value in node.output]
            node.name = base if node is whole else node.output[0]
            self.nodes.append(node)
        return [names.get(result, result) for result in results]
