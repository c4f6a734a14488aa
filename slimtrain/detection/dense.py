"""A detector's learned parts as one module, which torch.export can read: Faster R-CNN (arXiv 1506.01497) on a pyramid, with a
mask or keypoint head (arXiv 1703.06870), RetinaNet (arXiv 1708.02002) and SSDLite (arXiv 1801.04381, sec. 6.2).

Which regions there are is none of its concern: they are an input. So one graph ties the channels of stages, pyramid and heads,
and what draws boxes from outputs (`fixed/`) stands apart. The parts are torchvision's, under the names that they have in its
detectors: their state dicts fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssdlite import SSDLiteHead

from slimtrain.base.errors import UserError
from slimtrain.detection.backbones import Stages
from slimtrain.detection.extra_levels import SSD_NORM, ExtendedBackbone
from slimtrain.detection.pyramid import PyramidBackbone
from slimtrain.detection.regions import pooled
from slimtrain.models.detector import SSDLITE, BoxSettings, DetectorSettings, KeypointSettings, MaskSettings

MASK_LAYERS, KEYPOINT_LAYERS = 4, 8
RETINA_CHANNELS = 256
NO_NORM, GROUP_NORM = "none", "group"
NORMS = (NO_NORM, GROUP_NORM)  # of pyramid and heads
GROUP = 8  # channels that are normalized together: torchvision's 32 groups of 256


def group_norm(channels: int) -> nn.GroupNorm:
    """A norm of groups of channels (arXiv 1803.08494). A width has as many groups of fewer channels. UserError for channels
    that are no such groups."""
    if channels % GROUP:
        raise UserError(f"{channels} channels: GroupNorm takes groups of {GROUP} here. Expected a multiple of {GROUP}.")
    return nn.GroupNorm(channels // GROUP, channels)


class Parts(nn.Module):
    """Parts of a detector under torchvision's names for them."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def run(self, x: Any, *names: str) -> Any:
        """What some of them give, each of what the one before it gave."""
        for name in names:
            x = self._modules[name](x)  # type: ignore[misc]
        return x


