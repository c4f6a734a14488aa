"""Convolutions, pools, patches, resized images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.graph_cases import Calls, Case, Function, aten, cases

CONVOLUTIONS: list[Case] = [
    *cases("conv1d", nn.Conv1d(6, 4, 3, padding=1), nn.Conv1d(6, 9, 2, 2, dilation=2, groups=3), shape=(6, 11)),
    *cases("conv2d", nn.Conv2d(6, 4, (3, 2), (2, 1), (1, 0), bias=False), nn.Conv2d(6, 6, 3, groups=6, dilation=(1, 2))),
    *cases("conv2d", nn.Conv2d(6, 4, 4, padding="same", dilation=(1, 2)), nn.Conv2d(6, 4, 2, padding="valid")),
    *cases("conv2d", nn.Conv2d(6, 4, 3, padding=2, padding_mode="circular")),
    *cases("conv3d", nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), shape=(2, 3, 4, 5)),
    *cases(
        "convolution",
        Calls(lambda x, w: aten.convolution(x, w, None, [1, 2], [1, 1], [1, 1], False, [0, 0], 2), (4, 3, 3, 3)),
        Calls(lambda x, w: aten.convolution(x, w, None, [2, 2], [1, 1], [1, 1], True, [1, 0], 2), (6, 3, 3, 3)),
    ),
    *cases("conv_transpose1d", nn.ConvTranspose1d(6, 4, 3, 2, output_padding=1), shape=(6, 5)),
    *cases("conv_transpose2d", nn.ConvTranspose2d(6, 4, 3, (2, 1), 1)),
    *cases("conv_transpose2d", nn.ConvTranspose2d(6, 9, 2, 2, groups=3, dilation=(2, 1))),
    *cases("conv_transpose3d", nn.ConvTranspose3d(2, 3, 2, 2), shape=(2, 2, 3, 4)),
    *cases("pixel_shuffle", nn.PixelShuffle(2), shape=(8, 3, 5)),
    *cases("pixel_unshuffle", nn.PixelUnshuffle(2), shape=(3, 4, 6)),
    *cases("channel_shuffle", nn.ChannelShuffle(3)),
    *cases("native_channel_shuffle", lambda x: torch.native_channel_shuffle(x, 2)),
    *cases("im2col", nn.Unfold((3, 2), padding=(1, 0), stride=(2, 1)), nn.Unfold(2, dilation=2)),
    *cases("col2im", nn.Fold((5, 7), (3, 2), padding=(1, 0), stride=(2, 1)), shape=(12, 18)),
    *cases("col2im", nn.Fold((6, 8), 3, stride=2, padding=1), shape=(9, 12)),
]

PLANES = {1: (6, 11), 2: (3, 7, 8), 3: (2, 5, 6, 7)}


def pooled(kind: str, *arguments: int) -> Function:
    function = getattr(F, kind)
    return lambda x: function(x, *arguments)


def average(ceil: bool, counted: bool) -> list[Function | nn.Module]:
    return [
        nn.AvgPool2d(3, 2, 1, ceil, counted),
        nn.AvgPool2d((2, 3), (3, 2), 0, ceil, counted),
        nn.AvgPool2d(3, 2, 1, ceil, counted, divisor_override=7),
    ]


POOLS: list[Case] = [
    *(
        c
        for dims, shape in PLANES.items()
        for word in ("max", "avg")
        for c in (
            *cases(f"{word}_pool{dims}d", pooled(f"{word}_pool{dims}d", 3, 2, 1), shape=shape),
            *(
                c
                for size in (1, 3)
                for c in cases(f"adaptive_{word}_pool{dims}d", pooled(f"adaptive_{word}_pool{dims}d", size), shape=shape)
            ),
        )
    ),
    *cases("max_pool2d", nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), (2, 3), (1, 0), ceil_mode=True)),
    *cases("max_pool2d", nn.MaxPool2d(2, 3, ceil_mode=True), nn.MaxPool2d(2, 1, dilation=2), shape=(2, 8, 9)),
    *cases("max_pool2d", lambda x: F.max_pool2d(x - 5, 3, 2, 1, ceil_mode=True), shape=(2, 6, 8)),
    # zeros around negative numbers, which onnxruntime takes for the pool's padding
    *cases("max_pool2d", lambda x: F.max_pool2d(F.pad(-x.abs() - 1, (1, 1, 1, 1)), 3, 2)),
    *cases("max_pool2d", lambda x: F.max_pool2d(F.pad(-x.abs() - 1, (0, 1)), 3, (1, 2), dilation=(1, 2), ceil_mode=True)),
    *cases("max_pool2d", lambda x: F.max_pool2d(F.pad(-x.abs() - 1, (1, 2), value=-0.5), 3)),
    *cases("max_pool1d", lambda x: F.max_pool1d(F.pad(-x.abs() - 1, (1, 0)), 2), shape=(3, 9)),
    *cases("max_pool2d_with_indices", lambda x: aten.max_pool2d_with_indices(x, [2, 2], [1, 2])[0]),
    *cases("max_pool3d_with_indices", lambda x: aten.max_pool3d_with_indices(x, [2, 2, 2])[0], shape=(2, 4, 4, 4)),
    *(
        c
        for ceil in (0, 1)
        for counted in (0, 1)
        for c in cases("avg_pool2d", *average(bool(ceil), bool(counted)), shape=(2, 6, 8))
    ),
    *cases("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (3, 2)), shape=(2, 6, 4)),
    *cases("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (8, 6)), shape=(2, 6, 4)),
    *cases("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 7), shape=(2, 1, 1)),
    *cases(
        "adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (None, 1)), lambda x: F.adaptive_avg_pool2d(x + 1, (5, 7))
    ),
    *cases("_adaptive_avg_pool2d", lambda x: aten._adaptive_avg_pool2d(x, [1, 1])),
    *cases("_adaptive_avg_pool3d", lambda x: aten._adaptive_avg_pool3d(x, [2, 2, 2]), shape=(2, 5, 6, 7)),
    *cases("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (3, 2)), shape=(2, 6, 4)),
]


def resized(mode: str, **how: object) -> Function:
    return lambda x: F.interpolate(x, mode=mode, **how)  # type: ignore[arg-type]


WAYS: tuple[dict[str, object], ...] = (
    {"size": (9, 4)},
    {"size": (10, 14)},
    {"scale_factor": 2},
    {"scale_factor": (1.5, 0.6)},
    {"scale_factor": (1.5, 0.6), "recompute_scale_factor": True},
    {"size": (1, 7)},
)
SMOOTH_2D = (("bilinear", "upsample_bilinear2d"), ("bicubic", "upsample_bicubic2d"))
LINE, CUBE = (3, 7), (2, 3, 4, 5)

RESIZED: list[Case] = [
    *(c for way in WAYS for c in cases("upsample_nearest2d", resized("nearest", **way))),
    *(c for way in WAYS for c in cases("_upsample_nearest_exact2d", resized("nearest-exact", **way))),
    *(c for way in WAYS for mode, kind in SMOOTH_2D for c in cases(kind, resized(mode, **way))),
    *(c for way in WAYS for mode, kind in SMOOTH_2D for c in cases(kind, resized(mode, align_corners=True, **way))),
    *(c for mode, kind in SMOOTH_2D for c in cases(f"_{kind}_aa", resized(mode, antialias=True, size=(3, 9)))),
    *cases("upsample_nearest1d", resized("nearest", size=10), resized("nearest", scale_factor=2), shape=LINE),
    *cases("_upsample_nearest_exact1d", resized("nearest-exact", size=10), shape=LINE),
    *cases("upsample_linear1d", resized("linear", size=10), resized("linear", scale_factor=1.6), shape=LINE),
    *cases("upsample_nearest3d", resized("nearest", size=(4, 4, 9)), resized("nearest", scale_factor=2), shape=CUBE),
    *cases("_upsample_nearest_exact3d", resized("nearest-exact", size=(4, 4, 9)), shape=CUBE),
    *cases("upsample_trilinear3d", resized("trilinear", size=(4, 4, 9)), resized("trilinear", scale_factor=2), shape=CUBE),
]
