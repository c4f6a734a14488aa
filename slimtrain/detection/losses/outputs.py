"""A dense detector's outputs and an image's targets, as torchvision's losses read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.models.detection.rpn import concat_box_prediction_layers

from slimtrain.data.detection.targets import Targets

Outputs = Mapping[str, Tensor]


def levels_of(outputs: Outputs, name: str) -> list[Tensor]:
    """The outputs `name0`, `name1` and so on."""
    levels: list[Tensor] = []
    while f"{name}{len(levels)}" in outputs:
        levels.append(outputs[f"{name}{len(levels)}"])
    return levels


def flat(logits: Sequence[Tensor], codes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of maps [B, A C, h, w] and [B, 4 A, h, w] of every level: [B, anchors, C] and [B, anchors, 4], in the order of the
    anchors."""
    images = len(logits[0])
    classes, boxes = concat_box_prediction_layers(list(logits), list(codes))
    return classes.reshape(images, -1, classes.shape[-1]), boxes.reshape(images, -1, 4)


def as_read(targets: Sequence[Targets], device: torch.device, first_class: int = 1) -> list[dict[str, Tensor]]:
    """What is to be learned of every image, without crowds. Classes count from `first_class`."""
    read = []
    for single in (image.single() for image in targets):
        fields = {"boxes": single.boxes, "labels": single.labels - 1 + first_class}
        if single.masks is not None:
            fields["masks"] = single.masks.to(torch.uint8)
        if single.keypoints is not None:
            fields["keypoints"] = single.keypoints
        read.append({name: field.to(device) for name, field in fields.items()})
    return read
