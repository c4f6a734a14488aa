"""COCO's average precision of boxes, masks and keypoints, by faster-coco-eval.

That package computes pycocotools' numbers to the last bit, several times faster, which counts where every switch is tested
every epoch. Detections and targets come image by image; masks are kept as runs, so that a whole data set fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimtrain.base.errors import ResourceError
from slimtrain.base.packages import install_command
from slimtrain.data.detection.masks import runs_of_masks
from slimtrain.data.detection.targets import Targets

Kind = Literal["boxes", "masks", "keypoints"]
COCO_KINDS = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
AREAS = {"boxes": ("all", "small", "medium", "large"), "keypoints": ("all", "medium", "large")}
AREAS["masks"] = AREAS["boxes"]
PERSON = 17  # keypoints, for which COCO says how far people differ in placing them
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Detected:
    """What a detector says of an image: M boxes [M, 4] as in `Targets`, their scores [M] and labels [M], and, where it gives
    them, masks [M, H, W] and keypoints [M, K, 2 or more], whose x and y come first."""

    boxes: ArrayLike
    scores: ArrayLike
    labels: ArrayLike
    masks: ArrayLike | None = None
    keypoints: ArrayLike | None = None


@dataclass(frozen=True)
class Precision:
    """Averages over classes and over IoU (of keypoints: similarity) from 0.50 to 0.95; `ap50` and `ap75` at one. From 0 to 1;
    None where there is no object of that size. `per_class` are `ap` of labels 1, 2, ..."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None  # area below 32 x 32; of keypoints always None, as COCO has it
    medium: float | None  # below 96 x 96
    large: float | None
    per_class: tuple[float | None, ...]


