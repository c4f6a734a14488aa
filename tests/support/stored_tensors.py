"""Stored tensors of ONNX models, changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper


def changed(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]) -> onnx.ModelProto:
    """The model with a stored tensor as `change` leaves it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values.reshape(-1))
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy
