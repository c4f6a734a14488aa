"""What a detector's file finds in a photograph, in that photograph's own pixels. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimexport.detectors.pasting import PlacedMask, placed
from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.proof.plugin_detections import by_usual_names
from slimexport.target.tensors import CHOSEN, ITS_CHOSEN, DetectorEntry
from slimtrain.base.text import count
from slimtrain.base.untrusted.quoting import quoted

MASKS, POINTS, POINT_SCORES = "masks", "keypoints", "keypoint_scores"
MOST_SHOWN, MOST_POINTS = 5, 3


@dataclass(frozen=True)
class Point:
    """A keypoint in pixels of the photograph, and how high its map is there: more is surer."""

    x: float
    y: float
    score: float


@dataclass(frozen=True)
class FoundObject:
    """A detection: its class by number, from 1, and by name where the bundle has names; `score` from 0 to 1; `box` (x1, y1,
    x2, y2) in pixels of the photograph. Of Mask R-CNN the `mask` of its pixels, of Keypoint R-CNN its `keypoints`, in
    the order of the data that it learned from."""

    label: int
    name: str | None
    score: float
    box: tuple[float, ...]
    mask: PlacedMask | None = None
    keypoints: tuple[Point, ...] | None = None

    def __str__(self) -> str:
        corners = " ".join(f"{corner:.0f}" for corner in self.box)
        more = f" (mask {self.mask.share:.0%} of it)" if self.mask else ""
        if self.keypoints is not None:
            shown = ", ".join(f"{point.x:.0f} {point.y:.0f}" for point in self.keypoints[:MOST_POINTS])
            more += f" ({count(len(self.keypoints), 'keypoint')}: {shown}{', ...' * (len(self.keypoints) > MOST_POINTS)})"
        return f"{self.name or f'class {self.label}'} {self.score:.1%} at {corners}{more}"


def objects_of(
    given: Any,
    file: str,
    detector: DetectorEntry,
    scale: tuple[float, float],
    size: tuple[int, int],
    class_names: Sequence[str] | None,
) -> tuple[FoundObject, ...]:
    """What a file gave for one image, the surest first. `scale`: width and height of what it was given over `size`, the
    photograph's. Boxes end where the photograph does, and what lies beside it, in the padding, is none; masks fill the whole
    boxes, of which what lies in the photograph counts. BundleError where it gives no detections of one image."""
    rows = _rows(given, file, detector)
    across, down = scale
    whole = np.asarray(rows["boxes"], np.float64) / (across, down, across, down)
    boxes = np.clip(whole, 0, (*size, *size))
    objects = []
    for row in np.flatnonzero((boxes[:, :2] < boxes[:, 2:]).all(1)):
        label = int(rows["labels"][row])
        mask = placed(rows[MASKS][row], whole[row].tolist(), size) if MASKS in rows else None
        points = None
        if POINTS in rows:
            places = rows[POINTS][row, :, :2] / np.array([across, down])
            pairs = zip(places.tolist(), rows[POINT_SCORES][row].tolist(), strict=True)
            points = tuple(Point(x, y, score) for (x, y), score in pairs)
        name = class_names[label - 1] if class_names else None
        objects.append(FoundObject(label, name, float(rows["scores"][row]), tuple(boxes[row].tolist()), mask, points))
    return tuple(objects)


def _rows(given: Any, file: str, detector: DetectorEntry) -> Mapping[str, Array]:
    """The rows of the first image that are detections."""
    if isinstance(given, dict) and given.keys() >= set(ITS_CHOSEN):
        given = by_usual_names({name: np.asarray(given[name]) for name in ITS_CHOSEN})
    if not isinstance(given, dict) or not given.keys() >= set(CHOSEN):
        raise BundleError(f"{file}: gives {_named(given)}, expected {', '.join(CHOSEN)} of a detector. Export again.")
    arrays = {name: np.asarray(given[name]) for name in CHOSEN}
    (rows_given,) = arrays.pop("count").reshape(-1)[:1].tolist() or [-1]
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    room = arrays["scores"].shape[-1] if arrays["scores"].ndim else 0
    if not 0 <= rows_given <= room or shapes != {"boxes": [1, room, 4], "scores": [1, room], "labels": [1, room]}:
        raise BundleError(f"{file}: gives {quoted(shapes)}, {rows_given} of them for an image. Export again.")
    arrays |= _beside(given, room, file)
    rows = {name: array[0, : int(rows_given)] for name, array in arrays.items()}
    labels = rows["labels"]
    if not all(np.isfinite(array).all() for array in rows.values()) or (
        len(labels) and not (labels.min() >= 1 and labels.max() <= detector.classes)
    ):
        raise BundleError(f"{file}: gives detections that are none for this image. Verify the bundle: --verify-only.")
    return rows


def _beside(given: Mapping[str, Any], room: int, file: str) -> dict[str, Array]:
    """The masks or keypoints of so many rows, where a file gives them. BundleError where these are none."""
    expected: dict[str, tuple[int, ...]] = {}
    if MASKS in given:
        expected = {MASKS: (1, room, *np.shape(given[MASKS])[-1:] * 2)}
    elif POINTS in given:
        points = np.shape(given[POINTS])[2:3]
        expected = {POINTS: (1, room, *points, 3), POINT_SCORES: (1, room, *points)}
    arrays = {name: np.asarray(given.get(name)) for name in expected}
    if any(array.shape != expected[name] or not array.size for name, array in arrays.items()):
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise BundleError(f"{file}: gives {quoted(shapes)}, {room} rows of an image expected. Export again.")
    return arrays


def _named(given: Any) -> str:
    return ", ".join(given) if isinstance(given, dict) else "one output"


def as_line(objects: Sequence[FoundObject]) -> str:
    """The surest few in words."""
    if not objects:
        return "nothing"
    shown = ", ".join(map(str, objects[:MOST_SHOWN]))
    more = len(objects) - MOST_SHOWN
    return f"{shown}, and {more} more" if more > 0 else shown


def plain(objects: Sequence[FoundObject]) -> list[dict[str, Any]]:
    """All as plain values: masks as COCO's runs, keypoints as [x, y] with their scores apart."""
    values = []
    for one in objects:
        value: dict[str, Any] = {"class": one.label, "name": one.name, "score": one.score, "box": list(one.box)}
        if one.mask is not None:
            value["mask"] = one.mask.plain
        if one.keypoints is not None:
            value |= {POINTS: [[p.x, p.y] for p in one.keypoints], POINT_SCORES: [p.score for p in one.keypoints]}
        values.append(value)
    return values
