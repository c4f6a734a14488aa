"""Photographs in class folders: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`.

A wrong layout would train without any error, and to chance: labels are the folders' positions, so a missing or an
extra folder moves all that follow. Every layout but the right one is refused.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.text import some
from slimtrain.data.catalog import FOLDER, DataRequest
from slimtrain.data.images import SUFFIXES
from slimtrain.data.samples import FileSamples

log = logging.getLogger(__name__)

TEST_FOLDERS = ("val", "test")
LAYOUT = "train/CLASS/IMAGE and val/CLASS/IMAGE"


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
    training, testing, classes = _open(request.folder, request.with_test)
    dataset = request.dataset
    if dataset.classes and len(classes) != dataset.classes:
        raise UserError(
            f"{request.folder}: train/ has {len(classes)} class folders, {dataset.title} has {dataset.classes}. Complete "
            f"them, or use data: {FOLDER} for other images."
        )
    return training, testing, classes


def _open(data_dir: str, with_test: bool) -> tuple[FileSamples, FileSamples | None, tuple[str, ...]]:
    root = data_folder(data_dir, LAYOUT)
    if not root.is_dir():
        raise UserError(
            f"data_dir {data_dir}: is a file, expected a folder that holds {LAYOUT}. Unpack it if it is an archive."
        )
    if not (root / "train").is_dir():
        raise UserError(
            f"{root}: has no train/ (found {some(entry_names(root))}), expected {LAYOUT}. Set data_dir to the folder above "
            "train/."
        )
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if with_test and test is None:
        raise UserError(
            f"{root}: has no val/ (or test/; found {some(entry_names(root))}), expected {LAYOUT}. Make one, or hold out "
            "training images instead: --set holdout=N."
        )
    training = scan(root / "train")
    if not with_test:
        return training, None, training.classes
    assert test is not None
    testing = scan(test)
    if training.classes != testing.classes:
        missing = sorted(set(training.classes) - set(testing.classes))
        extra = sorted(set(testing.classes) - set(training.classes))
        raise UserError(
            f"{root}: train/ and {test.name}/ have different classes: {test.name}/ lacks {some(missing)} and has "
            f"{some(extra)} beside. Give both the same class folders, or set holdout to test on training images."
        )
    return training, testing, training.classes


def scan(folder: Path) -> FileSamples:
    """The images of `folder/CLASS/`, classes and files in the order of their names. UserError for another layout."""
    classes, loose = [], 0
    for entry in _entries(folder):
        if entry.is_dir():
            classes.append(entry.name)
        elif is_image(entry.name):
            loose += 1
    if not classes and loose:
        raise UserError(
            f"{folder}: holds {loose} images and no class folders, expected {folder.name}/CLASS/IMAGE. Move every image into "
            "a folder of its class (for ImageNet's validation images, the script valprep.sh does)."
        )
    if not classes:
        raise UserError(f"{folder}: is empty, expected {folder.name}/CLASS/IMAGE. Put the images there, or correct data_dir.")
    if loose:
        log.warning("%s: %d images lie beside the class folders and are left out", folder, loose)
    files, deeper = [], {}
    for name in classes:
        entries = _entries(folder / name)
        files.append([entry.name for entry in entries if is_image(entry.name)])
        inner = [entry.name for entry in entries if not is_image(entry.name) and entry.is_dir()]
        if inner:
            deeper[name] = inner
    empty = [name for name, images in zip(classes, files, strict=True) if not images]
    if deeper and len(empty) == len(classes):
        name = next(iter(deeper))
        raise UserError(
            f"{folder}: one level of folders too many: {folder.name}/{name}/ holds folders ({some(deeper[name])}) and no "
            f"images, expected {folder.name}/CLASS/IMAGE. Move the class folders up into {folder}."
        )
    if empty:
        raise UserError(
            f"{folder}: {len(empty)} of {len(classes)} class folders hold no images ({', '.join(sorted(SUFFIXES))}): "
            f"{some(empty)}. Fill them, or remove them from both train/ and val/."
        )
    if len(classes) < 2:
        raise UserError(f"{folder}: has the one class {classes[0]}, expected at least 2 class folders.")
    if deeper:
        log.warning("%s: folders within class folders are left out: %s", folder, some(sorted(deeper)))
    return FileSamples(folder, classes, files)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def entry_names(folder: Path) -> list[str]:
    """What a folder holds, sorted; UserError where it cannot be read."""
    return [entry.name for entry in _entries(folder)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden files and the rest of a Mac's archive."""
    try:
        with os.scandir(folder) as entries:
            kept: Iterable[os.DirEntry[str]] = (entry for entry in entries if not entry.name.startswith((".", "__MACOSX")))
            return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}). Correct its permissions, or data_dir."
        ) from error