class AveragePrecision:
    """Collects targets and detections of images, then averages.

    `classes` is the number of labels, from 1. Of other keypoints than COCO's 17 of people, `sigmas` are the K tolerances, of
    which similarity is a function: 0.025 for an eye, 0.1 for a hip. ResourceError without faster-coco-eval.
    """

    def __init__(self, classes: int, kinds: Sequence[Kind] = ("boxes",), sigmas: Sequence[float] | None = None) -> None:
        self.classes, self.kinds, self.sigmas = classes, tuple(kinds), sigmas
        self.images: list[dict[str, Any]] = []
        self.objects: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        self.detections: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        _library()

    def add(self, targets: Targets, detected: Detected) -> None:
        """One image: detections in the coordinates of its targets. ValueError for arrays of other shapes, labels that are not
        1 to `classes`, and numbers that are not finite."""
        image = len(self.images) + 1
        boxes, scores, labels = _checked(detected, self.classes)
        self.images.append({"id": image, "height": targets.height, "width": targets.width})
        for kind in self.kinds:
            shapes = _shapes(kind, targets.boxes, targets.masks, targets.keypoints)
            extra = zip(targets.labels.tolist(), targets.area.tolist(), targets.crowd.tolist(), shapes, strict=True)
            for label, area, crowd, shape in extra:
                # 0 means no object, so that ids count from 1
                own = {"id": len(self.objects[kind]) + 1, "image_id": image, "category_id": label, "area": area}
                self.objects[kind].append({**own, "iscrowd": int(crowd), **shape})
            answers = _shapes(kind, boxes, detected.masks, detected.keypoints)
            for score, label, shape in zip(scores.tolist(), labels.tolist(), answers, strict=True):
                if kind != "boxes":
                    del shape["bbox"]  # else its area, not that of the mask, would say how large a detection is
                self.detections[kind].append({"image_id": image, "category_id": label, "score": score, **shape})

    def extend(self, other: AveragePrecision) -> None:
        """The images of another process too."""
        before = len(self.images)
        self.images += [{**image, "id": image["id"] + before} for image in other.images]
        for kind in self.kinds:
            objects = len(self.objects[kind])
            self.objects[kind] += [
                {**own, "id": own["id"] + objects, "image_id": own["image_id"] + before} for own in other.objects[kind]
            ]
            self.detections[kind] += [{**own, "image_id": own["image_id"] + before} for own in other.detections[kind]]

    def compute(self, kind: Kind = "boxes") -> Precision:
        """Of all images so far. ValueError where keypoints have no sigmas."""
        objects, detections = self.objects[kind], self.detections[kind]
        if not detections:
            return self._nothing_detected(kind)
        library = _library()
        categories = [{"id": label + 1} for label in range(self.classes)]
        # copies: the library writes into what it gets
        truth = library.COCO(
            {"images": self.images, "categories": categories, "annotations": [dict(own) for own in objects]},
            print_function=_silent,
        )
        answers = truth.loadRes([dict(own) for own in detections])
        sigmas = self._sigmas(objects, detections) if kind == "keypoints" else None
        evaluation = library.COCOeval_faster(
            truth, answers, COCO_KINDS[kind], print_function=_silent, kpt_oks_sigmas=sigmas, rle_iou_max_workers=1
        )
        evaluation.params.catIds = [row["id"] for row in categories]
        evaluation.evaluate()
        evaluation.accumulate()
        # [IoUs, recalls, classes, areas, most detections]: of the last, most are taken
        return self._averages(np.asarray(evaluation.eval["precision"], np.float64)[..., -1], kind)

    def _averages(self, precision: Floats, kind: Kind) -> Precision:
        areas = AREAS[kind]
        by_area = {area: _mean(precision[..., areas.index(area)]) for area in areas}
        everything = precision[..., 0]
        per_class = tuple(_mean(everything[:, :, label]) for label in range(self.classes))
        return Precision(
            by_area["all"],
            _mean(everything[0]),
            _mean(everything[5]),
            by_area.get("small"),
            by_area["medium"],
            by_area["large"],
            per_class,
        )

    def _nothing_detected(self, kind: Kind) -> Precision:
        """Zero wherever there is something to detect: the library refuses an empty list."""
        bounds = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10), "all": (0, 1e10)}
        precision = np.full((10, 101, self.classes, len(AREAS[kind])), -1.0)
        for own in self.objects[kind]:
            if own["iscrowd"] or own.get("num_keypoints") == 0:
                continue
            for number, area in enumerate(AREAS[kind]):
                if bounds[area][0] <= own["area"] <= bounds[area][1]:
                    precision[:, :, own["category_id"] - 1, number] = 0
        return self._averages(precision, kind)

    def _sigmas(self, objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> list[float] | None:
        counts = {len(own["keypoints"]) // 3 for own in (*objects, *detections)}
        expected = PERSON if self.sigmas is None else len(self.sigmas)
        if counts != {expected}:
            raise ValueError(
                f"keypoints come in numbers {sorted(counts)}, the sigmas are {expected}: give one for each keypoint"
            )
        return None if self.sigmas is None else list(self.sigmas)


def _library() -> Any:
    try:
        import faster_coco_eval
    except ImportError as error:
        raise ResourceError(
            f"average precision needs faster-coco-eval, which cannot be imported ({error}). Install it: "
            f"{install_command('faster_coco_eval')}."
        ) from error
    return faster_coco_eval


def _silent(*_: object) -> None:
    """In place of printing."""


def _mean(precision: Floats) -> float | None:
    """Without the places where there is no object, -1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _checked(detected: Detected, classes: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    boxes = np.asarray(detected.boxes, np.float64).reshape(-1, 4)
    scores, labels = np.asarray(detected.scores, np.float64), np.asarray(detected.labels, np.int64)
    if scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
        raise ValueError(
            f"{len(boxes)} boxes have scores {list(scores.shape)} and labels {list(labels.shape)}, expected one each"
        )
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise ValueError("boxes and scores are to be finite numbers")
    if len(labels) and not (labels.min() >= 1 and labels.max() <= classes):
        raise ValueError(f"labels are {labels.min()} to {labels.max()}, expected 1 to {classes}")
    return boxes, scores, labels


def _shapes(kind: Kind, boxes: ArrayLike, masks: ArrayLike | None, keypoints: ArrayLike | None) -> list[dict[str, Any]]:
    """An object's place as the library has it."""
    corners = np.asarray(boxes, np.float64)
    sized = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
    if kind == "boxes":
        return [{"bbox": box} for box in sized]
    if kind == "masks":
        if masks is None:
            raise ValueError("masks are to be compared, but none are given")
        runs = runs_of_masks(np.asarray(masks)) if len(sized) else []
        return [{"bbox": box, "segmentation": own} for box, own in zip(sized, runs, strict=True)]
    if keypoints is None:
        raise ValueError("keypoints are to be compared, but none are given")
    points = np.asarray(keypoints, np.float64)
    if points.shape[-1] == 2:  # places alone
        points = np.concatenate([points, np.ones_like(points[..., :1])], -1)
    return [
        {"bbox": box, "keypoints": own[:, :3].reshape(-1).tolist(), "num_keypoints": int((own[:, 2] > 0).sum())}
        for box, own in zip(sized, points, strict=True)
    ]
