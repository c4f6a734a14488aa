"""Forward passes written by hand from state-dict keys and `torch.nn.functional`, without this project's modules.

`counts` is a channel list; a layer uses the leading corner of the weight stored under its key. What a norm does is
passed in, so that the same lines serve stored statistics, calibration and ordinary dense networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Norm = Callable[[str, Tensor], Tensor]
EPS = 1e-5

V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# (expansion, stride, whether the input is added) of MobileNet v2's 17 blocks, S and US
V2_BLOCKS = (
    *((1, 1, False), (6, 2, False), (6, 1, True), (6, 2, False), (6, 1, True), (6, 1, True)),
    *((6, 2, False), (6, 1, True), (6, 1, True), (6, 1, True), (6, 1, False), (6, 1, True), (6, 1, True)),
    *((6, 2, False), (6, 1, True), (6, 1, True), (6, 1, False)),
)
RESNET50_STAGES = (3, 4, 6, 3)


def normalized(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch norm from its definition, [N, C, H, W]; scale and shift may be longer than C, their beginning counts."""
    channels = x.shape[1]
    per_channel = (1, channels, 1, 1)
    scaled = (x - mean.view(per_channel)) / (var.view(per_channel) + EPS).sqrt()
    return scaled * weight[:channels].view(per_channel) + bias[:channels].view(per_channel)


def switchable(state: State, index: int) -> Norm:
    """Switch `index` of S and AutoSlim norms; plain norms where the file stores one for all switches."""

    def norm(path: str, x: Tensor) -> Tensor:
        at = f"{path}.bn.{index}" if f"{path}.bn.{index}.weight" in state else path
        return normalized(x, *(state[f"{at}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))

    return norm


def universal(state: State, index: int) -> Norm:
    """Width `index` of US norms: shared scale and shift; plain norms where the file stores one for all widths."""

    def norm(path: str, x: Tensor) -> Tensor:
        at = f"{path}.bn.{index}" if f"{path}.bn.{index}.running_mean" in state else path
        weight, bias = state[f"{path}.weight"], state[f"{path}.bias"]
        return normalized(x, state[f"{at}.running_mean"], state[f"{at}.running_var"], weight, bias)

    return norm


def given(state: State, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> Norm:
    """US norms with statistics of their own for this plan: path -> (mean, variance)."""

    def norm(path: str, x: Tensor) -> Tensor:
        return normalized(x, *statistics[path], state[f"{path}.weight"], state[f"{path}.bias"])

    return norm


def conv(state: State, path: str, x: Tensor, out: int, stride: int = 1, depthwise: bool = False) -> Tensor:
    weight = state[f"{path}.weight"][:out, : 1 if depthwise else x.shape[1]]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=out if depthwise else 1)


def classifier(state: State, x: Tensor) -> Tensor:
    pooled = x.mean((2, 3))
    return pooled @ state["classifier.0.weight"][:, : pooled.shape[1]].T + state["classifier.0.bias"]


def mobilenet_v1(state: State, counts: Sequence[int], norm: Norm, x: Tensor) -> Tensor:
    """`counts`: stem, then the 13 outputs."""
    x = norm("features.0.1", conv(state, "features.0.0", x, counts[0], 2)).clamp(0, 6)
    for i, stride in enumerate(V1_STRIDES, start=1):
        body = f"features.{i}.body"
        x = norm(f"{body}.1", conv(state, f"{body}.0", x, x.shape[1], stride, depthwise=True)).clamp(0, 6)
        x = norm(f"{body}.4", conv(state, f"{body}.3", x, counts[i])).clamp(0, 6)
    return classifier(state, x)


def mobilenet_v2(state: State, counts: Sequence[int], norm: Norm, x: Tensor) -> Tensor:
    """`counts`: stem, first output, then (expanded, output) per block, tail."""
    left = list(counts)
    x = norm("features.0.1", conv(state, "features.0.0", x, left.pop(0), 2)).clamp(0, 6)
    for i, (ratio, stride, added) in enumerate(V2_BLOCKS, start=1):
        body, at, y = f"features.{i}.body", 0, x
        if ratio != 1:
            y = norm(f"{body}.1", conv(state, f"{body}.0", y, left.pop(0))).clamp(0, 6)
            at = 3
        y = norm(f"{body}.{at + 1}", conv(state, f"{body}.{at}", y, y.shape[1], stride, depthwise=True)).clamp(0, 6)
        y = norm(f"{body}.{at + 4}", conv(state, f"{body}.{at + 3}", y, left.pop(0)))
        x = x + y if added else y
    x = norm("features.18.1", conv(state, "features.18.0", x, left.pop(0))).clamp(0, 6)
    assert not left
    return classifier(state, x)


def resnet50(state: State, counts: Sequence[int], norm: Norm, x: Tensor) -> Tensor:
    """`counts`: stem, then per block (mid1, mid2, out), the first of a stage preceded by its shortcut's output."""
    left = list(counts)
    x = norm("features.0.1", conv(state, "features.0.0", x, left.pop(0), 2)).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    block = 0
    for stage, repeats in enumerate(RESNET50_STAGES):
        for i in range(repeats):
            block += 1
            path, stride, shortcut = f"features.{block}", 2 if stage and not i else 1, x
            if not i:
                shortcut = norm(f"{path}.shortcut.1", conv(state, f"{path}.shortcut.0", x, left.pop(0), stride))
            y = norm(f"{path}.body.1", conv(state, f"{path}.body.0", x, left.pop(0))).clamp(min=0)
            y = norm(f"{path}.body.4", conv(state, f"{path}.body.3", y, left.pop(0), stride)).clamp(min=0)
            y = norm(f"{path}.body.7", conv(state, f"{path}.body.6", y, left.pop(0)))
            x = (y + shortcut).clamp(min=0)
    assert not left
    return classifier(state, x)
