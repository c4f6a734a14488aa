"""Convolutions: ordinary, grouped, depthwise, transposed, of one to three dimensions."""

from __future__ import annotations

from typing import Any

from slimexport.onnx_files.operators.registry import Call, Operand, form
from slimtrain.graph.graph import Batch


def spread(value: Any, count: int) -> list[int]:
    """An argument for every spatial dimension: torch takes one for all of them."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


@form("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(call: Call) -> str:
    x, weight = call.x, call.value("weight")
    kernel = call.sizes(weight, range(2, call.rank(weight)), "has a kernel that runs over")
    count = len(kernel)
    transposed = bool(call.get("transposed")) or "transpose" in call.kind
    if isinstance(call["groups"], Batch):
        call.refuse("has a group for every image", "Let every image see the same weights.")
    stride, dilation = spread(call["stride"], count), spread(call["dilation"], count)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "group": call["groups"]}
    if transposed:
        padding = spread(call["padding"], count)
        attributes |= {"pads": padding * 2, "output_padding": spread(call.get("output_padding", 0), count)}
    else:
        attributes["pads"] = _pads(call["padding"], kernel, dilation)
    operands: list[Operand] = [_images(call, count), weight, call.optional("bias")]
    result = call.emit("ConvTranspose" if transposed else "Conv", *operands, **attributes)
    return call.reshape(result, (1, *call.out), call.out) if call.rank(x) == count + 1 else result


def _images(call: Call, count: int) -> str:
    """The input with a dimension of images, which torch lets be left out."""
    x = call.x
    return call.reshape(x, call.shape(x), (1, *call.shape(x))) if call.rank(x) == count + 1 else call.name(x)


def _pads(padding: Any, kernel: list[int], dilation: list[int]) -> list[int]:
    if not isinstance(padding, str):
        return spread(padding, len(kernel)) * 2
    if padding == "valid":
        return [0] * (2 * len(kernel))
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]  # "same": the larger half behind
    return [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
