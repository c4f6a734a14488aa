"""Images for calibration and verification, prepared as for tests: of folders, arrays of normalized images, packaged sets. No
torch.

A photograph is read in as many channels as are normalized, resized with antialiased bilinear interpolation, center-cropped and
normalized: the published validation transform. It is resized in its own proportions until it covers `image_size` / 0.875: the
shorter side of a photograph for a square (256 for 224); for other sizes height and width both are covered, and one of them is
met (of 256x192, 293x219), so that the crop is 0.875 of the picture in one direction and no more in the other.
"""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.base.process.memory import tells_of_memory
from slimtrain.base.untrusted.opening import MIB, open_file
from slimtrain.base.untrusted.quoting import printable, reason
from slimtrain.data.catalog import CATALOG, packaged, tested_whole
from slimtrain.data.image_files import image_files
from slimtrain.data.opening import ImageRefused, check_channels, of_channels, open_image
from slimtrain.data.sampling import Indices, draw, in_rounds

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

RESIZE = 0.875  # crop over resized side
ZIP = b"PK"  # what a `.npz` begins with
MOST_INFLATED = 2048 * MIB  # beyond a file's own size
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input: its size, mean and standard deviation per channel (0 to 1), whether images
    are resized `whole`, as small ones are, in place of cropped, and whether files are turned as their EXIF says.

    Testing, calibration, accuracy, verification and int8 all do it, training without augmentation too. `shape`: of an input
    that is no image, such as a signal [channels, length]; such inputs come normalized, in arrays. `padded`: nothing is cut
    off or stretched, as of detectors: images are resized until they fit, and zeros are to the right and below.
    """

    image_size: ImageSize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whole: bool = False
    exif_orientation: bool = False
    shape: tuple[int, ...] | None = None
    padded: bool = False

    def __call__(self, path: str | Path) -> Images:
        """[channels, height, width] of one file; OSError where it is no readable image, ImageRefused as of `open_image`."""
        return self.prepare(open_image(path, self.exif_orientation, self.channels))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return (self.channels, *sides(self.image_size)) if self.shape is None else self.shape

    @property
    def channels(self) -> int:
        """How many channels images have: as many as are normalized."""
        return len(self.mean)

    def prepare(self, image: Image) -> Images:
        """[channels, height, width] of one picture."""
        from PIL import Image as Pillow

        image = of_channels(image, self.channels)
        height, width = sides(self.image_size)
        if self.padded:
            image = image.resize(fitting(image.size, (width, height)), Pillow.Resampling.BILINEAR)
        elif self.whole:
            image = image.resize((width, height), Pillow.Resampling.BILINEAR)
        else:
            covered = covering(image.size, (round(width / RESIZE), round(height / RESIZE)))
            image = image.resize(covered, Pillow.Resampling.BILINEAR)
            left, top = round((covered[0] - width) / 2), round((covered[1] - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, np.float32).reshape(image.height, image.width, self.channels) / np.float32(255)
        normalized = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        if self.padded:
            normalized = np.pad(normalized, ((0, height - image.height), (0, width - image.width), (0, 0)))
        return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def covering(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image of `size` resized in its proportions until it covers `box`: one side is met, the other, cut
    to whole pixels, is no smaller."""
    (width, height), (wide, high) = size, box
    if wide * height >= high * width:
        return wide, int(wide * height / width)
    return int(high * width / height), high


