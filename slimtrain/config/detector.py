"""What a run is told of its detector: one frozen dataclass, which stands in `Config.detector`; `--set detector.KEY=VALUE`
changes a key. No torch.

The defaults are those of the published training (arXiv 1812.08928's branch `detection`), but for what is slimmed: all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, format_size, sides
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.config.keys import key, keys_of
from slimtrain.models.detector import (
    EXTRA_LEVELS,
    KEYPOINT,
    KINDS,
    MASK,
    RETINA,
    SSD_ANCHORS,
    SSDLITE,
    Anchors,
    BoxSettings,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
    ProposalSettings,
    usual_box,
)

STAGE_STRIDES = (4, 8, 16, 32)
RESNET, RESNET50 = "resnet", "resnet50"
FOREIGN = ("torchvision:", "timm:")  # how the name of another classifier begins, whose stages are taken
SWITCHABLE, FROZEN_NORMS = "switchable", "frozen"
NO_NORM, GROUP_NORM = "none", "group"
SIDE = 2**16  # pixels
MANY = 10**6  # anchors, regions, steps
CHANNELS = 2**16
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # RetinaNet's anchors of a level (arXiv 1708.02002, sec. 4)


@dataclass(frozen=True)
class DetectorConfig:
    """A detector and its training. Empty tuples, 0 and "" mean the default that the comment names.

    >>> DetectorConfig("faster_rcnn", neck=64).settings(10, strides=(4, 8, 16, 32)).anchors.sizes
    ((32,), (64,), (128,), (256,), (512,))

    UserError for a value that no detector can have, and for values that contradict each other.
    """

    # the network
    kind: str = key("", choices=("", *KINDS))  # the network's name says it
    backbone: str = RESNET50  # resnet50, resnet (see below), or a classifier's stages: torchvision:NAME, timm:NAME
    depths: tuple[int, ...] = key((3, 4, 6, 3), least=1, most=1000, entries=4)  # resnet: blocks of every stage
    width: int = key(64, least=1, most=CHANNELS)  # resnet: channels of its stem
    bottleneck: bool = True  # resnet: blocks of three convolutions, not of two
    first_stage: int = key(0, least=0, most=3)  # the finest that the pyramid reads: 0 of stride 4, 1 of stride 8
    slim: str = key("all", choices=("all", "backbone"))  # what gets narrower; backbone: as published
    norms: str = key(SWITCHABLE, choices=(SWITCHABLE, FROZEN_NORMS))  # frozen: as pretrained, neither moves nor learns
    frozen_stages: int = key(-1, least=-1, most=4)  # that do not learn: 0 the stem, 1 also the first stage; -1 none
    neck: int = key(256, least=1, most=CHANNELS)  # channels of the pyramid
    neck_norm: str = key(NO_NORM, choices=(NO_NORM, GROUP_NORM))  # of pyramid and heads
    hidden: int = key(1024, least=1, most=CHANNELS)  # channels of the box head's layers
    head: int = key(0, least=0, most=CHANNELS)  # of the mask or keypoint head; as many as torchvision's has

    roi_size: int = key(7, least=1, most=64)  # places a side that a region is pooled to, for the box head
    roi_samples: int = key(2, least=1, most=16)  # a side of every place, which RoIAlign takes the mean of

    # anchors
    anchor_sizes: tuple[tuple[int, ...], ...] = key((), least=1, most=SIDE, entries=16)  # of every level; by its stride
    anchor_ratios: tuple[float, ...] = key((), least=0.01, most=100, entries=16)  # height to width; 0.5, 1, 2, SSDLite's 2, 3
    anchor_scales: tuple[float, ...] = key((), least=0.001, most=2, entries=16)  # SSDLite: shares of the image; 0.2 to 0.95, 1

    # what is detected
    proposals: int = key(1000, least=1, most=MANY)  # of an image, after NMS
    level_proposals: int = key(1000, least=1, most=MANY)  # of a level, before NMS
    proposal_nms: float = key(0.7, least=0.01, most=1)  # the IoU above which the worse of two proposals goes
    score: float = key(0.0, least=0, most=1)  # what a detection's is above; the kind's, 0.05
    nms: float = key(0.0, least=0, most=1)  # the IoU above which the worse of two detections of a class goes; the kind's, 0.5
    detections: int = key(0, least=0, most=MANY)  # of an image; the kind's, 100
    candidates: int = key(0, least=0, most=MANY)  # of an image, before NMS; the kind's, 500

    # what is learned from
    train_proposals: int = key(2000, least=1, most=MANY)  # as `proposals`, in training
    train_level_proposals: int = key(2000, least=1, most=MANY)
    rpn_object: float = key(0.7, least=0, most=1)  # the IoU from which on an anchor is an object's
    rpn_background: float = key(0.3, least=0, most=1)  # the IoU below which it is background
    rpn_sampled: int = key(256, least=1, most=MANY)  # anchors of an image that losses are of
    rpn_positive: float = key(0.5, least=0, most=1)  # the most of them that are objects'
    box_object: float = key(0.5, least=0, most=1)  # the IoU from which on a region is an object's
    box_sampled: int = key(512, least=1, most=MANY)  # regions of an image that losses are of
    box_positive: float = key(0.25, least=0, most=1)  # the most of them that are objects'

    # the images
    scales: tuple[int, ...] = key((), least=1, most=SIDE)  # shorter sides that one is drawn of; the last tests; their own
    longest: int = key(1333, least=1, most=SIDE)  # of the longer side, where there are scales
    mirror: float = key(0.5, least=0, most=1)  # the share of training images that is mirrored
    scenes: int = key(2000, least=1, most=MANY)  # data scenes: to train on
    test_scenes: int = key(200, least=1, most=MANY)  # data scenes: to test on

    # optimization
    warmup_steps: int = key(500, least=0, most=MANY)  # lr rises linearly
    warmup_from: float = key(1 / 3, least=0, most=1)  # the share of lr that it begins at
    clip: float = key(35.0, least=0, most=10**6)  # the most that the norm of all gradients is; 0: any

    def __post_init__(self) -> None:
        for name, rule in DETECTOR_KEYS.items():
            rule.check(f"detector.{name}", getattr(self, name), "", "")
        if self.backbone not in (RESNET, RESNET50) and not self.backbone.startswith(FOREIGN):
            raise UserError(
                f"detector.backbone is {quoted(self.backbone)}, expected {RESNET50}, {RESNET} (with detector.depths, width "
                "and bottleneck), torchvision:NAME or timm:NAME."
            )
        if not self.depths or self.first_stage >= len(self.depths):
            raise UserError(
                f"detector.first_stage is {self.first_stage} and detector.depths {list(self.depths)}: expected a stage at "
                "least for the pyramid to read."
            )
        if self.rpn_background > self.rpn_object:
            raise UserError(
                f"detector.rpn_background is {self.rpn_background}, above detector.rpn_object, {self.rpn_object}: an anchor "
                "would be both."
            )
        if not self.box.candidates or (self.kind != SSDLITE and self.box.candidates < self.box.detections):
            raise UserError(
                f"detector.candidates is {self.box.candidates}, expected at least as many as detector.detections, "
                f"{self.box.detections}."
            )
        self._check_anchors()

    def _check_anchors(self) -> None:
        if any(not sizes or len(sizes) != len(self.anchor_sizes[0]) for sizes in self.anchor_sizes):
            raise UserError(
                f"detector.anchor_sizes are {[list(sizes) for sizes in self.anchor_sizes]}: expected as many at every level, "
                "one at least, as in [[32], [64], [128]]."
            )
        theirs, wrong = ("scales", "sizes") if self.kind == SSDLITE else ("sizes", "scales")
        if self.kind and getattr(self, f"anchor_{wrong}"):
            raise UserError(f"detector.anchor_{wrong}: the anchors of a {self.kind} have anchor_{theirs}. Set these.")

    @property
    def stride(self) -> int:
        """Of the coarsest stage: what divides the sides of images."""
        return STAGE_STRIDES[len(self.depths) - 1 if self.backbone == RESNET else -1]

    def check_image_size(self, image_size: ImageSize) -> None:
        """UserError unless images of this size have whole maps at every stage."""
        if any(side % self.stride for side in sides(image_size)):
            raise UserError(
                f"image_size is {format_size(image_size)}, expected sides that are multiples of {self.stride}, the stride of "
                "the coarsest stage."
            )

    @property
    def box(self) -> BoxSettings:
        """What of all boxes are detections."""
        usual = usual_box(self.kind)
        return replace(
            usual,
            roi_size=self.roi_size,
            sampling_ratio=self.roi_samples,
            score=self.score or usual.score,
            nms=self.nms or usual.nms,
            detections=self.detections or usual.detections,
            candidates=self.candidates or usual.candidates,
        )

    def settings(
        self,
        classes: int,
        strides: Sequence[int],
        mean: Sequence[float] = DetectorSettings.mean,
        std: Sequence[float] = DetectorSettings.std,
        keypoints: int = 0,
    ) -> DetectorSettings:
        """The detector on stages of `strides` for so many `classes`, images normalized by `mean` and `std`; of each object so
        many `keypoints`, 0 for COCO's 17. UserError where there are anchors for other levels."""
        anchors = self._anchors(strides)
        try:
            return DetectorSettings(
                classes,
                self.kind,
                anchors,
                ProposalSettings(top_k=self.level_proposals, kept=self.proposals, nms=self.proposal_nms),
                self.box,
                MaskSettings() if self.kind == MASK else None,
                KeypointSettings(keypoints or KeypointSettings.count) if self.kind == KEYPOINT else None,
                _three(mean),
                _three(std),
            )
        except ValueError as error:
            raise UserError(f"detector: {error}.") from error

    def _anchors(self, stages: Sequence[int]) -> Anchors:
        extra = EXTRA_LEVELS.get(self.kind, 1)
        levels = (*stages, *(stages[-1] * 2 ** (number + 1) for number in range(extra)))
        if self.kind == SSDLITE:
            ratios, count = self.anchor_ratios or SSD_ANCHORS.ratios[0], len(levels) + 1
            scales = self.anchor_scales or usual_scales(len(levels))
            given, what = len(scales), "scales"
        else:
            ratios, count = self.anchor_ratios or (0.5, 1.0, 2.0), len(levels)
            sizes = self.anchor_sizes or tuple(usual_sizes(self.kind, stride) for stride in levels)
            given, what = len(sizes), "sizes"
        if given != count:
            raise UserError(
                f"detector.anchor_{what} are {given}, expected {count}: the levels have strides {', '.join(map(str, levels))}."
                " Give as many, or leave them out."
            )
        every = (tuple(ratios),) * len(levels)
        return Anchors((), every, levels, scales) if self.kind == SSDLITE else Anchors(sizes, every, levels)


DETECTOR_KEYS = keys_of(DetectorConfig)


def usual_sizes(kind: str, stride: int) -> tuple[int, ...]:
    """The sizes of anchors at a level of `stride`: 8 times that; RetinaNet's 4 times that, and two up to its double."""
    return tuple(int(4 * stride * octave) for octave in OCTAVES) if kind == RETINA else (8 * stride,)


def usual_scales(levels: int) -> tuple[float, ...]:
    """SSDLite's scales of so many levels, and one more: evenly from 0.2 to 0.95, then 1 (as torchvision has them)."""
    return (*(round(0.2 + 0.75 * number / max(levels - 1, 1), 4) for number in range(levels)), 1.0)


def _three(numbers: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = numbers
    return red, green, blue