class DenseDetector(nn.Module):
    """The detector of `settings` on `stages`.

    `neck`: channels of the pyramid; SSDLite, which has none, has twice as many in its first further level, half in its last.
    `hidden`: of the box head's layers. `head`: of the mask or keypoint head's (default: as torchvision's, the pyramid's and
    twice as many). `norm`: of the pyramid and of those heads that torchvision gives one (RetinaNet's, the mask head): `none`
    or `group`. Raises UserError where `settings` have anchors for other levels than the stages give.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        stages: Stages,
        neck: int = 256,
        hidden: int = 1024,
        head: int | None = None,
        norm: str = NO_NORM,
    ) -> None:
        super().__init__()
        self.settings = settings
        _check_levels(settings, stages)
        self.pooled_strides = stages.strides
        norms: Callable[[int], nn.Module] | None = group_norm if norm == GROUP_NORM else None
        if settings.kind == SSDLITE:
            self.backbone: nn.Module = ExtendedBackbone(stages.body, stages.channels, neck)
            channels, counts = self.backbone.channels, settings.anchors.counts
            self.head = SSDLiteHead([*channels], [*counts], settings.classes + 1, SSD_NORM)
            return
        anchors = _count(settings)
        extra = "convolutions" if settings.single_stage else "pool"
        self.backbone = PyramidBackbone(stages.body, stages.channels, neck, extra, norms)
        if settings.single_stage:
            self.head = RetinaNetHead(neck, anchors, settings.classes, norm_layer=norms)
            if norms is None:
                _keep_signal(self.head, neck)
            return
        self.rpn = Parts(head=RPNHead(neck, anchors))
        self.roi_heads = Parts(**_roi_heads(settings, neck, hidden, head, norms))

    def forward(self, images: Tensor, rois: Tensor | None = None, mask_rois: Tensor | None = None) -> dict[str, Tensor]:
        """`images` [B, 3, H, W], normalized, of sides that the coarsest stage's stride divides; `rois` [R, 5] and, for a mask
        or keypoint head, `mask_rois` [M, 5]: image, x1, y1, x2, y2 in pixels.

        `map0`, ...: what regions are pooled from. `objectness0`, ... [B, A, h, w] and `deltas0`, ... [B, 4 A, h, w] of every
        level; `class_logits` [R, C + 1], `box_deltas` [R, 4 (C + 1)]; `mask_logits` [M, C + 1, 28, 28] or `keypoint_logits`
        [M, K, 56, 56]. RetinaNet: `class_logits0`, ... [B, A C, h, w] and `box_deltas0`, ... [B, 4 A, h, w]; SSDLite as well,
        with C + 1 classes.
        """
        self._check_size(images)
        maps = self.backbone(images)
        if self.settings.single_stage:
            return self._single_stage(maps)
        outputs = {f"map{index}": level for index, level in enumerate(maps[: len(self.pooled_strides)])}
        logits, deltas = self.rpn.run(maps, "head")
        outputs |= {f"objectness{index}": level for index, level in enumerate(logits)}
        outputs |= {f"deltas{index}": level for index, level in enumerate(deltas)}
        settings, run = self.settings, self.roi_heads.run
        features = self.pooled(maps, _given(rois, "rois"), settings.box)
        outputs["class_logits"], outputs["box_deltas"] = run(features, "box_head", "box_predictor")
        if settings.mask is not None:
            features = self.pooled(maps, _given(mask_rois, "mask_rois"), settings.mask)
            outputs["mask_logits"] = run(features, "mask_head", "mask_predictor")
        if settings.keypoints is not None:
            features = self.pooled(maps, _given(mask_rois, "mask_rois"), settings.keypoints)
            outputs["keypoint_logits"] = run(features, "keypoint_head", "keypoint_predictor")
        return outputs

    def pooled(self, maps: list[Tensor], rois: Tensor, part: BoxSettings | MaskSettings | KeypointSettings) -> Tensor:
        """What a head reads of regions [R, 5]: [R, C, size, size]."""
        strides = self.pooled_strides
        return pooled(maps[: len(strides)], rois, strides, part.roi_size, part.sampling_ratio, self.settings.convention)

    def _single_stage(self, maps: list[Tensor]) -> dict[str, Tensor]:
        classes, boxes = self.head.classification_head, self.head.regression_head
        if self.settings.kind == SSDLITE:
            logits = [part(level) for part, level in zip(classes.module_list, maps, strict=True)]
            deltas = [part(level) for part, level in zip(boxes.module_list, maps, strict=True)]
        else:
            logits = [classes.cls_logits(classes.conv(level)) for level in maps]
            deltas = [boxes.bbox_reg(boxes.conv(level)) for level in maps]
        outputs = {f"class_logits{index}": level for index, level in enumerate(logits)}
        return outputs | {f"box_deltas{index}": level for index, level in enumerate(deltas)}

    def _check_size(self, images: Tensor) -> None:
        stride, (height, width) = self.pooled_strides[-1], images.shape[-2:]
        if height % stride or width % stride:
            raise UserError(
                f"images of {height}x{width} pixels: expected sides that are multiples of {stride}, the stride of the "
                "coarsest stage. Pad them."
            )

    def example(self, height: int, width: int, rois: int = 4, mask_rois: int = 2, images: int = 2) -> tuple[Tensor, ...]:
        """Inputs of `images` images with so many regions each, drawn from a seed of their own: images of normal numbers, and
        regions of all levels within them."""
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(images, 3, height, width, generator=generator)]
        if not self.settings.single_stage:
            drawn.append(drawn_regions(images, rois, (height, width), generator))
        if self.settings.mask is not None or self.settings.keypoints is not None:
            drawn.append(drawn_regions(images, mask_rois, (height, width), generator))
        return tuple(drawn)


def _count(settings: DetectorSettings) -> int:
    """Anchors at a place, as many at all levels. UserError where they differ."""
    counts = set(settings.anchors.counts)
    if len(counts) != 1:
        raise UserError(f"anchors: {settings.anchors.counts} at a place of each level, expected as many at all levels.")
    return counts.pop()


@torch.no_grad()
def _keep_signal(head: nn.Module, channels: int) -> None:
    """Enlarge the weights of RetinaNet's head as far as its `channels` are fewer than published: N(0, 0.01) is for 256 (arXiv
    1708.02002, sec. 4.1). Five layers of 64 would leave a thirtieth of the differences between places, which few steps learn
    anything from."""
    for weight in head.parameters():
        if weight.dim() > 1:
            weight.mul_(max(1.0, math.sqrt(RETINA_CHANNELS / channels)))


def _roi_heads(
    settings: DetectorSettings, neck: int, hidden: int, head: int | None, norms: Callable[[int], nn.Module] | None
) -> dict[str, nn.Module]:
    """What reads regions, under torchvision's names."""
    classes, size = settings.classes + 1, settings.box.roi_size
    parts = {"box_head": TwoMLPHead(neck * size * size, hidden), "box_predictor": FastRCNNPredictor(hidden, classes)}
    if settings.mask is not None:
        width = head or neck
        parts["mask_head"] = MaskRCNNHeads(neck, (width,) * MASK_LAYERS, 1, norms)
        parts["mask_predictor"] = MaskRCNNPredictor(width, width, classes)
    if settings.keypoints is not None:
        width = head or 2 * neck
        parts["keypoint_head"] = KeypointRCNNHeads(neck, (width,) * KEYPOINT_LAYERS)
        parts["keypoint_predictor"] = KeypointRCNNPredictor(width, settings.keypoints.count)
    return parts


def _given(regions: Tensor | None, name: str) -> Tensor:
    if regions is None:
        raise TypeError(f"{name} are missing: a detector of this kind reads them beside the images")
    return regions


def drawn_regions(images: int, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """`count` regions of each of `images`, [images * count, 5], within images of `size`, from a few pixels to all of it."""
    height, width = size
    sides = torch.tensor([width, height]) * torch.exp2(-4 * torch.rand(images * count, 2, generator=generator))
    corner = (torch.tensor([width, height]) - sides) * torch.rand(images * count, 2, generator=generator)
    image = torch.arange(images).repeat_interleave(count)[:, None]
    return torch.cat([image, corner, corner + sides], 1)


def _check_levels(settings: DetectorSettings, stages: Stages) -> None:
    """UserError unless anchors are of the levels that the stages give."""
    strides = [*stages.strides, *(stages.strides[-1] * 2 ** (index + 1) for index in range(settings.extra_levels))]
    if list(settings.anchors.strides) != strides:
        raise UserError(
            f"anchors have strides {', '.join(map(str, settings.anchors.strides))}, the detector's levels "
            f"{', '.join(map(str, strides))}: expected these."
        )
