"""Images for calibration and verification: folders of photographs, or one array of normalized images. No torch.

A photograph is read as RGB, its shorter side resized to `image_size` / 0.875 (256 for 224) with antialiased bilinear
interpolation, center-cropped and normalized: the published validation transform.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"))
RESIZE = 0.875  # crop over resized side
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input: pixels a side, and mean and standard deviation per channel (0 to 1)."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, path: Path) -> Images:
        """[3, image_size, image_size] of one file; OSError where it is no readable image."""
        from PIL import Image

        size = self.image_size
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        shorter = round(size / RESIZE)
        width, height = (int(shorter * side / min(image.size)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / np.float32(255)
        normalized = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def image_batches(source: str | Path, preprocessing: Preprocessing, batch_size: int) -> Iterator[Images]:
    """Batches [<= batch_size, 3, S, S] of a folder of images (flat or by class) or a `.npy`/`.npz` file.

    Unreadable images are named in a warning and left out. Raises UserError for a source that is neither, is empty, or
    holds arrays of another form.
    """
    source = Path(source)
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: expected at least 1.")
    if os.path.isdir(source):
        return _folder_batches(source, preprocessing, batch_size)
    if source.suffix.lower() in (".npy", ".npz"):
        array = read_array(source, preprocessing.image_size)
        return (np.array(array[i : i + batch_size]) for i in range(0, len(array), batch_size))
    if not os.path.exists(source):
        raise UserError(f"{source}: no such folder or file. Expected a folder of images, or a .npy or .npz file.")
    raise UserError(f"{source}: expected a folder of images, or a .npy or .npz file of normalized images.")


def image_files(folder: Path) -> list[Path]:
    """Every image file below a folder, in the order of their names. UserError if there are none."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error}).") from error
    if not files:
        raise UserError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))}), neither directly nor in folders.")
    return files


def spread_files(folder: Path, count: int) -> list[Path]:
    """Up to `count` image files taken evenly from the whole folder, so that they come from different classes."""
    files = image_files(folder)
    if len(files) <= count:
        return files
    return [files[round(i * (len(files) - 1) / max(count - 1, 1))] for i in range(count)]


def readable(files: list[Path], preprocessing: Preprocessing) -> Iterator[Images]:
    """The images of `files`; unreadable ones are named and counted. UserError where none can be read."""
    failed = 0
    for path in files:
        try:
            image = preprocessing(path)
        except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
            failed += 1
            log.warning("%s: not a readable image (%s), left out", path, error)
            continue
        yield image
    if failed == len(files):
        raise UserError(f"none of the {failed} images, such as {files[0]}, can be read.")
    if failed:
        log.warning("%d of %d images could not be read", failed, len(files))


def _folder_batches(folder: Path, preprocessing: Preprocessing, batch_size: int) -> Iterator[Images]:
    batch: list[Images] = []
    for image in readable(image_files(folder), preprocessing):
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def read_array(path: Path, image_size: int) -> Images:
    """Normalized float32 [N, 3, image_size, image_size] of a `.npy` file, or of a `.npz` holding exactly one array."""
    try:
        loaded: Any = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if len(loaded.files) != 1:
                    raise UserError(f"{path}: holds the arrays {', '.join(loaded.files) or 'none'}, expected exactly one.")
                loaded = loaded[loaded.files[0]]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on a damaged file
        raise UserError(f"{path}: not a readable numpy file ({error}).") from error
    expected = f"normalized float32 images [N, 3, {image_size}, {image_size}]"
    if not isinstance(loaded, np.ndarray):
        raise UserError(f"{path}: holds no array, expected {expected}.")
    if loaded.dtype != np.float32 or loaded.ndim != 4 or loaded.shape[1:] != (3, image_size, image_size) or not len(loaded):
        raise UserError(f"{path}: holds {loaded.dtype} {list(loaded.shape)}, expected {expected}.")
    for start in range(0, len(loaded), 256):
        if not np.isfinite(loaded[start : start + 256]).all():
            raise UserError(f"{path}: holds NaN or infinite values, expected {expected}.")
    return loaded
