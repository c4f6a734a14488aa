"""An image file as a picture of color, of gray, or of four channels: the one function that training, testing, calibration,
accuracy and verification open files with. No torch.

As torchvision opens them: the first picture of several, palettes and CMYK as their colors, without transparency unless four
channels are asked for, as the pixels are stored unless EXIF's orientation is asked for. Beyond it, gray images of 16 bits and
of floats from 0 to 1 are scaled to 8 bits (converted as they are they would be white), and what a small network cannot want is
refused before it is decoded: too many pixels for their decoder, too long a side, files far larger than any picture. What a
file holds is told by its content, not its ending, and only by Pillow's readers of pictures: none of them runs a program.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.base.text import count
from slimtrain.base.untrusted.opening import MIB, open_file
from slimtrain.data.catalog import PICTURES, opened_with
from slimtrain.data.image_files import endings, formats

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2 * 89_478_485  # where Pillow itself refuses: 0.5 GiB of RGB
SLOW_PIXELS = 4_000_000  # of a decoder that is written in Python, at 1 to 3 us each
OF_FORMAT = {"JPEG2000": 40_000_000}  # at 0.2 us each
UNBOUNDED = ("fits_gzip",)  # decoders that inflate before they measure
MOST_BYTES = 2048 * MIB  # of a file: those pixels in 16 bits take 1.3 GiB. Some decoders read all of it first
STRIP_PIXELS = 1 << 20  # converted at once
MOST_ASPECT = 100  # longer side over shorter one; resized to 256, that takes 20 MB
SCALE, EIGHT = "Scale it down, or remove it.", "with 8 or 16 bits"
MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # of Pillow, by `PICTURES`
OWN_ARRAYS = "Run the files on arrays of your own instead: slimexport.open_network(BUNDLE, WIDTH)."
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I are 16 bits, in older Pillows or always


class ImageRefused(UserError):
    """A readable image that is not taken: of a size, or of a kind of values, that no prediction can be made of. `reason` says
    what it has, `advice` what to do."""

    def __init__(self, path: str | Path, reason: str, advice: str) -> None:
        super().__init__(f"{path}: {reason}. {advice}")
        self.reason, self.advice = reason, advice


def open_image(path: str | Path, exif_orientation: bool = False, channels: int = 3) -> Image:
    """The picture of a file, of so many channels as `of_channels` says, turned as EXIF says where `exif_orientation`.

    ImageRefused, naming the file, for images out of bounds and of values whose range is not known; OSError for what is no
    file; whatever Pillow's decoders raise where it is no readable image.
    """
    from PIL import Image, ImageOps

    endings()  # which makes Pillow read what it can, in processes that load images too
    with warnings.catch_warnings(), open_file(path) as file:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is ours
        warnings.simplefilter("ignore", UserWarning)  # transparency that is left out knowingly, damaged EXIF
        _check_bytes(path, file)
        try:
            opened = Image.open(file, formats=formats())
        except Image.DecompressionBombError as error:
            raise ImageRefused(path, f"has more pixels than are decoded ({error})", SCALE) from error
        with opened:
            _check_size(path, *opened.size)
            _check_decoder(path, opened)
            image = ImageOps.exif_transpose(opened) if exif_orientation else opened
            image.load()  # the file is closed below
            return of_channels(_eight_bits(path, image, opened.format), channels)


def _check_bytes(path: str | Path, file: BinaryIO) -> None:
    if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
        raise ImageRefused(path, f"takes {size // MIB:,} MiB, at most {MOST_BYTES // MIB:,} are read", SCALE)


def _check_size(path: str | Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ImageRefused(path, f"has {width:,} x {height:,} pixels, at most {MOST_PIXELS:,} are decoded", SCALE)
    if max(width, height) > MOST_ASPECT * min(width, height):
        reason = f"has {width:,} x {height:,} pixels, one side is more than {MOST_ASPECT} times the other"
        raise ImageRefused(path, reason, "Crop it, or remove it.")


def _check_decoder(path: str | Path, image: Image) -> None:
    """What Pillow decodes slowly or without a bound is taken in smaller sizes, or not."""
    from PIL import Image as Pillow

    width, height = image.size
    decoders = {tile[0] for tile in getattr(image, "tile", ())}
    if decoders & set(UNBOUNDED):
        raise ImageRefused(path, f"is a compressed {image.format} file", "Save it as a .png or .tif file.")
    most = SLOW_PIXELS if decoders & Pillow.DECODERS.keys() else OF_FORMAT.get(image.format or "", MOST_PIXELS)
    if width * height > most:
        reason = f"has {width:,} x {height:,} pixels, of a {image.format} file of this kind at most {most:,} are decoded"
        raise ImageRefused(path, f"{reason}, which is slow", "Save it as a .png or .jpg file.")


def of_channels(image: Image, channels: int) -> Image:
    """Pillow's conversion to 1 channel, gray, 3, or 4: these and opacity, or whatever an image's fourth channel holds.

    Each of four stands by itself: the mode is RGBX, since Pillow, where it resizes RGBA, weights colors by opacity. UserError
    for other channels.
    """
    from PIL import Image as Pillow

    check_channels(channels, "Give normalized images as arrays instead.")
    if image.mode == MODES[channels]:
        return image
    if channels != 4:
        return image.convert(MODES[channels])
    four = image if image.mode == "RGBA" else image.convert("RGBA")
    result = Pillow.new(MODES[channels], four.size)
    for top, strip in _strips(four):
        result.paste(Pillow.frombytes(MODES[channels], strip.size, strip.tobytes()), (0, top))
    return result


def _strips(image: Image) -> Iterator[tuple[int, Image]]:
    """Parts of an image of all its width, each with its first row: what is made of one takes little beside the whole."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def check_channels(channels: int, advice: str) -> None:
    """UserError, which ends in `advice`, where no picture has so many channels."""
    if channels not in PICTURES:
        raise UserError(f"images of {count(channels, 'channel')}: {opened_with()}. {advice}")


def stored_form(image: Image) -> Image:
    """A picture of `of_channels` as files can hold it: of four channels the fourth as opacity."""
    from PIL import Image as Pillow

    return Pillow.frombytes("RGBA", image.size, image.tobytes()) if image.mode == MODES[4] else image


def _eight_bits(path: str | Path, image: Image, kind: str | None) -> Image:
    """The same, or of values that Pillow's conversion would cut off, scaled to 8 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in SIXTEEN_BITS):
        return _scaled(image, lambda values: np.clip(values.astype(np.int64) >> 8, 0, 255))  # as 16 bits of color are read
    if image.mode == "F":
        extremes = [(values.min(), values.max()) for values in (np.asarray(strip) for _, strip in _strips(image))]
        low, high = np.min(extremes), np.max(extremes)
        if not (low >= 0 and high <= 1):  # NaN fails too
            reason = f"has float values from {low:g} to {high:g}, expected 0 to 1"
            raise ImageRefused(path, reason, f"Scale them, or save it {EIGHT}.")
        return _scaled(image, lambda values: np.rint(values * 255))
    if image.mode == "I":
        raise ImageRefused(path, "has whole values of 32 bits, whose range is not known", f"Save it {EIGHT}.")
    return image


def _scaled(image: Image, to_eight: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Image:
    """A gray image of the values that `to_eight` gives."""
    from PIL import Image as Pillow

    pixels = np.empty(image.size[::-1], np.uint8)
    for top, strip in _strips(image):
        pixels[top : top + strip.height] = to_eight(np.asarray(strip)).astype(np.uint8)
    return Pillow.fromarray(pixels)
