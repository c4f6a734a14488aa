"""A detector's ONNX file with its inner values in the open: what it gives of them, and what it makes of given ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from slimexport.onnx_files.graph_writer import INNER
from slimexport.onnx_files.parts.cutting import Wiring, with_outputs
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.precision import EXACT
from slimexport.target.runners import runs_on_cpu

WHOLE = "whole"
REGIONS = "rows"  # the end of what regions are called
LARGE = 2**20  # pixels of a batch: more are run in stages


class Inside:
    """`model`: of a file, whose metadata say what its inner values are called (`write_graph`). BundleError where they do not,
    or name what is not there. One session is open at a time, that of the last call: each has its own copy of the weights, and
    those of the whole model as much memory as images took."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        stored = {entry.key: entry.value for entry in model.metadata_props}
        if INNER not in stored:
            raise BundleError(f"{model.graph.name}: does not tell what its inner values are called. Export again.")
        self.names: dict[str, str] = json.loads(stored[INNER])
        self.outputs = [output.name for output in model.graph.output]
        self._wiring = Wiring(model)
        (self.image,) = (value.name for value in model.graph.input)
        if lacking := [name for name in self.names.values() if name not in self._wiring.makers]:
            raise BundleError(f"{model.graph.name}: has no value {lacking[0]}, of which its metadata tell. Export again.")
        self._open: tuple[object, Any] = (None, None)

    @staticmethod
    def read(path: Path, precision: str = EXACT) -> Inside:
        """Of a file as this machine's onnxruntime can run it."""
        model = onnx.load(path)
        return Inside(model if runs_on_cpu(precision) else cast_twin(model))

    def run(self, images: Array) -> dict[str, Array]:
        """All inner values and outputs, by what they are known as."""
        if images[:, 0].size > LARGE:
            return self._in_stages(images)
        names = [*self.names.values(), *self.outputs]
        session = self._session(WHOLE, lambda: with_outputs(self.model, self.names.values()))
        values = session.run(list(dict.fromkeys(names)), {self.image: images})
        by_name = dict(zip(dict.fromkeys(names), values, strict=True))
        return {key: by_name[name] for key, name in self.names.items()} | {name: by_name[name] for name in self.outputs}

    def _in_stages(self, images: Array) -> dict[str, Array]:
        """The same, one stage of the file after the other, each of what those before it gave: onnxruntime runs a whole file in
        an order that has three times as much in memory."""
        values: dict[str, Array] = {}
        for stage in self._stages:
            there = {self.names.get(key, key): array for key, array in values.items()}
            known = {key: there[self.names.get(key, key)] for key in stage if self.names.get(key, key) in there}
            rest = [key for key in stage if key not in known]
            values |= known | (self.of(values, images, rest) if rest else {})
        return values

    @cached_property
    def _stages(self) -> list[list[str]]:
        """What is known before regions are, regions, what heads give of them, and the outputs."""
        left, stages = list(self.names), []
        for regions in [key for key in self.names if key.endswith(REGIONS)]:
            maker = self._wiring.makers[self.names[regions]]
            before = [key for key in left if maker not in self._wiring.between((), (self.names[key],))]
            stages += [before, [regions]]
            left = [key for key in left if key not in before and key != regions]
        return [stage for stage in (*stages, left, self.outputs) if stage]

    def of(self, given: Mapping[str, Array], images: Array, wanted: Sequence[str]) -> dict[str, Array]:
        """Inner values or outputs that are `wanted`, where others are `given`: what the file makes of these, whatever it would
        have in their place."""
        fed = {self.names.get(key, key): values for key, values in given.items()} | {self.image: images}
        ends = list(dict.fromkeys(self.names.get(key, key) for key in wanted))
        key = tuple((name, values.shape) for name, values in fed.items()), tuple(ends)
        session = self._session(key, lambda: self._part(fed, ends))
        taken = {value.name for value in session.get_inputs()}
        run = session.run(ends, {name: values for name, values in fed.items() if name in taken})
        results = dict(zip(ends, run, strict=True))
        return {key: results[self.names.get(key, key)] for key in wanted}

    def _session(self, key: object, model: Callable[[], onnx.ModelProto]) -> Any:
        """The session of what `key` says, of a `model` that is made where it is not open."""
        if self._open[0] != key:
            self._open = (None, None)  # before there is another
            self._open = (key, cpu_session(model(), frugal=True))
        return self._open[1]

    def _part(self, fed: Mapping[str, Array], ends: Sequence[str]) -> onnx.ModelProto:
        """The model of `ends` by what is fed."""
        own = [self.model.graph.node[number] for number in sorted(self._wiring.between(fed, ends))]
        nodes = [_without(node, set(fed)) for node in own]  # what is fed is made by none of them
        read = {name for node in own for name in node.input}
        stored = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        graph = helper.make_graph(
            nodes,
            self.model.graph.name,
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
                for name, values in fed.items()
                if name in read
            ],
            [onnx.ValueInfoProto(name=name) for name in ends],
            stored,
        )
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)


def _without(node: onnx.NodeProto, fed: set[str]) -> onnx.NodeProto:
    """A node that makes several values, some of which are given from outside: it calls these otherwise."""
    if not fed.intersection(node.output):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [f"{name} as computed" if name in fed else name for name in node.output]
    return copy
