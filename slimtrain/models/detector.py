"""What a detector is beside its weights, in plain values that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TORCHVISION, PUBLISHED = "torchvision", "published"
CONVENTIONS = (TORCHVISION, PUBLISHED)
FASTER, MASK, KEYPOINT, RETINA, SSDLITE = "faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet", "ssdlite"
KINDS = (FASTER, MASK, KEYPOINT, RETINA, SSDLITE)
SINGLE_STAGE = (RETINA, SSDLITE)
EXTRA_LEVELS = {RETINA: 2, SSDLITE: 4}  # of the pyramid beyond the stages', as torchvision's have; of others one
MOST_BOXES = 20_000  # of an image, a level or a class


@dataclass(frozen=True)
class Anchors:
    """Boxes that a level's map begins with, at every position. `sizes`: of each level, in pixels, the root of the area;
    `ratios`: of each level, height to width; `strides`: of each level, in pixels.

    SSD's have `scales` in place of sizes: shares of the image's sides, one more than there are levels. A level has squares of
    its scale and of the mean of its own and the next (the root of the product), and a wide and a high box of each ratio."""

    sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    scales: tuple[float, ...] = ()

    @property
    def levels(self) -> int:
        return len(self.strides)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many there are at a position of each level."""
        if self.scales:
            return tuple(2 + 2 * len(ratios) for ratios in self.ratios)
        return tuple(len(sizes) * len(ratios) for sizes, ratios in zip(self.sizes, self.ratios, strict=True))

    def __post_init__(self) -> None:
        sized = len(self.scales) - 1 if self.scales else len(self.sizes)
        if {sized, len(self.ratios)} != {self.levels} or (self.scales and self.sizes):
            raise ValueError(
                "anchors: expected sizes, ratios and a stride for every level, or in place of sizes one scale more than levels"
            )


# torchvision's of ssdlite320_mobilenet_v3_large; its strides are what 320 px make of maps of 20, 10, 5, 3, 2, 1.
SSD_ANCHORS = Anchors((), ((2.0, 3.0),) * 6, (16, 32, 64, 128, 256, 512), (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0))


@dataclass(frozen=True)
class ProposalSettings:
    """`top_k`: of a level, before NMS; `kept`: of all levels, after it; `nms`: the IoU above which the worse of two goes;
    `least_size`: of a side, in pixels; `score`: the least probability."""

    top_k: int = 1000
    kept: int = 1000
    nms: float = 0.7
    least_size: float = 1e-3
    score: float = 0.0


@dataclass(frozen=True)
class BoxSettings:
    """`roi_size`, `sampling_ratio`: of RoIAlign. `weights`: what codes (x, y, width, height) were multiplied by. `score`: what
    a detection's is above; `nms`: the IoU above which the worse of two of a class goes; `least_size`: of a side, in pixels;
    `detections`: of an image; `candidates`: of an image, before NMS, where no image decides how many there are. `top_k`: of
    RetinaNet's levels and of SSDLite's classes, before NMS; the latter's classes have no other bound."""

    roi_size: int = 7
    sampling_ratio: int = 2
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score: float = 0.05
    nms: float = 0.5
    least_size: float = 1e-2
    detections: int = 100
    candidates: int = 500
    top_k: int = 1000


def usual_box(kind: str) -> BoxSettings:
    """The settings that torchvision has for a kind."""
    if kind == RETINA:
        return BoxSettings(weights=(1.0, 1.0, 1.0, 1.0), least_size=0.0, detections=300, candidates=1000, top_k=1000)
    if kind == SSDLITE:
        return BoxSettings(score=0.001, nms=0.55, least_size=0.0, detections=300, top_k=300)
    return BoxSettings()


@dataclass(frozen=True)
class MaskSettings:
    """`roi_size`, `sampling_ratio`: of RoIAlign. `size`: of a mask, in its own pixels."""

    roi_size: int = 14
    sampling_ratio: int = 2
    size: int = 28


@dataclass(frozen=True)
class KeypointSettings:
    """`count`: of an object. `roi_size`, `sampling_ratio`: of RoIAlign. `size`: of a keypoint's map, in its own pixels."""

    count: int = 17
    roi_size: int = 14
    sampling_ratio: int = 2
    size: int = 56


@dataclass(frozen=True)
class DetectorSettings:
    """A detector. `classes`: without the background, which is class 0 (RetinaNet has no output for it). `mean`, `std`: of RGB
    values between 0 and 1. `convention`: how boxes are counted, torchvision's way or as the published branch did (mmdetection
    of 2018)."""

    classes: int
    kind: str = FASTER
    anchors: Anchors = Anchors()
    proposals: ProposalSettings = ProposalSettings()
    box: BoxSettings = BoxSettings()
    mask: MaskSettings | None = None
    keypoints: KeypointSettings | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    convention: str = TORCHVISION

    @property
    def extra_levels(self) -> int:
        """Levels of the pyramid beyond the stages'."""
        return EXTRA_LEVELS.get(self.kind, 1)

    @property
    def single_stage(self) -> bool:
        """Whether classes and boxes are of anchors, not of regions."""
        return self.kind in SINGLE_STAGE

    @property
    def image_stride(self) -> int:
        """What divides the sides of images: the coarsest stage's stride."""
        return self.anchors.strides[-1 - self.extra_levels]

    def __post_init__(self) -> None:
        for what, given, known in (("kind", self.kind, KINDS), ("convention", self.convention, CONVENTIONS)):
            if given not in known:
                raise ValueError(f"{what} {given!r}: expected one of {', '.join(known)}")
        if bool(self.anchors.scales) != (self.kind == SSDLITE):
            raise ValueError(f"anchors of a {self.kind}: expected {'scales' if self.kind == SSDLITE else 'sizes'}")
        if self.anchors.levels <= self.extra_levels:
            raise ValueError(f"anchors of {self.anchors.levels} levels: expected more than {self.extra_levels}")
        if self.single_stage and self.convention != TORCHVISION:
            raise ValueError(f"a {self.kind} counts boxes as {TORCHVISION} does: the published ones are of regions")
        for kind, part in ((MASK, self.mask), (KEYPOINT, self.keypoints)):
            if (self.kind == kind) != (part is not None):
                raise ValueError(f"a {self.kind} {'lacks' if part is None else 'has'} the settings of a {kind}'s head")
        positive = {
            "classes": [self.classes],
            "std": self.std,
            "anchors": _flat((self.anchors.sizes, self.anchors.ratios, self.anchors.strides, self.anchors.scales)),
            "regions": [part.roi_size for part in (self.box, self.mask, self.keypoints) if part is not None],
            "weights": self.box.weights,
            "proposals": [self.proposals.top_k, self.proposals.kept],
            "detections": [self.box.detections, self.box.top_k],
        }
        for what, numbers in positive.items():
            if not numbers or min(numbers) <= 0:
                raise ValueError(f"{what} {list(numbers)}: expected numbers above 0")
        if self.kind != SSDLITE and self.box.candidates < self.box.detections:
            raise ValueError(
                f"{self.box.candidates} candidates for {self.box.detections} detections: expected as many at least"
            )
        numbers = (self.proposals.top_k, self.proposals.kept, self.box.detections, self.box.candidates, self.box.top_k)
        if max(numbers) > MOST_BOXES:
            raise ValueError(f"{max(numbers)} boxes: expected at most {MOST_BOXES:,}, each of which is compared with each")


def _flat(value: Any) -> list[float]:
    """All numbers in tuples of tuples."""
    return [number for inside in value for number in _flat(inside)] if isinstance(value, tuple) else [value]
