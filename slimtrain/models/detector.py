"""What a detector is beside its weights, in plain values that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TORCHVISION, PUBLISHED = "torchvision", "published"
CONVENTIONS = (TORCHVISION, PUBLISHED)
FASTER, MASK, KEYPOINT, RETINA = "faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet"
KINDS = (FASTER, MASK, KEYPOINT, RETINA)


@dataclass(frozen=True)
class Anchors:
    """Boxes that a level's map begins with, at every position. `sizes`: of each level, in pixels, the root of the area;
    `ratios`: of each level, height to width; `strides`: of each level, in pixels."""

    sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many there are at a position of each level."""
        return tuple(len(sizes) * len(ratios) for sizes, ratios in zip(self.sizes, self.ratios, strict=True))


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
    `detections`: of an image; `candidates`: of an image, before NMS, where no image decides how many there are."""

    roi_size: int = 7
    sampling_ratio: int = 2
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score: float = 0.05
    nms: float = 0.5
    least_size: float = 1e-2
    detections: int = 100
    candidates: int = 500


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
    """A detector. `classes`: without the background, which is class 0 (RetinaNet has none). `mean`, `std`: of RGB values
    between 0 and 1. `convention`: how boxes are counted, torchvision's way or as the published branch did (mmdetection of
    2018)."""

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
        return 2 if self.kind == RETINA else 1

    @property
    def image_stride(self) -> int:
        """What divides the sides of images: the coarsest stage's stride."""
        return self.anchors.strides[-1 - self.extra_levels]

    def __post_init__(self) -> None:
        for what, given, known in (("kind", self.kind, KINDS), ("convention", self.convention, CONVENTIONS)):
            if given not in known:
                raise ValueError(f"{what} {given!r}: expected one of {', '.join(known)}")
        levels = {len(self.anchors.sizes), len(self.anchors.ratios), len(self.anchors.strides)}
        if len(levels) > 1:
            raise ValueError("anchors: expected sizes, ratios and a stride for every level")
        if len(self.anchors.strides) <= self.extra_levels:
            raise ValueError(f"anchors of {len(self.anchors.strides)} levels: expected more than {self.extra_levels}")
        for kind, part in ((MASK, self.mask), (KEYPOINT, self.keypoints)):
            if (self.kind == kind) != (part is not None):
                raise ValueError(f"a {self.kind} {'lacks' if part is None else 'has'} the settings of a {kind}'s head")
        positive = {
            "classes": [self.classes],
            "std": self.std,
            "anchors": _flat((self.anchors.sizes, self.anchors.ratios, self.anchors.strides)),
            "regions": [part.roi_size for part in (self.box, self.mask, self.keypoints) if part is not None],
            "weights": self.box.weights,
            "proposals": [self.proposals.top_k, self.proposals.kept],
            "detections": [self.box.detections],
        }
        for what, numbers in positive.items():
            if not numbers or min(numbers) <= 0:
                raise ValueError(f"{what} {list(numbers)}: expected numbers above 0")
        if self.box.candidates < self.box.detections:
            raise ValueError(
                f"{self.box.candidates} candidates for {self.box.detections} detections: expected as many at least"
            )


def _flat(value: Any) -> list[float]:
    """All numbers in tuples of tuples."""
    return [number for inside in value for number in _flat(inside)] if isinstance(value, tuple) else [value]
