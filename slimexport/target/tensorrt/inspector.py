"""Which precision an engine's layers compute in, from TensorRT's engine inspector.

The inspector's JSON has a list `Layers`. An entry is a name only (an engine built without detailed profiling), or an
object with `Name`, `LayerType`, `Inputs`, `Outputs` and more; tensors say their type in `Format/Datatype`, as `Half`,
`Half(64,1:8,...)` or `Channel major FP16 format where channel % 8 == 0`. With a dynamic batch they say `N/A due to dynamic
shapes`; then the type of a layer's weights tells, or its tactic's name (`sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32...`).
8.6 and 10 list `Bindings` beside the layers, 11 `I/O Tensors`; neither is needed here. 8.6 writes control characters between
the names of the ONNX nodes that a layer is of, as they are, which no JSON has (github.com/NVIDIA/TensorRT/issues/2779).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from slimexport.target.precision import PRECISIONS

UNKNOWN = "unknown"
USED, PARTLY, NOT_USED = "used", "partly", "not used"

# In order: a format's name may hold several of these words
TYPES = (
    ("bf16", r"\bbf16\b|bfloat16"),
    ("fp8", r"\bfp8\b|float8|e4m3"),
    ("int8", r"\bint8\b"),
    ("fp16", r"\bfp16\b|\bhalf\b|\bfloat16\b"),
    ("fp32", r"\bfp32\b|\bfloat\b|\bfloat32\b"),
)
TACTIC = re.compile(r"(?:^|_)(?:(tf32)|(bf16)|(f16|fp16|h\d+(?=[a-z_])|hgemm)|(i8|int8)|(e4m3|fp8)|(f32|fp32|scudnn|sgemm))")
TACTIC_TYPES = ("tf32", "bf16", "fp16", "int8", "fp8", "fp32")
WEIGHTED = re.compile(r"conv|gemm|matmul|matrix_?multiply|fully_?connected", re.IGNORECASE)
MOVES_DATA = re.compile(r"reformat|copy|cast|shuffle|noop|constant|quantize|shape|slice|concat", re.IGNORECASE)


@dataclass(frozen=True)
class LayerCount:
    """Layers by precision: all of them, and those that multiply weights, which decide what an engine is."""

    all: dict[str, int]
    weighted: dict[str, int]

    def verdict(self, precision: str) -> str:
        """Whether an engine computes in `precision`: `used` by at least half of the layers that tell and count,
        `partly`, `not used`, or `unknown`.

        A permission, as tf32 is, shows in some tactics' names only, so that it is used, or nothing is known.
        """
        counts = self.weighted if any(name != UNKNOWN for name in self.weighted) else self.all
        known = {name: count for name, count in counts.items() if name != UNKNOWN}
        share = known.get(precision, 0) / sum(known.values()) if known else 0.0
        if not known or not PRECISIONS[precision].shown:
            return USED if share else UNKNOWN
        if share == 0:
            return NOT_USED
        return USED if share >= 0.5 else PARTLY


def count_layers(information: str) -> LayerCount:
    """The counts from the inspector's JSON; text that is none counts nothing."""
    try:
        parsed = json.loads(information, strict=False)  # with control characters in text
    except json.JSONDecodeError:
        parsed = []
    layers = parsed.get("Layers", []) if isinstance(parsed, dict) else parsed
    everything: Counter[str] = Counter()
    weighted: Counter[str] = Counter()
    for layer in layers if isinstance(layers, list) else []:
        precision = layer_precision(layer)
        everything[precision] += 1
        if isinstance(layer, dict) and _multiplies_weights(layer):
            weighted[precision] += 1
    return LayerCount(dict(sorted(everything.items())), dict(sorted(weighted.items())))


def _multiplies_weights(layer: dict[str, Any]) -> bool:
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    return bool(WEIGHTED.search(kind)) or (bool(_weights_type(layer)) and not MOVES_DATA.search(kind))


def layer_precision(layer: Any) -> str:
    """`fp32`, `tf32`, `fp16`, `bf16`, `int8`, `fp8`, or `unknown`: what a layer of the inspector's list computes in."""
    if not isinstance(layer, dict):
        return UNKNOWN
    tactic = _tactic_type(str(layer.get("TacticName", "")))
    by_weights = _weights_type(layer)
    if by_weights:
        return "tf32" if by_weights == "fp32" and tactic == "tf32" else by_weights
    return tactic or _tensors_type(layer.get("Inputs")) or _tensors_type(layer.get("Outputs")) or UNKNOWN


def _weights_type(layer: dict[str, Any]) -> str:
    weights = layer.get("Weights")
    return _type(weights.get("Type")) if isinstance(weights, dict) and weights.get("Count", 1) else ""


def _tactic_type(tactic: str) -> str:
    match = TACTIC.search(tactic.lower())
    return TACTIC_TYPES[match.lastindex - 1] if match and match.lastindex else ""


def _tensors_type(tensors: Any) -> str:
    """The first tensor that tells its type: a layer's data comes before its scales."""
    for tensor in tensors if isinstance(tensors, list) else []:
        if isinstance(tensor, dict):
            for key in ("Format/Datatype", "Datatype", "DataType", "Format"):
                if kind := _type(tensor.get(key)):
                    return kind
    return ""


def _type(text: Any) -> str:
    lowered = str(text or "").lower()
    return next((name for name, pattern in TYPES if re.search(pattern, lowered)), "")
