"""All values that a file computes on the way, by the names of the fp32 model that it was written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from slimexport.onnx_files.pairs import Affine, Recorded
from slimexport.onnx_files.runner import cpu_session
from slimexport.target.arrays import Array
from slimtrain.data.images import Images

READ_BACK = "DequantizeLinear"


@dataclass(frozen=True)
class Values:
    """`there`: values of the fp32 model that the file has, the images among them, as numbers. `integers`: those that are read
    through a pair, in 8 bits. `plain`: those that the file has as they were before they became integers. `results`: the
    outputs, as they are."""

    there: Mapping[str, Array]
    plain: Mapping[str, Array]
    integers: Mapping[str, Array]
    results: Mapping[str, Array]


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX's numbers of the types of a model's values, as far as they can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def values_of(model: onnx.ModelProto, recorded: Recorded, images: Images, *, as_written: bool) -> Values:
    """Run a file's `model` on images, with all its values as outputs; `as_written`: operator by operator."""
    base = recorded.base.graph
    (image,) = (value.name for value in base.input)
    known = {output for node in model.graph.node for output in node.output}
    plain = [output for node in base.node for output in node.output if output in known]
    integers = {value: name for value, name in recorded.names.items() if name in known}
    given = _run(model, [*plain, *integers.values()], images, as_written)
    there = {name: given[name] for name in plain if name not in recorded.forms}
    there |= {
        value: as_numbers(given[name], recorded.forms[value]) for value, name in integers.items() if value in recorded.forms
    }
    there.setdefault(image, images)
    reads = {base.node[number].input[place] for number, place in recorded.reads}
    results = {output.name: given[output.name] for output in model.graph.output}
    read_back = {output for node in model.graph.node if node.op_type == READ_BACK for output in node.output}  # a result
    before = {name: given[name] for name in plain if name in recorded.forms and name not in read_back} | {image: images}
    return Values(there, before, {value: given[name] for value, name in integers.items() if value in reads}, results)


def as_numbers(integers: Array, form: Affine) -> Array:
    """What 8-bit integers stand for, in float32."""
    return np.float32(form.scale) * (integers.astype(np.int32) - int(form.zero)).astype(np.float32)


def _run(model: onnx.ModelProto, names: Iterable[str], images: Images, as_written: bool) -> dict[str, Array]:
    types = types_of(model)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {output.name for output in probe.graph.output}
    for name in dict.fromkeys(names):
        if name not in outputs:
            probe.graph.output.append(helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None))
    session = cpu_session(probe, as_written=as_written)
    (image,) = (value.name for value in session.get_inputs())
    return dict(zip((value.name for value in session.get_outputs()), session.run(None, {image: images}), strict=True))
