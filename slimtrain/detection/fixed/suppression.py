"""Greedy non-maximum suppression (NMS) in fixed shapes.

A box stays unless one that stays, and comes before it, overlaps it. That is a fixed point, which is reached from "all stay"
by applying the sentence again and again: after n rounds everything is right that a chain of n boxes decides, mostly a few.
Whether it was reached is known: another round changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import nms

ROUNDS = 12  # at most 10 were needed in 105 sets of 1,000 or 2,000 drawn boxes


def overlaps(boxes: Tensor, labels: Tensor | None, threshold: float) -> Tensor:
    """Of `boxes` [B, n, 4], and their `labels` [B, n], which pairs share a label and an IoU above `threshold`: [B, n, n]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    both = width.clamp(min=0) * height.clamp(min=0)
    area = (x2 - x1) * (y2 - y1)
    over = both / (area[:, :, None] + area[:, None] - both) > threshold
    return over if labels is None else over & (labels[:, :, None] == labels[:, None])


class Suppression(Protocol):
    """What NMS is done with: boxes in descending order of their scores, which of them count at all, as numbers 0 and 1 [B, n]
    -> which stay, likewise, and whether that of an image is settled, bool [B]."""

    def __call__(self, boxes: Tensor, valid: Tensor, labels: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class FixedPoint:
    """NMS as a matrix of overlaps and so many rounds of products with it."""

    rounds: int = ROUNDS

    def __call__(self, boxes: Tensor, valid: Tensor, labels: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
        over = overlaps(boxes, labels, threshold).to(boxes.dtype).triu(1)
        before = keep = valid
        for _ in range(self.rounds):
            before = keep
            keep = valid * (torch.matmul(keep.unsqueeze(1), over).squeeze(1) == 0).to(boxes.dtype)
        return keep, (before == keep).all(1)


@torch.library.custom_op("slimtrain::non_maximum_suppression", mutates_args=())
def non_maximum_suppression(boxes: Tensor, valid: Tensor, labels: Tensor | None, threshold: float, classes: int) -> Tensor:
    """Which boxes stay, 0 or 1 [B, n]: an operator of graphs whose ONNX form is NonMaxSuppression. `classes`: the largest of
    `labels`."""
    keep = torch.zeros_like(valid)
    for image in range(len(boxes)):
        (counted,) = valid[image].nonzero(as_tuple=True)
        ranks = -counted.to(boxes.dtype)
        of_class = torch.zeros_like(counted) if labels is None else labels[image][counted]
        for label in set(of_class.tolist()):
            (own,) = (of_class == label).nonzero(as_tuple=True)
            stays = nms(boxes[image][counted[own]], ranks[own], threshold)
            keep[image, counted[own[stays]]] = 1
    return keep


@non_maximum_suppression.register_fake
def _(boxes: Tensor, valid: Tensor, labels: Tensor | None, threshold: float, classes: int) -> Tensor:
    return torch.empty_like(valid)


@dataclass(frozen=True)
class Standard:
    """NMS as ONNX's own operator: faster on CPUs, in shapes that images decide on. `classes`: the largest label."""

    classes: int

    def __call__(self, boxes: Tensor, valid: Tensor, labels: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
        keep = non_maximum_suppression(boxes, valid, labels, threshold, self.classes)
        return keep, (keep >= 0).all(1)
