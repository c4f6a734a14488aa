"""The few ONNX models that ceilings are measured with, written without the onnx package, which targets need not have.

ONNX files are protocol buffers. Field numbers are those of `onnx.proto`, models are opset 17, IR version 8.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from benchmarks.cells.cell import Array
from slimexport.target.inside.protobuf import bytes_field, number_field, text_field

OPSET, IR_VERSION = 17, 8
FLOAT, UINT8, INT8, INT32, FLOAT16, BFLOAT16 = 1, 2, 3, 6, 10, 16  # TensorProto.DataType
# number -> operator, element types of its two inputs and its output
PRODUCTS = {
    "float32": ("MatMul", FLOAT, FLOAT, FLOAT),
    "float16": ("MatMul", FLOAT16, FLOAT16, FLOAT16),
    "bfloat16": ("MatMul", BFLOAT16, BFLOAT16, BFLOAT16),
    "int8": ("MatMulInteger", UINT8, INT8, INT32),
}
CHAINS = ("float32", "float16")
CHAIN_SIZE = 8


def product_model(number: str, size: int | None = None) -> bytes:
    """One matrix product: inputs `a` and `b`, output `c`, all [size, size], or of any one size where that is None.

    `number` is one of PRODUCTS. int8 multiplies uint8 by int8 into int32.
    """
    operator, *elements = PRODUCTS[number]
    a, b, c = (_value(name, element, (size, size)) for name, element in zip("abc", elements, strict=True))
    return _model([_node(operator, ("a", "b"), "c")], [a, b], [c])


def chain_model(length: int, number: str = "float32") -> bytes:
    """`length` products one after the other, each too small to take time: what is left is the cost of an operator.

    Input `x` and output `y` are [8, 8], of a `number` that is one of CHAINS. Each step multiplies by the same orthogonal
    matrix, which keeps values as large as they are; no optimizer may exchange the order of products in floating point, so
    none can be saved.
    """
    assert length > 0 and number in CHAINS
    _, element, *_ = PRODUCTS[number]
    names = ["x", *(f"x{index}" for index in range(1, length)), "y"]
    nodes = [_node("MatMul", (source, "w"), to) for source, to in itertools.pairwise(names)]
    shape = (CHAIN_SIZE, CHAIN_SIZE)
    weight = orthogonal().astype(number)
    return _model(nodes, [_value("x", element, shape)], [_value("y", element, shape)], [_tensor("w", element, weight)])


def orthogonal() -> Array:
    """The matrix of the chain, float64 [8, 8], always the same."""
    drawn = np.random.default_rng(0).standard_normal((CHAIN_SIZE, CHAIN_SIZE))
    return np.linalg.qr(drawn)[0]


def _model(nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], tensors: Sequence[bytes] = ()) -> bytes:
    graph = b"".join(
        [
            *(bytes_field(1, node) for node in nodes),
            bytes_field(2, b"ceiling"),
            *(bytes_field(5, tensor) for tensor in tensors),
            *(bytes_field(11, value) for value in inputs),
            *(bytes_field(12, value) for value in outputs),
        ]
    )
    return number_field(1, IR_VERSION) + bytes_field(7, graph) + bytes_field(8, number_field(2, OPSET))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(
        [*(text_field(1, name) for name in inputs), text_field(2, output), text_field(3, output), text_field(4, operator)]
    )


def _value(name: str, element: int, shape: Sequence[int | None]) -> bytes:
    """A graph's input or output; None is the dimension `n`, which is one number throughout."""
    dimensions = [text_field(2, "n") if size is None else number_field(1, size) for size in shape]
    tensor = number_field(1, element) + bytes_field(2, b"".join(bytes_field(1, dimension) for dimension in dimensions))
    return text_field(1, name) + bytes_field(2, bytes_field(1, tensor))


def _tensor(name: str, element: int, values: Array) -> bytes:
    dims = b"".join(number_field(1, size) for size in values.shape)
    return (
        dims
        + number_field(2, element)
        + text_field(8, name)
        + bytes_field(9, values.astype(values.dtype.newbyteorder("<")).tobytes())
    )
