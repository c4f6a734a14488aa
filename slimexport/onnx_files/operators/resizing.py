"""Images and feature maps of another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from slimexport.onnx_files.operators.registry import Call, Operand, form
from slimtrain.slimmable.program import operator

NEAREST = tuple(f"upsample_nearest{n}d" for n in (1, 2, 3)) + tuple(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3))


@form(*NEAREST)
def nearest(call: Call) -> str:
    """By whole factors a Resize; otherwise positions by number, which no rounding of a factor shifts."""
    x, dims = call.x, range(2, call.rank(call.x))
    before, after = call.sizes(x, dims, "resizes"), call.sizes(call.result(), dims, "resizes")
    lines = [_along(call, place, n, o) for place, (n, o) in enumerate(zip(before, after, strict=True))]
    taken = [line.argmax(1) for line in lines]
    whole = [o % n == 0 and (t == np.arange(o) // (o // n)).all() for n, o, t in zip(before, after, taken, strict=True)]
    if before == after and all(whole):
        return call.name(x)
    if all(whole):
        scales = np.array([1, 1, *(o // n for n, o in zip(before, after, strict=True))], np.float32)
        form_of = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return call.emit("Resize", x, None, scales, **form_of)
    result: Operand = x
    for dim, n, numbers in zip(dims, before, taken, strict=True):
        if len(numbers) != n or (numbers != np.arange(n)).any():
            result = call.emit("Gather", result, numbers.astype(np.int64), axis=dim)
    return call.operand(result)


SMOOTH = {
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), "linear"),
    "upsample_bicubic2d": "cubic",
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), ""),
}


@form(*SMOOTH)
def smooth(call: Call) -> str:
    """A Resize where its factors are what torch computes with, and otherwise a product with the weights of each dimension:
    after antialiasing, for factors that are no ratio of whole sizes."""
    x, dims = call.x, range(2, call.rank(call.x))
    before, after = call.sizes(x, dims, "resizes"), call.sizes(call.result(), dims, "resizes")
    corners = bool(call.get("align_corners"))
    scales = [_factor(n, o) for n, o in zip(before, after, strict=True)]
    asked = [_scale(call, place) for place in range(len(before))]
    ratios = all(corners or s is None or abs(s * n - o) < 1e-9 for s, n, o in zip(asked, before, after, strict=True))
    mode = SMOOTH[call.kind]
    if mode and ratios and 1 not in after:
        form_of: dict[str, Any] = {
            "mode": mode,
            "coordinate_transformation_mode": "align_corners" if corners else "half_pixel",
        }
        if mode == "cubic":
            form_of["cubic_coeff_a"] = -0.75
        return call.emit("Resize", x, None, np.array([1, 1, *scales], np.float32), **form_of)
    result: Operand = x
    rank = call.rank(x)
    for place, (dim, n, o) in enumerate(zip(dims, before, after, strict=True)):
        weights = _along(call, place, n, o)  # [out, in]
        if n == o and (weights == np.eye(n)).all():
            continue
        if dim == rank - 1:
            result = call.emit("MatMul", result, weights.T.astype(np.float32))
        elif dim == rank - 2:
            result = call.emit("MatMul", weights.astype(np.float32), result)
        else:
            call.refuse("by these factors has no form here", "Resize to whole multiples, or to a size.")
    return call.operand(result)


def _factor(size: int, outputs: int) -> Any:
    """The float32 by which runtimes get from one size to the other: they round down."""
    factor = np.float32(outputs / size)
    return factor if float(factor) * size >= outputs else np.nextafter(factor, np.float32(np.inf))


def _scale(call: Call, place: int) -> float | None:
    """The factor that torch is given for a spatial dimension, None where it takes the ratio of sizes."""
    factors = call.get("scale_factors")
    if factors is not None:
        return float(factors[place])
    names = [name for name in ("scales_d", "scales_h", "scales_w") if name in call.action.arguments]
    names = names or ["scales"]
    value = call.get(names[place] if place < len(names) else "scales")
    return None if value is None else float(value)


def _along(call: Call, place: int, size: int, outputs: int) -> np.ndarray[Any, Any]:
    """What every position reads along one dimension [outputs, size], as torch itself resizes the identity matrix."""
    count = call.rank(call.x) - 2
    # Two positions along all others: with one, torch's antialiasing on CPUs takes the first output for all of them.
    wanted = [outputs if dim == place else 2 for dim in range(count)]
    line = torch.eye(size, dtype=torch.float64).reshape(1, size, *(size if dim == place else 1 for dim in range(count)))
    eye = line.expand(1, size, *(size if dim == place else 2 for dim in range(count))).contiguous()
    function = operator(call.kind)  # sizes and factors by dimension, whichever overload the network calls
    scale = _scale(call, place)
    scales = [scale if dim == place else None for dim in range(count)]
    corners = [bool(call.get("align_corners"))] if call.kind in SMOOTH else []
    resized = function(eye, wanted, *corners, *scales)
    first = resized[(0, slice(None), *(slice(None) if dim == place else 0 for dim in range(count)))]
    return first.T.numpy()
