"""Losses, summed over images. Logits are [N, classes]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.base.errors import UserError


def torch_smoothing(smoothing: float, classes: int) -> float:
    """torch's `label_smoothing` for the published one.

    The published smoothing s gives s / (n - 1) to each of the other n - 1 classes; torch's spreads its s over all n.
    UserError where it would leave the true class less than the others.
    """
    if not smoothing:
        return 0.0
    if smoothing >= 1 - 1 / classes:
        raise UserError(
            f"label_smoothing {smoothing}: with {classes} classes the true one would get no more than the others. Expected "
            f"less than {1 - 1 / classes:.3g}."
        )
    return smoothing * classes / (classes - 1)


def full_precision(x: Tensor) -> Tensor:
    """bf16 and fp16 as float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with labels [N], smoothed as published."""
    spread = torch_smoothing(smoothing, logits.shape[1])
    return F.cross_entropy(full_precision(logits), labels, reduction="sum", label_smoothing=spread)


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the teacher's probabilities [N, classes] (inplace distillation, arXiv 1903.05134, sec. 3.3)."""
    return -(teacher * full_precision(logits).log_softmax(1)).sum()
