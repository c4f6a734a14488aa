"""Images with COCO's annotations: where a folder has them, and the samples that they are.

COCO's own folders have `annotations/instances_train2017.json` and the images in `train2017/` beside; others `train.json` and
the images in `train/`, `images/` or next to it; Roboflow's `train/_annotations.coco.json` among the images.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from slimtrain.base.errors import UserError
from slimtrain.base.text import some
from slimtrain.data.detection.coco_file import POLYGONS, RUNS, CocoFile, read_coco
from slimtrain.data.detection.masks import mask_library, mask_of_polygons, mask_of_runs
from slimtrain.data.detection.problems import Problems
from slimtrain.data.detection.targets import DetectionSamples, Targets
from slimtrain.data.opening import ImageRefused, open_image

log = logging.getLogger(__name__)

LOOKED_FOR = 20  # images, to tell in which folder they are
MOST_MASK_BYTES = 4 << 30  # of one image


@dataclass(frozen=True)
class DetectionData:
    """`pairs`: numbers of keypoints that a mirror exchanges, left and right ones."""

    train: DetectionSamples
    test: DetectionSamples
    classes: tuple[str, ...]  # of labels 1, 2, ...
    keypoints: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


class CocoSamples:
    """The images of a file that are there, in its order."""

    def __init__(self, file: CocoFile, folder: Path, indices: NDArray[np.int64], masks: bool) -> None:
        self.file, self.folder, self.indices, self.masks = file, str(folder), indices, masks

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """The image's path."""
        return os.path.join(self.folder, self.file.file_name(int(self.indices[index])))

    def image(self, index: int) -> Image:
        """As `open_image` opens it; ImageRefused where its size is not the one that its annotations are for."""
        image = open_image(self.name(index))
        height, width = self.file.sizes[self.indices[index]].tolist()
        if image.size != (width, height):
            reason = f"has {image.width} x {image.height} pixels, its annotations are for {width} x {height}"
            raise ImageRefused(self.name(index), reason, "Correct its entry, or remove it.")
        return image

    def targets(self, index: int) -> Targets:
        """What the file says of an image; ImageRefused where its masks would take gigabytes."""
        file, row = self.file, int(self.indices[index])
        first, end = int(file.first[row]), int(file.first[row + 1])
        height, width = file.sizes[row].tolist()
        masks = None
        if self.masks:
            if (end - first) * height * width > MOST_MASK_BYTES:
                reason = f"has {end - first:,} masks of {width} x {height} pixels, more than {MOST_MASK_BYTES >> 30} GiB"
                raise ImageRefused(self.name(index), reason, "Scale it down, or remove it.")
            masks = torch.zeros(end - first, height, width, dtype=torch.bool)
            for number in range(first, end):
                masks[number - first] = torch.from_numpy(self._mask(number, height, width))
        here = slice(first, end)
        return Targets(
            height,
            width,
            torch.from_numpy(file.boxes[here].copy()),
            torch.from_numpy(file.labels[here].copy()),
            torch.from_numpy(file.crowd[here].copy()),
            torch.from_numpy(file.area[here].copy()),
            int(file.image_ids[row]),
            masks,
            None if file.points is None else torch.from_numpy(file.points[here].copy()),
        )

    def with_objects(self) -> CocoSamples:
        """Only the images that something can be learned from: with an object that is no crowd."""
        single = np.concatenate([[0], np.cumsum(~self.file.crowd)])
        counts = single[self.file.first[1:]] - single[self.file.first[:-1]]
        return CocoSamples(self.file, Path(self.folder), self.indices[counts[self.indices] > 0], self.masks)

    def _mask(self, number: int, height: int, width: int) -> NDArray[np.bool_]:
        parts, kind = self.file.parts(number), self.file.outline_kinds[number]
        if kind == RUNS:
            return mask_of_runs(parts[0].astype(np.int64), height, width)
        assert kind == POLYGONS
        return mask_of_polygons(parts, height, width)


