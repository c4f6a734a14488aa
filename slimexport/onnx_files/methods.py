"""How int8 ranges are taken from activations: names only, for whoever asks for one."""

from __future__ import annotations

from slimtrain.base.errors import UserError

METHODS = MAX, PERCENTILE = ("max", "percentile")
INT8_IMAGES = 512  # that scales are measured and methods judged on, where no other number is asked for
LEAST_IMAGES, MOST_PIXELS = 32, 2**26  # all are in memory: of 800 x 1344, as detectors take them, there are 62
AUTO = "auto"  # the one of METHODS that agrees best with fp32


def usual_images(pixels: int) -> int:
    """How many images of so many pixels are taken where no number is asked for."""
    return max(LEAST_IMAGES, min(INT8_IMAGES, MOST_PIXELS // pixels))


def check_method(name: str) -> None:
    """UserError for a name that is none of them."""
    if name not in (AUTO, *METHODS):
        raise UserError(f"int8 calibration {name!r}: expected {AUTO}, {' or '.join(METHODS)}.")
