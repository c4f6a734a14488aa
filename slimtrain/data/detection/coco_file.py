"""A JSON file as COCO has them, {images, annotations, categories}, read as what somebody else wrote.

Its frame must be right. Images and annotations that are broken are left out and told of together: COCO's own files have a few
boxes of no size. What is kept is a few large arrays, since processes that load images hold copies of it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.base.untrusted.json_text import JsonError, parse_json
from slimtrain.base.untrusted.opening import MIB, read_text
from slimtrain.base.untrusted.quoting import printable, quoted, reason, shortened
from slimtrain.data.detection.masks import runs_of_text
from slimtrain.data.detection.problems import Problems
from slimtrain.data.opening import MOST_PIXELS

MOST_BYTES = 2048 * MIB  # COCO's largest file has 450 MiB
MOST_KEYPOINTS = 1000
MOST_CLASSES = 100_000
LONGEST_EDGE = 1 << 22  # pixels around a polygon, whose filling takes some memory for each
FRAME = ("images", "annotations", "categories")
NOTHING, POLYGONS, RUNS = range(3)  # how an object's mask is told


class Outline(NamedTuple):
    """How an annotation tells its mask: corners of polygons, or lengths of runs as a single part."""

    kind: int
    parts: list[list[float]]


@dataclass(frozen=True)
class CocoFile:
    """I images and N objects, those of image i from `first[i]` to `first[i + 1]`."""

    classes: tuple[str, ...]  # by the categories' ids; their labels count from 1
    keypoints: tuple[str, ...]  # names of an object's K keypoints
    names: bytes  # all images' file names
    name_ends: NDArray[np.int64]  # [I]
    image_ids: NDArray[np.int64]  # [I]
    sizes: NDArray[np.int64]  # [I, 2]: height, width
    first: NDArray[np.int64]  # [I + 1]
    boxes: NDArray[np.float32]  # [N, 4]: x1, y1, x2, y2
    labels: NDArray[np.int64]  # [N]
    crowd: NDArray[np.bool_]  # [N]
    area: NDArray[np.float32]  # [N]
    points: NDArray[np.float32] | None  # [N, K, 3], in the coordinates of boxes
    outline_kinds: NDArray[np.int8]  # [N], POLYGONS or RUNS; NOTHING where masks were not asked for
    part_first: NDArray[np.int64]  # [N + 1] into part_ends
    part_ends: NDArray[np.int64]  # into outline_values
    outline_values: NDArray[np.float64]

    def file_name(self, index: int) -> str:
        """Of an image, below the folder of images."""
        start = int(self.name_ends[index - 1]) if index else 0
        return self.names[start : int(self.name_ends[index])].decode()

    def parts(self, number: int) -> list[NDArray[np.float64]]:
        """The polygons, or the one list of runs, of an object."""
        parts = range(int(self.part_first[number]), int(self.part_first[number + 1]))
        starts = [int(self.part_ends[part - 1]) if part else 0 for part in parts]
        return [self.outline_values[start : int(self.part_ends[part])] for start, part in zip(starts, parts, strict=True)]


@dataclass
class _Image:
    """An image's row, with the annotations that are read for it."""

    id: int
    name: str
    height: int
    width: int
    rows: list[_Object]