def fitting(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image of `size` resized in its proportions until it just fits into `box`, to whole pixels, halves
    up."""
    scale = min(box[0] / size[0], box[1] / size[1])
    width, height = (max(1, int(side * scale + 0.5)) for side in size)
    return width, height


class Trained(Protocol):
    """What is known of a network's images, as a checkpoint tells it: `settings` are those of the run that trained it."""

    image_size: ImageSize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: Mapping[str, Any]


def preprocessing_of(
    network: Trained, image_size: ImageSize | None = None, exif_orientation: bool | None = None
) -> Preprocessing:
    """What is done to images for a network: as in the tests of the run that trained it, where it tells. What is not None is
    taken in place of its own."""
    settings = network.settings
    return Preprocessing(
        network.image_size if image_size is None else image_size,
        network.mean,
        network.std,
        tested_whole(settings.get("data"), settings.get("augmentation")),
        bool(settings.get("exif_orientation", False)) if exif_orientation is None else exif_orientation,
    )


@dataclass(frozen=True)
class ImageSource:
    """Images to take some of. `labels` are their classes, or the numbers of their folders, `classes` what these are called;
    `read` gives images [channels, H, W] by their indices, without those that cannot be read."""

    name: str
    labels: Indices
    classes: str
    read: Callable[[Indices], Iterator[Images]]

    def batches(self, batch_size: int, most: int, purpose: str = "calibration") -> Iterator[Images]:
        """Batches [<= batch_size, channels, H, W] of `most` images, or all, drawn as `slimtrain.data.sampling` says; how many
        of how many is logged, and shown as a bar on a terminal. UserError where none can be read."""
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: expected at least 1.")
        drawn = draw(self.labels, most)
        log.info("%s: %s: %s", purpose, self.name, drawn.describe(self.classes))
        return _stacked(_shown(self.read(drawn.indices), len(drawn), purpose), batch_size)

    def some(self, count: int, purpose: str) -> list[Images]:
        """Up to `count` images that can be read, of as many classes as can be. UserError where none can."""
        images = list(islice(self.read(in_rounds(self.labels)), count))
        log.info("%s: %s: %s", purpose, self.name, draw(self.labels, len(images)).describe(self.classes))
        return images


def open_source(source: str | Path, preprocessing: Preprocessing) -> ImageSource:
    """The images of a folder (flat or by class), a `.npy`/`.npz` file of normalized images, or `digits`, scikit-learn's
    training digits.

    Images that cannot be read, or are refused, are named in a warning and left out. Raises UserError for a source that is none
    of these, is empty, or holds arrays of another form.
    """
    if packaged(source) or os.path.isdir(source):
        if preprocessing.shape is not None:
            shape = ", ".join(map(str, preprocessing.shape))
            raise UserError(
                f"{source}: holds images, the network takes inputs [{shape}]. Give normalized ones as a .npy file, float32 "
                f"[N, {shape}]."
            )
        check_channels(preprocessing.channels, "Give normalized images as a .npy file instead.")
    if packaged(source):
        return _packaged(CATALOG[str(source)].name, preprocessing)
    source = Path(source)
    if os.path.isdir(source):
        files, folders, unread = image_files(source)
        if unread:
            log.warning("%s: %s. They are left out", source, unread)

        def opened(indices: Indices) -> Iterator[Images]:
            return readable([files[i] for i in indices], preprocessing)

        return ImageSource(str(source), folders, "folders", opened)
    if source.suffix.lower() in (".npy", ".npz"):
        array, labels = read_array(source, preprocessing.image_size, preprocessing.channels, preprocessing.shape)
        classes = "" if labels is None else "classes"
        labels = np.zeros(len(array), np.int64) if labels is None else labels
        return ImageSource(str(source), labels, classes, lambda indices: (np.array(array[i]) for i in indices))
    if not os.path.exists(source):
        raise UserError(f"{source}: no such folder or file. Expected a folder of images, or a .npy or .npz file.")
    raise UserError(f"{source}: expected a folder of images, or a .npy or .npz file of normalized images.")


def _packaged(name: str, preprocessing: Preprocessing) -> ImageSource:
    """Training images that come with a package."""
    from slimtrain.data.datasets import open_data
    from slimtrain.data.samples import as_pillow, labels_of

    samples = open_data(name).train
    how = replace(preprocessing, whole=preprocessing.whole or CATALOG[name].whole)

    def prepared(indices: Indices) -> Iterator[Images]:
        return (how.prepare(as_pillow(samples.image(int(i)), how.channels)) for i in indices)

    return ImageSource(name, labels_of(samples), "classes", prepared)


def readable(files: Sequence[str | Path], preprocessing: Preprocessing) -> Iterator[Images]:
    """The images of `files`; unreadable and refused ones are named and counted. UserError where none can be read."""
    failed = 0
    for path in files:
        try:
            image = preprocessing(path)
        except ImageRefused as error:
            failed += 1
            log.warning("%s", printable(f"{error} It is left out"))
            continue
        except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
            if tells_of_memory(error):
                raise
            failed += 1
            log.warning("%s", printable(f"{path}: not a readable image ({reason(error)}), left out"))
            continue
        yield image
    if failed == len(files):
        raise UserError(f"none of the {failed} images, such as {files[0]}, can be read.")
    if failed:
        log.warning("%d of %d images could not be read", failed, len(files))


def _shown(images: Iterator[Images], total: int, title: str) -> Iterator[Images]:
    """The same images, as a bar on a terminal."""
    from tqdm import tqdm

    yield from tqdm(images, title, total, unit="image", disable=None, leave=False)


def _stacked(images: Iterator[Images], batch_size: int) -> Iterator[Images]:
    while batch := list(islice(images, batch_size)):
        yield np.stack(batch)


def read_array(
    path: Path, image_size: ImageSize, channels: int = 3, shape: tuple[int, ...] | None = None
) -> tuple[Images, Indices | None]:
    """Normalized float32 [N, channels, height, width], or [N, *shape] of inputs that are no images, of a `.npy` file, or of a
    `.npz` that holds nothing else but, where it does, their labels: integers [N], returned beside."""
    labels: Indices | None = None
    loaded: Any
    try:
        with open_file(path) as file:
            if file.read(len(ZIP)) == ZIP:
                loaded, labels = _images_and_labels(path, _members(path, file))
            else:
                loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on a damaged file
        raise UserError(f"{path}: not a readable numpy file ({reason(error)}).") from error
    shape = shape or (channels, *sides(image_size))
    expected = f"normalized float32 images [N, {', '.join(map(str, shape))}]"
    if not isinstance(loaded, np.ndarray):
        raise UserError(f"{path}: holds no array, expected {expected}.")
    if loaded.dtype != np.float32 or loaded.ndim != 1 + len(shape) or loaded.shape[1:] != shape or not len(loaded):
        raise UserError(f"{path}: holds {loaded.dtype} {list(loaded.shape)}, expected {expected}.")
    for start in range(0, len(loaded), 256):
        if not np.isfinite(loaded[start : start + 256]).all():
            raise UserError(f"{path}: holds NaN or infinite values, expected {expected}.")
    if labels is not None and len(labels) != len(loaded):
        raise UserError(
            f"{path}: holds {len(loaded)} images and {len(labels)} labels. Give one label for every image, or none."
        )
    return loaded, labels


def _members(path: Path, file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays of a `.npz`: measured before they are inflated, and what their checksums say. UserError for a file that
    becomes much larger than it is, ValueError for a damaged one."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        inflated = sum(member.file_size for member in members)
        if inflated > size + MOST_INFLATED:
            raise UserError(
                f"{path}: its {size // MIB:,} MiB become {inflated // MIB:,} MiB, at most {MOST_INFLATED // MIB:,} MiB more "
                "are inflated. Save them with numpy.savez or as .npy, which is not compressed."
            )
        return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, of exactly the bytes that its header claims."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename}: of version {version[0]}.{version[1]}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or stream.tell() + size != member.file_size:
            raise ValueError(f"{member.filename}: its content is not what it claims: {dtype} {list(shape)}")
        content = stream.read(size)
        stream.read(1)  # the end, where the checksum is looked at
    return np.ndarray(shape, dtype, content, order="F" if fortran else "C")


def _images_and_labels(path: Path, arrays: Mapping[str, Any]) -> tuple[Any, Indices | None]:
    """Of the arrays of a `.npz` the one that is to be images, and integers of one dimension beside it."""
    labels = [name for name, array in arrays.items() if array.ndim == 1 and np.issubdtype(array.dtype, np.integer)]
    images = [name for name in arrays if name not in labels]
    if len(images) != 1 or len(labels) > 1:
        held = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items()) or "none"
        raise UserError(
            f"{path}: holds the arrays {held}; expected exactly one, of images, and at most one beside it, of their labels. "
            "Save these alone: numpy.savez(PATH, images=IMAGES), or labels=LABELS too."
        )
    return arrays[images[0]], arrays[labels[0]].astype(np.int64) if labels else None