def open_coco(folder: str | Path, masks: bool = False, keypoints: bool = False) -> DetectionData:
    """The images of a folder to train on, without those that show nothing, and those to test on.

    Broken entries of either file are left out, with one warning a file. UserError where a file is not there or not COCO's, the
    two have other classes, or nothing is left; ResourceError where masks are asked for and their package is missing.
    """
    folder = Path(folder)
    if masks:
        mask_library()
    train = open_coco_file(_annotations(folder, ("train",), keypoints), folder, masks, keypoints).with_objects()
    test = open_coco_file(_annotations(folder, ("val", "valid", "test"), keypoints), folder, masks, keypoints)
    if not len(train):
        raise UserError(f"{folder}: no image to train on has an object that is no crowd. Add annotations.")
    for what, ours, others in (
        ("classes", train.file.classes, test.file.classes),
        ("keypoints", train.file.keypoints, test.file.keypoints),
    ):
        if ours != others:
            raise UserError(
                f"{folder}: the {what} to train on are {some(ours)}, those to test on {some(others)}. Expected the same in "
                "both files, in the order of their ids."
            )
    names = train.file.keypoints
    return DetectionData(train, test, train.file.classes, names, mirrored(names))


def open_coco_tests(folder: str | Path, masks: bool = False, keypoints: bool = False) -> tuple[CocoSamples, tuple[str, ...]]:
    """The images of a folder to test on alone, and the names of their classes. Errors as of `open_coco`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}. Expected one in COCO's form.")
    if masks:
        mask_library()
    samples = open_coco_file(_annotations(folder, ("val", "valid", "test"), keypoints), folder, masks, keypoints)
    return samples, samples.file.classes


def open_coco_file(path: Path, folder: Path, masks: bool = False, keypoints: bool = False) -> CocoSamples:
    """The images of one file; what is broken in it, and images that are not in the folder, are told in one warning. UserError
    where no image is left."""
    problems = Problems()
    file = read_coco(path, problems, masks, keypoints)
    count = len(file.image_ids)
    tried = _image_folders(path, folder)
    images = _best_folder(file, tried)
    there = np.array([os.path.isfile(images / file.file_name(row)) for row in range(count)], np.bool_)
    for row in np.flatnonzero(~there):
        problems.add(f"images that are not in {images}", f"image {file.image_ids[row]}", file.file_name(int(row)))
    if problems:
        log.warning("%s", problems.message(str(path)))
    if not there.any():
        looked = some([str(place) for place in tried])
        also = f" {problems.message(str(path))}" if problems else ""
        raise UserError(f"{path}: none of its {count:,} images is left. Looked for them in {looked}.{also}")
    return CocoSamples(file, images, np.flatnonzero(there), masks)


def mirrored(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The numbers of `left_...` and `right_...` of the same name."""
    lefts = {name.removeprefix("left"): i for i, name in enumerate(names) if name.startswith("left")}
    rights = {name.removeprefix("right"): i for i, name in enumerate(names) if name.startswith("right")}
    return tuple((number, rights[name]) for name, number in lefts.items() if name in rights)


def _annotations(folder: Path, splits: tuple[str, ...], keypoints: bool) -> Path:
    """The one file of a split. UserError where there is none, or several."""
    kind = "person_keypoints" if keypoints else "instances"
    for split in splits:
        for pattern in (f"annotations/{kind}_{split}*.json", f"annotations/{split}.json", f"{split}.json"):
            files = sorted(folder.glob(pattern))
            if len(files) > 1:
                raise UserError(
                    f"{folder}: several files are {pattern}: {some([path.name for path in files])}. Leave one there."
                )
            if files:
                return files[0]
        if (path := folder / split / "_annotations.coco.json").is_file():
            return path
    expected = f"annotations/{kind}_{splits[0]}2017.json, {splits[0]}.json or {splits[0]}/_annotations.coco.json"
    raise UserError(f"{folder}: holds no annotations of {splits[0]} images. Expected {expected}, as COCO has them.")


def _image_folders(path: Path, folder: Path) -> list[Path]:
    """Where a file's images may be, likeliest first."""
    split = path.stem.rpartition("_")[2]
    named = [folder / split, folder / "images" / split]
    return [place for place in (*named, folder / "images", path.parent, folder) if place.is_dir()]


def _best_folder(file: CocoFile, places: list[Path]) -> Path:
    """The one that has most of some of the images, the likeliest of equals."""
    count = len(file.image_ids)
    names = [file.file_name(row) for row in range(0, count, -(-count // LOOKED_FOR) or 1)]
    return max(places, key=lambda place: sum(os.path.isfile(place / name) for name in names))
