"""Channels into space and back: shuffles, patches as columns."""

from __future__ import annotations

import numpy as np

from slimexport.onnx_files.operators.convolutions import spread
from slimexport.onnx_files.operators.registry import Call, form, ints


@form("pixel_shuffle")
def pixel_shuffle(call: Call) -> str:
    """[N, C r r, H, W] -> [N, C, H r, W r]."""
    if call.rank(call.x) != 4:
        call.refuse(f"of {call.rank(call.x)} dimensions has no form here")
    return call.emit("DepthToSpace", call.x, blocksize=int(call["upscale_factor"]), mode="CRD")


@form("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> str:
    """[N, C, H r, W r] -> [N, C r r, H, W]: ONNX's SpaceToDepth has another order of channels."""
    r = int(call["downscale_factor"])
    images, channels, height, width = source = call.shape(call.x)
    height, width = (call.fixed(size, "splits") // r for size in (height, width))
    split = (images, channels, height, r, width, r)
    turned = call.transpose(call.reshape(call.x, source, split), [0, 1, 3, 5, 2, 4])
    return call.reshape(turned, (images, channels, r, r, height, width), call.out)


@form("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> str:
    """[N, g c, H, W] -> [N, g, c, H, W] -> [N, c, g, H, W] -> [N, c g, H, W]."""
    groups = int(call["groups"])
    images, channels, *rest = source = call.shape(call.x)
    inner = call.fixed(channels, "shuffles") // groups
    split = call.reshape(call.x, source, (images, groups, inner, *rest))
    turned = call.transpose(split, [0, 2, 1, *range(3, 3 + len(rest))])
    return call.reshape(turned, (images, inner, groups, *rest), call.out)


@form("im2col")
def im2col(call: Call) -> str:
    """[N, C, H, W] -> [N, C kh kw, windows]: positions of a padded plane, by number."""
    if call.rank(call.x) != 4:
        call.refuse(f"of {call.rank(call.x)} dimensions has no form here")
    kernel, dilation, padding, stride = (spread(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    images, channels, *plane = call.shape(call.x)
    x = call.name(call.x)
    if any(padding):
        x = call.emit("Pad", x, ints(*(0, 0, *padding) * 2))
    size = [call.fixed(n, "slides over") + 2 * p for n, p in zip(plane, padding, strict=True)]
    lines = []
    for n, k, d, s in zip(size, kernel, dilation, stride, strict=True):
        starts = np.arange((n - d * (k - 1) - 1) // s + 1) * s
        lines.append(np.arange(k)[:, None] * d + starts)  # [kernel, windows]
    rows, columns = lines
    numbers = rows[:, None, :, None] * size[1] + columns[None, :, None, :]  # [kh, kw, windows high, windows wide]
    flat = call.reshape(x, (images, channels, *size), (images, channels, size[0] * size[1]))
    taken = call.emit("Gather", flat, numbers.reshape(kernel[0] * kernel[1], -1).astype(np.int64), axis=2)
    windows = rows.shape[1] * columns.shape[1]
    return call.reshape(taken, (images, channels, kernel[0] * kernel[1], windows), call.out)


@form("col2im")
def col2im(call: Call) -> str:
    """[N, C kh kw, windows] -> [N, C, H, W], what overlaps summed: a transposed convolution that moves numbers only."""
    if call.rank(call.x) != 3:
        call.refuse(f"of {call.rank(call.x)} dimensions has no form here")
    kernel, dilation, padding, stride = (spread(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    images, columns, _ = source = call.shape(call.x)
    channels, height, width = (call.fixed(size, "sums over") for size in call.out[1:])
    windows, extra = [], []
    for n, k, d, p, s in zip((height, width), kernel, dilation, padding, stride, strict=True):
        count = (n + 2 * p - d * (k - 1) - 1) // s + 1
        windows.append(count)
        extra.append(n - ((count - 1) * s - 2 * p + d * (k - 1) + 1))
    weight = np.tile(np.eye(kernel[0] * kernel[1], dtype=np.float32).reshape(-1, 1, *kernel), (channels, 1, 1, 1))
    return call.emit(
        "ConvTranspose",
        call.reshape(call.x, source, (images, columns, *windows)),
        weight,
        kernel_shape=kernel,
        strides=stride,
        dilations=dilation,
        pads=padding * 2,
        output_padding=extra,
        group=channels,
    )
