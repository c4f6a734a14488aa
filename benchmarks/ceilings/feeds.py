"""Random inputs of the tiny models that ceilings are measured with (`onnx_models.tiny`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.ceilings.probe import noise
from benchmarks.cells.cell import Array
from benchmarks.onnx_models.tiny import BFLOAT16, CHAIN_SIZE, CHAINS, FLOAT, FLOAT16, INT8, PRODUCTS, UINT8

UPPER_BITS = 16  # a bfloat16 is the upper half of a float32
# element type -> standard normal values as such elements, a bfloat16 as its bits
_ELEMENTS: dict[int, Callable[[Array], Array]] = {
    FLOAT: lambda drawn: drawn,
    FLOAT16: lambda drawn: drawn.astype(np.float16),
    BFLOAT16: lambda drawn: (drawn.view(np.uint32) >> UPPER_BITS).astype(np.uint16),
    UINT8: lambda drawn: (128 + 40 * drawn).clip(0, 255).astype(np.uint8),
    INT8: lambda drawn: (40 * drawn).clip(-127, 127).astype(np.int8),
}


def product_feed(number: str, size: int) -> dict[str, Array]:
    """Two random [size, size] matrices as `product_model` takes them."""
    _, a, b, _ = PRODUCTS[number]
    return {name: _ELEMENTS[element](noise((size, size), seed)) for seed, (name, element) in enumerate((("a", a), ("b", b)))}


def chain_number(number: str) -> str:
    """What the chain of a `number` computes in: an operator costs what it costs, so float32 where there is no own chain (int8
    ones would need twice as many operators)."""
    return number if number in CHAINS else "float32"


def chain_feed(number: str) -> dict[str, Array]:
    """A random input of `chain_model`."""
    _, element, *_ = PRODUCTS[number]
    return {"x": _ELEMENTS[element](noise((CHAIN_SIZE, CHAIN_SIZE)))}
