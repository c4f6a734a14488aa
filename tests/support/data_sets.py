"""Small data sets on disk, each in the layout that it is published in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_classes(
    folder: Path, classes: Sequence[str] = ("ant", "bee", "cat"), files: Sequence[str] = ("a.jpg", "b.PNG")
) -> None:
    """Class folders of small images, each of another color."""
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for j, file in enumerate(files):
            Image.new("RGB", (40 + j, 30), (50 * i % 256, 100 * j, 0)).save(folder / name / file)


def write_folders(folder: Path, classes: int = 3) -> None:
    """`train/` and `val/` with an image a class."""
    for part in ("train", "val"):
        write_classes(folder / part, [f"n{i:04}" for i in range(classes)], ["a.png"])


def python2_pickle(entries: dict[bytes, Any]) -> bytes:
    """Protocol 2 as Python 2 and numpy wrote the published files: `str` for bytes and an array of raw bytes."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    def put(value: Any) -> bytes:
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(put(item) for item in value) + b"e"
        assert isinstance(value, np.ndarray) and value.dtype == np.uint8
        dtype = (
            b"cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\1tR(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        )
        shape = b"(" + b"".join(put(side) for side in value.shape) + b"t"
        raw = b"T" + struct.pack("<i", value.nbytes) + value.tobytes()  # BINSTRING
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\0t" + text(b"b") + b"\x87R"
        return start + b"(K\1" + shape + dtype + b"\x89" + raw + b"tb"

    return b"\x80\x02}(" + b"".join(text(key) + put(value) for key, value in entries.items()) + b"u."


def batch(count: int, classes: int, key: bytes, seed: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    numbers = [int(n) for n in rng.integers(0, classes, count)]
    return {b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: numbers}


def write_cifar(folder: Path, name: str, form: Any = python2_pickle) -> dict[str, dict[bytes, Any]]:
    """A small data set in the published layout, and what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cifar10":
        files = {f"data_batch_{i}": batch(4, 10, b"labels", i) for i in range(1, 6)}
        files["test_batch"] = batch(6, 10, b"labels", 9)
        files["batches.meta"] = {b"label_names": [b"class %d" % i for i in range(10)]}
    else:
        files = {"train": batch(9, 100, b"fine_labels", 1), "test": batch(5, 100, b"fine_labels", 2)}
        files["meta"] = {b"fine_label_names": [b"class %d" % i for i in range(100)]}
    for file, entries in files.items():
        (folder / file).write_bytes(form(entries))
    return files


WRITERS: dict[str, Callable[[Path], Any]] = {
    "imagenet": partial(write_folders, classes=1000),
    "folder": write_folders,
    "cifar10": partial(write_cifar, name="cifar10"),
    "cifar100": partial(write_cifar, name="cifar100"),
}
