"""Models between values of other models."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimexport.onnx_files.parts.cutting import Cut, Wiring, cut_out, shapes_of
from slimexport.onnx_files.runner import cpu_session


def forked() -> onnx.ModelProto:
    """`x` [batch, 2] -> a = x + 1 -> b = 2 a, c = a b -> `y` = c + b."""
    two, one = (numpy_helper.from_array(np.array(value, np.float32), name) for value, name in ((2, "two"), (1, "one")))
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a"]),
        helper.make_node("Mul", ["a", "two"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "forked", ends[:1], ends[1:], [two, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_between_values_ends_at_them() -> None:
    wiring = Wiring(forked())
    assert wiring.between(["x"], ["y"]) == {0, 1, 2, 3}
    assert wiring.between(["a"], ["b"]) == {1}
    assert wiring.between(["a", "b"], ["y"]) == {2, 3}
    assert wiring.between(["y"], ["y"]) == set()


def test_what_enters_and_leaves_nodes() -> None:
    wiring = Wiring(forked())
    assert wiring.entering({1, 2}) == ["a"] and wiring.leaving({1, 2}) == ["b", "c"]
    assert wiring.entering({0}) == ["x"] and wiring.leaving({0, 1, 2, 3}) == ["y"]
    assert wiring.leaving({0, 1, 2, 3}, {"a"}) == ["a", "y"]


def test_a_part_computes_what_the_model_does_there() -> None:
    part = cut_out(forked(), Cut(("a",), ("c", "b")))
    onnx.checker.check_model(part, full_check=True)
    assert [tensor.name for tensor in part.graph.initializer] == ["two"]
    values = np.array([[1, 2], [3, -4]], np.float32)
    c, b = cpu_session(part).run(["c", "b"], {"a": values})
    assert np.array_equal(b, 2 * values) and np.array_equal(c, 2 * values**2)


def test_shapes_are_those_that_can_be_inferred() -> None:
    assert shapes_of(forked())["c"] == ["batch", 2]
