"""NMS by TensorRT's plugin EfficientNMS_TRT, version 1, as NVIDIA documents it (TensorRT's repository,
plugin/efficientNMSPlugin/README.md). TensorRT 8 and 10 have it; it is deprecated since 10.12."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from slimtrain.base.errors import UserError
from slimtrain.models.detector import DetectorSettings

PLUGIN_OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
MOST_CANDIDATES = 4096  # of an image that the plugin looks at, the best; so that it gives out no more


@torch.library.custom_op("slimtrain::efficient_nms", mutates_args=())
def efficient_nms(
    boxes: Tensor, scores: Tensor, detections: int, score_threshold: float, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`boxes` [B, N, 4] or [B, N, C, 4], `scores` [B, N, C] -> the number of detections int32 [B, 1], their boxes
    [B, D, 4], scores [B, D] and classes int32 [B, D], from 0. Rows behind the number are zeros here, and anything there."""
    images, classes = len(scores), scores.shape[2]
    count = torch.zeros(images, 1, dtype=torch.int32)
    chosen, best = boxes.new_zeros(images, detections, 4), scores.new_zeros(images, detections)
    labels = torch.zeros(images, detections, dtype=torch.int32)
    for image in range(images):
        ranked, order = scores[image].flatten().sort(descending=True, stable=True)
        order = order[: min(int((ranked >= score_threshold).sum()), MOST_CANDIDATES)]
        owners, numbers = order // classes, order % classes
        own = boxes[image, owners] if boxes.ndim == 3 else boxes[image, owners, numbers]
        stays = batched_nms(own, -torch.arange(len(order)).to(own), numbers, iou_threshold)[:detections]
        count[image] = len(stays)
        chosen[image, : len(stays)], labels[image, : len(stays)] = own[stays], numbers[stays].int()
        best[image, : len(stays)] = scores[image].flatten()[order[stays]]
    return count, chosen, best, labels


@efficient_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, detections: int, score_threshold: float, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = boxes.shape[0]
    return (
        boxes.new_empty((images, 1), dtype=torch.int32),
        boxes.new_empty((images, detections, 4)),
        boxes.new_empty((images, detections)),
        boxes.new_empty((images, detections), dtype=torch.int32),
    )


class PluginDetections(nn.Module):
    """What `raw` reads -> the plugin's outputs, under its names for them: `num_detections` int32 [B, 1], `detection_boxes`
    [B, D, 4], `detection_scores` [B, D], `detection_classes` int32 [B, D], which count from 0, the first class that is no
    background. Only the first `num_detections` rows are any. UserError for more detections than the plugin gives out."""

    def __init__(self, raw: nn.Module, settings: DetectorSettings) -> None:
        super().__init__()
        if settings.box.detections > MOST_CANDIDATES:
            raise UserError(
                f"nms trt: {settings.box.detections:,} detections of an image, and EfficientNMS_TRT looks at the best "
                f"{MOST_CANDIDATES:,} candidates. Expected at most these: --detections."
            )
        self.raw, self.rules = raw, settings.box

    def forward(self, *outputs: Tensor) -> dict[str, Tensor]:
        raw = self.raw(*outputs)
        rules = self.rules
        given = efficient_nms(raw["boxes"], raw["scores"], rules.detections, rules.score, rules.nms)
        return dict(zip(PLUGIN_OUTPUTS, given, strict=True))
