"""Photographs in class folders: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`, or `CLASS/IMAGE` with test images held out.

A wrong layout would train without any error, and to chance: labels are the folders' positions, so a missing or an
extra folder moves all that follow. Every layout but the right one is refused.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.text import count, some
from slimtrain.data.catalog import FOLDER, DataRequest
from slimtrain.data.image_files import is_image, is_image_file, listed, unread_images, usual_endings
from slimtrain.data.samples import FileSamples

log = logging.getLogger(__name__)

TEST_FOLDERS = ("val", "test")
LAYOUT = "train/CLASS/IMAGE and val/CLASS/IMAGE"
HOLD_OUT = "holdout=0.2"


def data_folder(data_dir: str, holds: str) -> Path:
    """`data_dir` as an existing folder or file; UserError, saying what it `holds`, where it is not set or not there."""
    if not data_dir:
        raise UserError(f"data_dir is not set, expected the folder that holds {holds}. Set it: --set data_dir=PATH.")
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise UserError(f"data_dir {data_dir}: no such folder. Expected one that holds {holds}: --set data_dir=PATH.")
    return path


def open_folders(request: DataRequest) -> tuple[FileSamples, FileSamples | None, tuple[str, ...]]:
    """Training files, test files (None if not wanted) and the classes' names. UserError for any other layout, and for other
    classes than the data set has."""
    training, testing = _open(request)
    dataset, classes = request.dataset, training.classes
    if dataset.classes and len(classes) != dataset.classes:
        raise UserError(
            f"{training.folder}: has {len(classes)} class folders, {dataset.title} has {dataset.classes}. Complete them, or "
            f"use data: {FOLDER} for other images."
        )
    return training, testing, classes


def _open(request: DataRequest) -> tuple[FileSamples, FileSamples | None]:
    data_dir, with_test, how = request.folder, request.with_test, (request.exif_orientation, request.channels)
    root = data_folder(data_dir, LAYOUT)
    if not root.is_dir():
        raise UserError(
            f"data_dir {data_dir}: is a file, expected a folder that holds {LAYOUT}. Unpack it if it is an archive."
        )
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        if test is None and _class_folders(root):
            if with_test:
                raise UserError(
                    f"{root}: holds class folders ({some(_class_folders(root))}) and no train/ and val/. Hold out a share of "
                    f"the images to test on: --set {HOLD_OUT}; or give it the layout {LAYOUT}."
                )
            return scan(root, *how), None
        raise UserError(
            f"{root}: has no train/ (found {some(entry_names(root))}), expected {LAYOUT}. Set data_dir to the folder above "
            f"train/, or to one of class folders, with --set {HOLD_OUT}."
        )
    if with_test and test is None:
        raise UserError(
            f"{root}: has no val/ (or test/; found {some(entry_names(root))}), expected {LAYOUT}. Make one, or hold out "
            f"training images instead: --set {HOLD_OUT}, or a number of them."
        )
    training = scan(root / "train", *how)
    if not with_test:
        return training, None
    assert test is not None
    testing = scan(test, *how)
    if training.classes != testing.classes:
        missing = sorted(set(training.classes) - set(testing.classes))
        extra = sorted(set(testing.classes) - set(training.classes))
        raise UserError(
            f"{root}: train/ and {test.name}/ have different classes: {test.name}/ lacks {some(missing)} and has "
            f"{some(extra)} beside. Give both the same class folders, or set holdout to test on training images."
        )
    return training, testing


def _class_folders(folder: Path) -> list[str]:
    """The folders in it that hold images directly, be they of a kind that is not read here."""
    inner = [entry.name for entry in _entries(folder) if entry.is_dir()]
    files = {name: entry_names(folder / name) for name in inner}
    return [name for name in inner if any(map(is_image, files[name])) or unread_images(files[name])]


def scan(folder: Path, exif_orientation: bool = False, channels: int = 3) -> FileSamples:
    """The images of `folder/CLASS/`, classes and files in the order of their names. UserError for another layout."""
    classes = _class_names(folder)
    files, others, deeper = [], [], {}
    for name in classes:
        entries = _entries(folder / name)
        files.append([entry.name for entry in entries if is_image_file(entry)])
        others += [entry.name for entry in entries if not is_image(entry.name)]
        inner = [entry.name for entry in entries if not is_image(entry.name) and entry.is_dir()]
        if inner:
            deeper[name] = inner
    empty, unread = [name for name, images in zip(classes, files, strict=True) if not images], unread_images(others)
    if deeper and len(empty) == len(classes):
        name = next(iter(deeper))
        raise UserError(
            f"{folder}: one level of folders too many: {folder.name}/{name}/ holds folders ({some(deeper[name])}) and no "
            f"images, expected {folder.name}/CLASS/IMAGE. Move the class folders up into {folder}."
        )
    if empty:
        raise UserError(
            f"{folder}: {len(empty)} of {len(classes)} class folders hold no images ({usual_endings()}): {some(empty)}. "
            f"{f'In all, {unread}.' if unread else 'Fill them, or remove them, from val/ too.'}"
        )
    if len(classes) < 2:
        raise UserError(f"{folder}: has the one class {classes[0]}, expected at least 2 class folders.")
    if deeper:
        log.warning("%s: folders within class folders are left out: %s", folder, some(sorted(deeper)))
    if unread:
        log.warning("%s: %s. They are left out", folder, unread)
    return FileSamples(folder, classes, files, exif_orientation, channels)


def _class_names(folder: Path) -> list[str]:
    """The folders in it. UserError where there are none."""
    classes, loose = [], 0
    for entry in _entries(folder):
        if entry.is_dir():
            classes.append(entry.name)
        elif is_image(entry.name):
            loose += 1
    if not classes and loose:
        raise UserError(
            f"{folder}: holds {count(loose, 'image')} and no class folders, expected {folder.name}/CLASS/IMAGE. Move every "
            "image into a folder of its class (for ImageNet's validation images, the script valprep.sh does)."
        )
    if not classes:
        raise UserError(f"{folder}: is empty, expected {folder.name}/CLASS/IMAGE. Put the images there, or correct data_dir.")
    if loose:
        lie = "lies" if loose == 1 else "lie"
        log.warning("%s: %s %s beside the class folders, left out", folder, count(loose, "image"), lie)
    return classes


def entry_names(folder: Path) -> list[str]:
    """What a folder holds, sorted; UserError where it cannot be read."""
    return [entry.name for entry in _entries(folder)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without what is left alone."""
    try:
        return listed(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}). Correct its permissions, or data_dir."
        ) from error
