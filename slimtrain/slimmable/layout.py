"""Which layout in memory images and weights have: channels last, which convolutions mostly are faster in, or contiguous."""

from __future__ import annotations

import torch

from slimtrain.slimmable.network import SlimmableNetwork


def takes_channels_last(network: SlimmableNetwork, device: torch.device, amp: str, wanted: bool | None = None) -> bool:
    """What is `wanted`, else what is faster: channels last, but for depthwise convolutions in float32 on a GPU.

    Over a dozen steps, whose widths are drawn, one of US-MobileNet v1 takes 13 times as long as contiguous on an H200, where
    one of S-ResNet-50 takes 0.66 times as long (benchmarks/results/training_us_h200.txt, training_s_h200.json).
    """
    if wanted is not None:
        return wanted
    return device.type != "cuda" or amp != "none" or not _has_depthwise(network)


def _has_depthwise(network: SlimmableNetwork) -> bool:
    """Whether a convolution [C, 1, K, K] reads one channel for each that it writes."""
    kernels = (weight for weight in network.parameters() if weight.ndim == 4)
    return any(weight.shape[0] > 1 and weight.shape[1] == 1 and weight.shape[2:].numel() > 1 for weight in kernels)


def memory_format(channels_last: bool) -> torch.memory_format:
    """torch's name of the layout."""
    return torch.channels_last if channels_last else torch.contiguous_format