@dataclass
class _Object:
    """An annotation without defect."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float
    outline: Outline
    points: list[float]


def read_coco(path: Path, problems: Problems, masks: bool = False, keypoints: bool = False) -> CocoFile:
    """The file at `path`; what is broken in it is added to `problems` and left out.

    `masks`, `keypoints`: these are read too, and must be right. UserError where the file cannot be read, or its frame is
    another one.
    """
    try:
        value = parse_json(read_text(path, MOST_BYTES), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}). Give a JSON file as COCO has them.") from error
    except JsonError as error:
        raise UserError(f"{shortened(printable(str(error)), 400)}. Give a JSON file as COCO has them.") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in FRAME):
        held = quoted(sorted(value)) if isinstance(value, dict) else quoted(value)
        raise UserError(f"{path}: holds {held}, expected an object with the lists {', '.join(FRAME)}, as COCO has them.")
    labels, classes, points = _categories(path, value["categories"], keypoints)
    images, broken = _images(value["images"], problems)
    reading = _Reading(labels, images, broken, masks, len(points) if keypoints else None, problems)
    for number, entry in enumerate(value["annotations"]):
        reading.annotation(number, entry)
    return _packed(list(images.values()), classes, points, keypoints)


def _categories(path: Path, entries: list[Any], keypoints: bool) -> tuple[dict[int, int], tuple[str, ...], tuple[str, ...]]:
    """(labels by category ids, class names, names of keypoints). UserError where any is wrong: no label would be right."""
    names: dict[int, str] = {}
    points: set[tuple[str, ...]] = set()
    for entry in entries:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not _whole(number) or not isinstance(name, str) or number in names:
            raise UserError(
                f"{path}: the category {quoted(entry)}: expected an id of its own, a whole number, and a name. Correct it."
            )
        names[number] = shortened(printable(name), 200)
        own = entry.get("keypoints")
        if keypoints and own is not None:
            if not isinstance(own, list) or len(own) > MOST_KEYPOINTS or not all(isinstance(point, str) for point in own):
                raise UserError(f"{path}: category {number} has the keypoints {quoted(own)}, expected a list of names.")
            points.add(tuple(own))
    if not 0 < len(names) <= MOST_CLASSES:
        raise UserError(f"{path}: lists {len(names):,} categories, expected 1 to {MOST_CLASSES:,}.")
    if keypoints and len(points) != 1:
        raise UserError(f"{path}: {len(points)} lists of keypoints are in its categories, expected one for all that have any.")
    order = sorted(names)
    labels = {number: label for label, number in enumerate(order, 1)}
    return labels, tuple(names[number] for number in order), next(iter(points), ())


def _images(entries: list[Any], problems: Problems) -> tuple[dict[int, _Image], set[int]]:
    """(images by their ids, ids of broken ones)."""
    images: dict[int, _Image] = {}
    broken: set[int] = set()
    for number, entry in enumerate(entries):
        where = f"image entry {number + 1}"
        keys = ("id", "file_name", "height", "width")
        fields: list[Any] = [entry.get(key) for key in keys] if isinstance(entry, dict) else [None] * len(keys)
        own, name, height, width = fields
        if not (_whole(own) and _whole(height) and _whole(width) and isinstance(name, str)):
            problems.add("images without id, file_name, height and width", where, entry)
        elif own in images:
            problems.add("image ids that stand twice", where, own)
        elif not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
            problems.add("images of impossible sizes", f"image {own}", f"{width} x {height}")
            broken.add(own)
        elif not _below(name):
            problems.add("file names that lead out of the folder", f"image {own}", name)
            broken.add(own)
        else:
            images[own] = _Image(own, name, height, width, [])
    return images, broken


class _Reading:
    """Annotations, one after another, put where they belong."""

    def __init__(
        self,
        labels: dict[int, int],
        images: dict[int, _Image],
        broken: set[int],
        masks: bool,
        points: int | None,
        problems: Problems,
    ) -> None:
        self.labels, self.images, self.broken, self.masks, self.points = labels, images, broken, masks, points
        self.problems, self.ids = problems, set[int]()

    def annotation(self, number: int, entry: Any) -> None:
        """One entry: its object, or its problem."""
        own = entry.get("id") if isinstance(entry, dict) else None
        if not _whole(own) or not _whole(entry.get("image_id")) or not _numbers(entry.get("bbox"), 4):
            self.problems.add("annotations without id, image_id and bbox", f"entry {number + 1}", entry)
            return
        where, box = f"annotation {own}", entry["bbox"]
        image, label = self.images.get(entry["image_id"]), _get(self.labels, entry.get("category_id"))
        if own in self.ids:
            self.problems.add("annotation ids that stand twice", f"entry {number + 1}", own)
            return
        self.ids.add(own)
        if image is None:
            if entry["image_id"] not in self.broken:  # which is told already
                self.problems.add("annotations of unknown images", where, entry["image_id"])
        elif label is None:
            self.problems.add("annotations of unknown categories", where, entry.get("category_id"))
        elif not (box[2] > 0 and box[3] > 0):
            self.problems.add("boxes of no size", where, box)
        elif (inside := _clipped(box, image)) is None:
            self.problems.add("boxes outside their images", where, box)
        elif (outline := self._outline(where, entry.get("segmentation"), image)) is not None:
            points = self._keypoints(where, entry.get("keypoints"))
            if points is not None:
                area = entry.get("area")
                area = area if _numbers([area], 1) and area >= 0 else box[2] * box[3]
                image.rows.append(_Object(inside, label, entry.get("iscrowd") in (1, True), area, outline, points))

    def _outline(self, where: str, value: Any, image: _Image) -> Outline | None:
        if not self.masks:
            return Outline(NOTHING, [])
        if isinstance(value, dict):
            try:
                return Outline(RUNS, [[float(run) for run in _runs(value, image)]])
            except ValueError as error:
                self.problems.add("masks whose runs are wrong", where, str(error))
                return None
        if not isinstance(value, list) or not value:
            self.problems.add("objects without a mask", where, value)
            return None
        good: list[list[float]] = []
        for polygon in value:
            if not _numbers(polygon) or len(polygon) % 2:
                self.problems.add("polygons that are no list of x and y by turns", where, polygon)
            elif len(polygon) < 6:
                self.problems.add("polygons of fewer than three corners", where, polygon)
            elif not _near(polygon, image):
                self.problems.add("polygons far outside their images", where, polygon)
            else:
                good.append(polygon)
        return Outline(POLYGONS, good) if good else None

    def _keypoints(self, where: str, value: Any) -> list[float] | None:
        """x, y and visibility of each by turns; all unknown where none are told."""
        if self.points is None or value is None:
            return [0.0] * 3 * (self.points or 0)
        if not _numbers(value, 3 * self.points) or any(seen not in (0, 1, 2) for seen in value[2::3]):
            self.problems.add(f"lists of keypoints that are not {self.points} times x, y and 0, 1 or 2", where, value)
            return None
        # a pixel's number becomes the place of its middle
        return [part + 0.5 * (value[i - i % 3 + 2] > 0) if i % 3 < 2 else part for i, part in enumerate(value)]


def _packed(images: list[_Image], classes: tuple[str, ...], points: tuple[str, ...], keypoints: bool) -> CocoFile:
    rows = [row for image in images for row in image.rows]
    names = [image.name.encode() for image in images]
    parts = [part for row in rows for part in row.outline.parts]
    part_first = np.cumsum([0, *(len(row.outline.parts) for row in rows)], dtype=np.int64)
    return CocoFile(
        classes,
        points,
        b"".join(names),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        np.array([image.id for image in images], np.int64),
        np.array([(image.height, image.width) for image in images], np.int64).reshape(-1, 2),
        np.cumsum([0, *(len(image.rows) for image in images)], dtype=np.int64),
        np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        np.array([row.label for row in rows], np.int64),
        np.array([row.crowd for row in rows], np.bool_),
        np.array([row.area for row in rows], np.float32),
        np.array([row.points for row in rows], np.float32).reshape(len(rows), len(points), 3) if keypoints else None,
        np.array([row.outline.kind for row in rows], np.int8),
        part_first,
        np.cumsum([len(part) for part in parts], dtype=np.int64),
        np.fromiter(itertools.chain.from_iterable(parts), np.float64),
    )


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(value: Any, length: int | None = None) -> bool:
    """Whether it is a list of numbers that float32 can hold, so many where a length is given."""
    return (
        isinstance(value, list)
        and (length is None or len(value) == length)
        and all(isinstance(part, int | float) and not isinstance(part, bool) and abs(part) < 1e30 for part in value)
    )


def _get(labels: dict[int, int], category: Any) -> int | None:
    return labels.get(category) if _whole(category) else None


def _below(name: str) -> bool:
    """Whether a file's name stays below its folder, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and not ({"\0", ":"} & set(name))
        and len(name) < 1000
    )


