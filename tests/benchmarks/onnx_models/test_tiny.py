"""Models that are written without the onnx package, held against it, and run in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.onnx_models.tiny import CHAIN_SIZE, PRODUCTS, chain_model, orthogonal, product_model
from tests.support.export_helpers import python

ELEMENTS = {
    "float32": (TensorProto.FLOAT,) * 3,
    "float16": (TensorProto.FLOAT16,) * 3,
    "bfloat16": (TensorProto.BFLOAT16,) * 3,
    "int8": (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32),
}


def read(content: bytes) -> onnx.ModelProto:
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: bytes, feed: dict[str, NDArray[Any]], path: Path | None = None) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if path is not None:
        options.optimized_model_filepath = str(path)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("size", [None, 1, 127, 128, 300, 16384])
@pytest.mark.parametrize("number", PRODUCTS)
def test_a_product_is_byte_for_byte_what_the_onnx_package_writes(number: str, size: int | None) -> None:
    shape = ["n", "n"] if size is None else [size, size]
    a, b, c = (helper.make_tensor_value_info(name, kind, shape) for name, kind in zip("abc", ELEMENTS[number], strict=True))
    operator = "MatMulInteger" if number == "int8" else "MatMul"
    graph = helper.make_graph([helper.make_node(operator, ["a", "b"], ["c"], "c")], "ceiling", [a, b], [c])
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = product_model(number, size)
    model = read(content)
    model.opset_import[0].ClearField("domain")
    expected.opset_import[0].ClearField("domain")
    assert model == expected
    assert onnx.load_from_string(content).SerializeToString(deterministic=True) == content


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("number", ["float32", "float16", "int8"])
def test_a_product_multiplies(number: str, size: int) -> None:
    drawing = np.random.default_rng(size)
    a, b = drawing.integers(0, 256, (size, size)), drawing.integers(-127, 128, (size, size))
    if number == "int8":
        product = run(product_model(number), {"a": a.astype(np.uint8), "b": b.astype(np.int8)})
        np.testing.assert_array_equal(product, a @ b)
        return
    kind = np.dtype(number)
    first, second = (a / 256).astype(kind), (b / 128).astype(kind)
    expected = first.astype(np.float64) @ second.astype(np.float64)
    product = run(product_model(number, size), {"a": first, "b": second})
    assert product.dtype == kind
    np.testing.assert_allclose(product, expected, atol=1e-5 if kind == np.float32 else 5e-2)


@pytest.mark.parametrize("number", ["float32", "float16"])
@pytest.mark.parametrize("length", [1, 2, 33])
def test_a_chain_is_as_many_products_and_none_is_optimized_away(number: str, length: int, tmp_path: Path) -> None:
    kind = np.dtype(number)
    content = chain_model(length, number)
    model = read(content)
    assert [node.op_type for node in model.graph.node] == ["MatMul"] * length
    weight = numpy_helper.to_array(model.graph.initializer[0])
    assert weight.dtype == kind
    x = np.random.default_rng(1).standard_normal((CHAIN_SIZE, CHAIN_SIZE)).astype(kind)
    expected = x.astype(np.float64) @ np.linalg.matrix_power(weight.astype(np.float64), length)
    optimized = tmp_path / "optimized.onnx"
    product = run(content, {"x": x}, optimized)
    np.testing.assert_allclose(product, expected, atol=1e-5 if kind == np.float32 else 1e-1)
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert kinds.count("MatMul") == length


def test_the_chains_matrix_keeps_values_as_large_as_they_are() -> None:
    matrix = orthogonal()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(CHAIN_SIZE), atol=1e-12)
    np.testing.assert_array_equal(matrix, orthogonal())


def test_neither_onnx_nor_torch_is_needed() -> None:
    code = "from benchmarks.onnx_models.tiny import chain_model, product_model\nproduct_model('float16', 64), chain_model(3)"
    done = python(code, without=("torch", "onnx", "onnxruntime", "tensorrt"))
    assert done.returncode == 0, done.stderr
