"""Parts put back into a model, whatever their values are called."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimexport.onnx_files.parts.cutting import Cut, cut_out
from slimexport.onnx_files.parts.joining import joined
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.typed import cast_twin, to_typed


def chain() -> onnx.ModelProto:
    """`x` -> h = relu(3 x) -> m = h - 1 -> g = relu(5 m) -> `y` = g + h, with one number that both products share."""
    numbers = {"three": 3.0, "five": 5.0, "minus": 1.0}
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["p"]),
        helper.make_node("Relu", ["p"], ["h"]),
        helper.make_node("Sub", ["h", "minus"], ["m"]),
        helper.make_node("Mul", ["m", "five"], ["q"]),
        helper.make_node("Relu", ["q"], ["g"]),
        helper.make_node("Add", ["g", "h"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.full((1, 2), value, np.float32), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"precision": "fp32"})
    return model


CUTS = (Cut(("x",), ("h",)), Cut(("m",), ("g",)))
IMAGES = np.array([[0.123, 0.777], [-1, 2.391]], np.float32)


def run(model: onnx.ModelProto) -> np.ndarray:
    (y,) = cpu_session(model).run(None, {"x": IMAGES})
    return np.asarray(y)


def test_the_same_parts_give_the_same_model() -> None:
    whole = joined(chain(), CUTS, [cut_out(chain(), cut) for cut in CUTS], "fp32")
    assert whole.renamed == ({}, {})
    assert [*whole.model.graph.node] == [*chain().graph.node]
    names = [{tensor.name for tensor in model.graph.initializer} for model in (whole.model, chain())]
    assert names[0] == names[1] and np.array_equal(run(whole.model), run(chain()))


def test_values_of_one_name_in_several_parts_are_told_apart() -> None:
    parts = [cut_out(chain(), cut) for cut in CUTS]
    for part in parts:  # both call their own value and their number alike, as numbered pairs do
        first, second = part.graph.node
        part.graph.initializer[0].name = first.input[1] = "w1"
        first.output[0] = second.input[0] = "m" if first.input[0] == "x" else "v1"  # the first as a value between them
    whole = joined(chain(), CUTS, parts, "fp32")
    onnx.checker.check_model(whole.model, full_check=True)
    assert np.array_equal(run(whole.model), run(chain()))
    assert whole.renamed[0] == {"m": "_m"} and whole.renamed[1] == {"w1": "_w1"}


def test_typed_parts_stay_between_float32() -> None:
    parts = [to_typed(cut_out(chain(), cut), "bf16")[0] for cut in CUTS]
    whole = joined(chain(), CUTS, parts, "bf16").model
    onnx.checker.check_model(whole, full_check=True)
    assert {entry.key: entry.value for entry in whole.metadata_props} == {"precision": "bf16"}
    assert [version.version for version in whole.opset_import] == [22]

    def rounded(values: np.ndarray) -> np.ndarray:
        """To bf16, nearest even."""
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)

    h = np.maximum(rounded(rounded(IMAGES) * 3), 0)
    g = np.maximum(rounded(rounded(h - 1) * 5), 0)
    assert np.array_equal(run(cast_twin(whole)), g + h)
    assert not np.array_equal(rounded(g + h), g + h)  # the sum is float32
