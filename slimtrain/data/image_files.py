"""Which files of a folder are images: one rule, for training, testing, calibration, accuracy and verification alike. No torch.

What a system or a program leaves beside images is no image (`ignored`). Of the rest an ending tells: images are what Pillow
reads here, with its plugin for HEIC where that is installed. Files that are images by their ending, but which Pillow cannot
read here, are counted, so that nobody misses them unawares.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError

# What systems, shells and stores of files leave in folders, in small letters; what is hidden (`._photo.jpg`, `.DS_Store`,
# `.ipynb_checkpoints`) is left alone anyway.
LITTER = frozenset(
    (
        *("__macosx", "icon\r", "lost+found"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "$recycle.bin", "system volume information"),
        *("@eadir", "#recycle", "#snapshot", "__pycache__"),
    )
)
# Of Pillow's formats those that are no pictures, are read by running another program, or only name their reader.
NO_PICTURES = frozenset(("EPS", "MPEG", "BUFR", "GRIB", "HDF5", "WMF"))
# Pictures that some Pillow, or none, reads.
OTHERS = frozenset(
    (
        *(".heic", ".heif", ".hif", ".avif", ".avifs", ".webp", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".svg"),
        *(".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".eps"),
    )
)
HEIC = frozenset((".heic", ".heif", ".hif"))
USUAL = (".jpg", ".png", ".webp", ".tif", ".bmp")  # as messages tell which endings are read


def ignored(name: str) -> bool:
    """Whether a file or a folder of this name is left alone, as if it were not there."""
    return name.startswith(".") or name.lower() in LITTER


@functools.cache
def endings() -> frozenset[str]:
    """The endings of the images that Pillow reads here, in small letters."""
    from PIL import Image

    with suppress(ImportError):  # its own import makes Pillow read .heic
        importlib.import_module("pillow_heif").register_heif_opener()
    known = Image.registered_extensions()  # which loads all plugins
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN and kind not in NO_PICTURES)


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, whatever a file is called, in the order in which they are tried."""
    from PIL import Image

    endings()
    return tuple(kind for kind in Image.ID if kind in Image.OPEN and kind not in NO_PICTURES)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not ignored(name) and os.path.splitext(name)[1].lower() in endings()


def is_image_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file that is taken for an image: no folder, no pipe, but a link that leads nowhere too, which cannot be
    read then and is named."""
    return is_image(entry.name) and (entry.is_file() or not os.path.exists(entry.path))


def listed(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without what is left alone. OSError where it cannot be read."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not ignored(entry.name)), key=lambda entry: entry.name)


def unread_images(names: Iterable[str]) -> str:
    """`12 .heic files and 1 .cr2 file are images that Pillow does not read here: ...`, or nothing where all are read."""
    kinds = (os.path.splitext(name)[1].lower() for name in names if not ignored(name))
    counts = Counter(kind for kind in kinds if kind in OTHERS and kind not in endings())
    if not counts:
        return ""
    files = " and ".join(f"{number} {kind} {'file' if number == 1 else 'files'}" for kind, number in sorted(counts.items()))
    one = sum(counts.values()) == 1
    advice = "install pillow-heif, or convert them to .jpg or .png" if counts.keys() & HEIC else "convert them to .jpg or .png"
    return f"{files} {'is an image' if one else 'are images'} that Pillow does not read here: {advice}"


def usual_endings() -> str:
    """For messages: `.jpg, .png, .webp, .tif, .bmp and 50 more`."""
    shown = [end for end in USUAL if end in endings()]
    return f"{', '.join(shown)} and {len(endings()) - len(shown)} more"


def image_files(folder: Path) -> tuple[list[str], NDArray[np.int64], str]:
    """The path of every image file below a folder in the order of their names, the number of the folder that each lies in, and
    what `unread_images` says of the others. UserError if there are none, or the folder cannot be read."""
    files: list[str] = []
    others: list[str] = []
    try:
        for entry in _below(folder):
            if is_image_file(entry):
                files.append(entry.path)
            else:
                others.append(entry.name)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read ({error.strerror or error}).") from error
    unread = unread_images(others)
    if not files:
        also = f" {unread[0].upper()}{unread[1:]}." if unread else ""
        raise UserError(f"{folder}: holds no images ({usual_endings()}), neither directly nor in folders.{also}")
    files.sort(key=lambda path: path.split(os.sep))  # folder by folder
    numbers: dict[str, int] = {}
    folders = [numbers.setdefault(os.path.dirname(path), len(numbers)) for path in files]
    return files, np.asarray(folders, np.int64), unread


def _below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder but folders; links to these are followed, each folder is gone through once."""
    ahead, seen = [str(folder)], {os.path.realpath(folder)}
    while ahead:
        for entry in listed(ahead.pop()):
            if not entry.is_dir():
                yield entry
            elif (real := os.path.realpath(entry.path)) not in seen:  # else a link to a folder above it, or beside
                seen.add(real)
                ahead.append(entry.path)
