"""An image file as a picture of color, of gray, or of four channels: the one function that training, testing, calibration,
accuracy and verification open files with. No torch.

As torchvision opens them: the first picture of several, palettes and CMYK as their colors, without transparency unless four
channels are asked for, as the pixels are stored unless EXIF's orientation is asked for. Beyond it, gray images of 16 bits and
of floats from 0 to 1 are scaled to 8 bits (converted as they are they would be white), and what a small network cannot want is
refused before it is decoded.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimtrain.base.errors import UserError
from slimtrain.base.text import count
from slimtrain.data.catalog import PICTURES, opened_with
from slimtrain.data.image_files import endings

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2 * 89_478_485  # where Pillow itself refuses: 0.5 GiB of RGB
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

    ImageRefused, naming the file, for images out of bounds and of values whose range is not known; whatever Pillow's decoders
    raise where it is no readable image.
    """
    from PIL import Image, ImageOps

    endings()  # which makes Pillow read what it can, in processes that load images too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is ours
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)  # which is left out knowingly
        try:
            opened = Image.open(path)
        except Image.DecompressionBombError as error:
            raise ImageRefused(path, f"has more pixels than are decoded ({error})", SCALE) from error
        with opened:
            _check_size(path, *opened.size)
            image = ImageOps.exif_transpose(opened) if exif_orientation else opened
            image.load()  # the file is closed below
            return of_channels(_eight_bits(path, image, opened.format), channels)


def _check_size(path: str | Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ImageRefused(path, f"has {width:,} x {height:,} pixels, at most {MOST_PIXELS:,} are decoded", SCALE)
    if max(width, height) > MOST_ASPECT * min(width, height):
        reason = f"has {width:,} x {height:,} pixels, one side is more than {MOST_ASPECT} times the other"
        raise ImageRefused(path, reason, "Crop it, or remove it.")


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
    return Pillow.frombytes(MODES[channels], four.size, four.tobytes())


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
    from PIL import Image as Pillow

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in SIXTEEN_BITS):
        high = np.asarray(image).astype(np.int64) >> 8  # as Pillow reads 16 bits of color
        return Pillow.fromarray(np.clip(high, 0, 255).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            reason = f"has float values from {values.min():g} to {values.max():g}, expected 0 to 1"
            raise ImageRefused(path, reason, f"Scale them, or save it {EIGHT}.")
        return Pillow.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I":
        raise ImageRefused(path, "has whole values of 32 bits, whose range is not known", f"Save it {EIGHT}.")
    return image
