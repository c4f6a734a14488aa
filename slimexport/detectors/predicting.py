"""What a detector's file finds in a photograph, in that photograph's own pixels. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.proof.plugin_detections import by_usual_names
from slimexport.target.tensors import CHOSEN, ITS_CHOSEN, DetectorEntry
from slimtrain.base.untrusted.quoting import quoted

MOST_SHOWN = 5


@dataclass(frozen=True)
class FoundObject:
    """A detection: its class by number, from 1, and by name where the bundle has names; `score` from 0 to 1; `box` (x1, y1,
    x2, y2) in pixels of the photograph."""

    label: int
    name: str | None
    score: float
    box: tuple[float, ...]

    def __str__(self) -> str:
        corners = " ".join(f"{corner:.0f}" for corner in self.box)
        return f"{self.name or f'class {self.label}'} {self.score:.1%} at {corners}"


def objects_of(
    given: Any,
    file: str,
    detector: DetectorEntry,
    scale: tuple[float, float],
    size: tuple[int, int],
    class_names: Sequence[str] | None,
) -> tuple[FoundObject, ...]:
    """What a file gave for one image, the surest first. `scale`: width and height of what it was given over `size`, the
    photograph's. Boxes end where the photograph does, and what lies beside it, in the padding, is none. BundleError where it
    gives no detections of one image."""
    rows = _rows(given, file, detector)
    across, down = scale
    boxes = np.clip(np.asarray(rows["boxes"], np.float64) / (across, down, across, down), 0, (*size, *size))
    there = (boxes[:, :2] < boxes[:, 2:]).all(1)
    return tuple(
        FoundObject(int(label), class_names[int(label) - 1] if class_names else None, float(score), tuple(map(float, box)))
        for box, score, label in zip(boxes[there], rows["scores"][there], rows["labels"][there], strict=True)
    )


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
    rows = {name: array[0, : int(rows_given)] for name, array in arrays.items()}
    labels = rows["labels"]
    finite = np.isfinite(rows["boxes"]).all() and np.isfinite(rows["scores"]).all()
    if not finite or (len(labels) and not (labels.min() >= 1 and labels.max() <= detector.classes)):
        raise BundleError(f"{file}: gives detections that are none for this image. Verify the bundle: --verify-only.")
    return rows


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
    """All as plain values."""
    return [{"class": o.label, "name": o.name, "score": o.score, "box": list(o.box)} for o in objects]
