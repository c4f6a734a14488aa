"""The weights and biases that a file of fewer bits is to have, as numbers: from the fp32 model's, not from the file."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx

from slimexport.onnx_files.pairs import Recorded
from slimexport.target.arrays import Array

COLUMNS = "MatMul"  # its weights are [in, out], those of others [out, ...]
LARGEST_BIAS = 2**30  # in steps: weights next to nothing get larger ones
TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def rounded(values: Array, number: str) -> Array:
    """float32 values as `number` holds them."""
    if values.dtype != np.float32 or number not in TYPES:
        return values
    with np.errstate(over="ignore"):
        return values.astype(TYPES[number]).astype(np.float32)


def constants_of(recorded: Recorded, node: onnx.NodeProto, stored: Mapping[str, Array]) -> dict[int, Array]:
    """The stored operands of a node of `recorded.base`, by their place, as the file's integers or smaller numbers stand for
    them."""
    operands = {place: stored[name] for place, name in enumerate(node.input) if name in stored}
    if node.output[0] not in recorded.weighted:
        return {place: rounded(values, recorded.number) for place, values in operands.items()}
    weight = operands[1].T if node.op_type == COLUMNS else operands[1]
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    scales = np.maximum(largest / recorded.levels, recorded.floor).astype(np.float32)
    if recorded.biases and 2 in operands:
        step = np.float64(recorded.forms[node.input[0]].scale)
        scales = np.maximum(scales, np.abs(operands[2]) / (LARGEST_BIAS * step)).astype(np.float32)
    scales = rounded(scales, recorded.number)
    steps = scales.reshape(-1, *[1] * (weight.ndim - 1))
    whole = np.clip(np.rint(weight / steps), -recorded.levels, recorded.levels).astype(np.float32)
    quantized = rounded(whole * steps, recorded.number)
    given = {1: quantized.T if node.op_type == COLUMNS else quantized}
    if 2 in operands:
        bias = operands[2]
        if recorded.biases:
            both = (recorded.forms[node.input[0]].scale * scales).astype(np.float32).astype(np.float64)
            bias = (np.rint(bias.astype(np.float64) / both) * both).astype(np.float32)
        given[2] = rounded(bias, recorded.number)
    return given
