"""Number types as the Open Inference Protocol calls them."""

from __future__ import annotations

FP32 = "FP32"
NAMES = {
    "float16": "FP16",
    "float32": FP32,
    "float64": "FP64",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}
