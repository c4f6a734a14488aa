"""Pairs and integers as they are written, one by one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimexport.onnx_files.pairs import Affine, PairWriter


@pytest.fixture
def graph() -> onnx.GraphProto:
    weight = np.array([[1.27, -0.5], [0.02, 3.0]], np.float32)
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([0.5, -2.0], np.float32), "b")]
    return onnx.helper.make_graph([], "g", [], [], tensors)


def arrays(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_weights_and_biases_become_integers_once(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph)
    scales = np.array([0.01, 0.02], np.float32)
    name = writer.weight("w", scales, 127)
    assert writer.weight("w", scales, 127) == name
    steps = (scales * np.float32(0.5)).astype(np.float32)
    bias, other = writer.bias("b", steps), writer.bias("b", 2 * steps)
    assert writer.bias("b", steps.copy()) == bias != other
    writer.graph.node.append(onnx.helper.make_node("Gemm", ["x", name, bias], ["y"]))
    writer.graph.node.append(onnx.helper.make_node("Gemm", ["x", name, other], ["again"]))
    writer.finish()
    stored = arrays(graph)
    by_name = {node.output[0]: [stored[key] for key in node.input] for node in graph.node if node.op_type != "Gemm"}
    integers, scale, zero = by_name[name]
    assert integers.dtype == zero.dtype == np.int8
    np.testing.assert_array_equal(integers, [[127, -50], [1, 127]])  # 3 / 0.02 is cut off
    np.testing.assert_array_equal(scale, scales)
    np.testing.assert_array_equal(by_name[bias][0], [100, -200])
    np.testing.assert_array_equal(by_name[other][0], [50, -100])
    assert by_name[bias][0].dtype == by_name[bias][2].dtype == np.int32
    assert not {"w", "b"} & stored.keys(), "the float forms are gone"


def test_integers_are_rounded_by_the_scale_that_the_file_holds(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph, lambda scale: scale.astype(np.float16))
    writer.weight("w", np.array([1 / 3, 0.1], np.float32), 127)
    stored = float(np.float16(1 / 3))
    node = graph.node[0]
    np.testing.assert_array_equal(arrays(graph)[node.input[0]][0], np.rint(np.array([1.27, -0.5]) / stored))


def test_a_bias_beyond_32_bits_is_cut_off_at_their_ends(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph)
    writer.bias("b", np.array([1e-10, 1e-10], np.float32))
    assert arrays(graph)[graph.node[0].input[0]].tolist() == [2**31 - 1, -(2**31)]


def test_zero_points_of_weights_can_be_left_out(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph)
    writer.weight("w", np.ones(2, np.float32), 127, zeros=False)
    writer.bias("b", np.ones(2, np.float32), zeros=False)
    assert [len(node.input) for node in graph.node] == [2, 2]


def test_an_activation_has_one_pair_and_may_share_anothers_scale(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph)
    form = Affine(np.float32(0.5), np.uint8(3))
    name = writer.activation("x", form)
    assert writer.activation("x", form) == name
    other = writer.activation("y", form, like="x")
    assert other != name and writer.activation("z", form, written="output") == "output"
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in quantizers] == ["x", "y", "z"]
    assert quantizers[0].input[1:] == quantizers[1].input[1:] != quantizers[2].input[1:]
    assert [arrays(graph)[key] for key in quantizers[0].input[1:]] == [0.5, 3]


def test_numbers_avoid_names_that_are_there(graph: onnx.GraphProto) -> None:
    graph.node.append(onnx.helper.make_node("Relu", ["q1"], ["_d2"]))
    writer = PairWriter(graph)
    name = writer.activation("q1", Affine(np.float32(1), np.int8(0)))
    names = [name for node in graph.node for name in (*node.output,)]
    assert len(set(names)) == len(names) and name.startswith("__")


def test_what_a_float_operator_reads_too_stays(graph: onnx.GraphProto) -> None:
    writer = PairWriter(graph)
    name = writer.weight("w", np.ones(2, np.float32), 127)
    graph.node.append(onnx.helper.make_node("MatMul", [name, "w"], ["y"]))
    writer.finish()
    assert "w" in arrays(graph) and "b" not in arrays(graph)
