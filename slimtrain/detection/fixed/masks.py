"""Of every detection's masks that of its class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Masks(nn.Module):
    """`labels` [B, D] and mask logits [B D, C + 1, s, s] of every class -> `masks` [B, D, s, s], the probability of each
    pixel of the box. Where no detection is (label 0) they are 0."""

    def forward(self, labels: Tensor, mask_logits: Tensor) -> dict[str, Tensor]:
        classes, *size = mask_logits.shape[1:]
        logits = mask_logits.reshape(-1, labels.shape[1], classes, *size)
        numbers = labels[:, :, None, None, None].expand(-1, -1, 1, *size)
        chosen = torch.sigmoid(logits.gather(2, numbers).squeeze(2))
        return {"masks": chosen * (labels > 0).to(chosen.dtype)[:, :, None, None]}