def _clipped(box: list[float], image: _Image) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 within the image; None where nothing is left, in float32 too."""
    x1, x2 = (min(max(x, 0), image.width) for x in (box[0], box[0] + box[2]))
    y1, y2 = (min(max(y, 0), image.height) for y in (box[1], box[1] + box[3]))
    return (x1, y1, x2, y2) if np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1) else None


def _near(polygon: list[float], image: _Image) -> bool:
    """Whether corners lie within an image's size of the image, and the way around them is of bounded length."""
    x, y = polygon[::2], polygon[1::2]
    if not (-image.width <= min(x) and max(x) <= 2 * image.width and -image.height <= min(y) and max(y) <= 2 * image.height):
        return False
    return sum(math.dist((x[i - 1], y[i - 1]), (x[i], y[i])) for i in range(len(x))) <= LONGEST_EDGE


def _runs(value: dict[str, Any], image: _Image) -> list[int]:
    """Lengths of runs, which fill the image. ValueError."""
    size, counts = value.get("size"), value.get("counts")
    if size != [image.height, image.width]:
        raise ValueError(f"its size is {quoted(size)}, the image's [{image.height}, {image.width}]")
    runs = runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(_whole(run) and run >= 0 for run in runs):
        raise ValueError("its counts are no list of whole numbers and no compressed runs")
    if sum(runs) != image.height * image.width:
        raise ValueError(f"its runs do not fill the image's {image.height * image.width:,} pixels")
    return runs
