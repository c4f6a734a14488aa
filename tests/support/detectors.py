"""Small detectors in tests: settings, outputs drawn at random, a dense graph of two levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import roi_align

from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.models.detector import (
    FASTER,
    KEYPOINT,
    MASK,
    Anchors,
    BoxSettings,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
    ProposalSettings,
)

IMAGE = (64, 96)
ANCHORS = Anchors(sizes=((16,), (32,)), ratios=((0.5, 1.0, 2.0),) * 2, strides=(4, 8))


def settings(
    *,
    classes: int = 5,
    top_k: int = 100,
    kept: int = 60,
    candidates: int = 80,
    detections: int = 30,
    masks: bool = False,
    keypoints: bool = False,
) -> DetectorSettings:
    return DetectorSettings(
        classes=classes,
        kind=MASK if masks else KEYPOINT if keypoints else FASTER,
        anchors=ANCHORS,
        proposals=ProposalSettings(top_k=top_k, kept=kept),
        box=BoxSettings(candidates=candidates, detections=detections),
        mask=MaskSettings(roi_size=4, size=8) if masks else None,
        keypoints=KeypointSettings(count=2, roi_size=4, size=16) if keypoints else None,
    )


def drawn_maps(proposals: Proposals, images: int, spread: float = 3.0, seed: int = 0) -> list[Tensor]:
    """Outputs of a region proposal network in float64."""
    draw = torch.Generator().manual_seed(seed)
    scales = {"objectness": spread, "deltas": 0.3}
    return [
        torch.randn(images, *shape, generator=draw, dtype=torch.float64) * scales[name.rstrip("0123456789")]
        for name, shape in proposals.input_shapes.items()
    ]


class _FirstOfEqual(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, which takes the first of equal scores where it chooses the best of a level; it says nothing of them."""

    def _get_top_n_idx(self, objectness: Tensor, num_anchors_per_level: list[int]) -> Tensor:
        chosen, offset = [], 0
        for level in torch.split(objectness, num_anchors_per_level, 1):
            order = level.sort(dim=1, descending=True, stable=True).indices
            chosen.append(order[:, : self.pre_nms_top_n()] + offset)
            offset += level.shape[1]
        return torch.cat(chosen, 1)


def torchvision_proposals(given: DetectorSettings, image: tuple[int, int], maps: list[Tensor]) -> list[Tensor]:
    """What torchvision proposes for every image: [n, 4]."""
    rules = given.proposals
    generator = AnchorGenerator(given.anchors.sizes, given.anchors.ratios)
    before, after = ({"training": count, "testing": count} for count in (rules.top_k, rules.kept))
    network = _FirstOfEqual(
        generator, RPNHead(8, 3), 0.7, 0.3, 256, 0.5, before, after, rules.nms, score_thresh=rules.score
    ).eval()
    network.min_size = rules.least_size
    levels = len(maps) // 2
    objectness, codes = maps[:levels], maps[levels:]
    images = len(objectness[0])
    sizes = [image] * images
    anchors = generator(ImageList(torch.zeros(images, 3, *image, dtype=torch.float64), sizes), objectness)
    counts = [level[0].numel() for level in objectness]
    flat, deltas = concat_box_prediction_layers(list(objectness), list(codes))
    boxes = network.box_coder.decode(deltas, anchors).view(images, -1, 4)
    return network.filter_proposals(boxes, flat, sizes, counts)[0]


def torchvision_detections(
    given: DetectorSettings, image: tuple[int, int], rois: list[Tensor], logits: Tensor, codes: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What torchvision detects in every image: boxes [n, 4], scores [n], labels [n]."""
    rules = given.box
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, rules.weights, rules.score, rules.nms, rules.detections)
    return list(zip(*heads.postprocess_detections(logits, codes, rois, [image] * len(rois)), strict=True))


class TwoLevels(nn.Module):
    """A dense graph: a backbone with two levels, torchvision's heads on them."""

    def __init__(self, given: DetectorSettings) -> None:
        super().__init__()
        self.given = given
        size, rows = given.box.roi_size, given.classes + 1
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.laterals = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(24, 8, 1)])
        self.rpn = RPNHead(8, 3)
        self.box_head = TwoMLPHead(8 * size * size, 16)
        self.box_predictor = FastRCNNPredictor(16, rows)
        if given.mask is not None:
            self.mask_predictor = MaskRCNNPredictor(8, 8, rows)
        if given.keypoints is not None:
            self.keypoint_predictor = KeypointRCNNPredictor(8, given.keypoints.count)

    def forward(self, images: Tensor, rois: Tensor, mask_rois: Tensor | None = None) -> dict[str, Tensor]:
        fine = self.stem(images)
        coarse = self.laterals[1](self.down(fine))
        maps = [self.laterals[0](fine) + F.interpolate(coarse, scale_factor=2.0, mode="nearest"), coarse]
        objectness, deltas = self.rpn(maps)
        logits, codes = self.box_predictor(self.box_head(self.pooled(maps, rois, self.given.box.roi_size)))
        outputs = {"objectness0": objectness[0], "objectness1": objectness[1], "deltas0": deltas[0], "deltas1": deltas[1]}
        outputs |= {"class_logits": logits, "box_deltas": codes}
        if mask_rois is not None and self.given.mask is not None:
            outputs["mask_logits"] = self.mask_predictor(self.pooled(maps, mask_rois, self.given.mask.roi_size))
        if mask_rois is not None and self.given.keypoints is not None:
            outputs["keypoint_logits"] = self.keypoint_predictor(self.pooled(maps, mask_rois, self.given.keypoints.roi_size))
        return outputs

    def pooled(self, maps: list[Tensor], rois: Tensor, size: int) -> Tensor:
        large = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]) > 576)[:, None, None, None]
        fine, coarse = (roi_align(maps[level], rois, size, 1 / stride, 2) for level, stride in enumerate((4, 8)))
        return torch.where(large, coarse, fine)


def two_levels(given: DetectorSettings) -> TwoLevels:
    """One whose outputs differ from place to place: heads that nobody trained rank all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = TwoLevels(given)
    factors = {"rpn.cls_logits": 100, "rpn.bbox_pred": 30, "box_predictor.cls_score": 10, "box_predictor.bbox_pred": 5}
    with torch.no_grad():
        for name, factor in factors.items():
            module.get_parameter(f"{name}.weight").mul_(factor)
    return module.eval()


def examples(given: DetectorSettings, image: tuple[int, int] = IMAGE) -> tuple[Tensor, ...]:
    """Inputs of a dense graph that fits: two images, with as many regions as there are proposals and detections."""
    draw = torch.Generator().manual_seed(1)
    counts = [Proposals(given, image).kept, *([given.box.detections] if given.mask or given.keypoints else [])]
    regions = []
    for count in counts:
        corner = torch.rand(2 * count, 2, generator=draw) * 40
        ends = corner + 4 + torch.rand(2 * count, 2, generator=draw) * 50
        regions.append(torch.cat([torch.arange(2).repeat_interleave(count)[:, None], corner, ends], 1))
    return (torch.randn(2, 3, *image, generator=draw), *regions)
