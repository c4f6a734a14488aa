"""The size of images: pixels a side of a square, or height and width. No torch.

One plain value says it everywhere, in configurations and in files: a whole number for a square, else (height, width) in the
order of torch's tensors and torchvision's sizes. A square is never a pair, so that equal sizes are equal values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from slimtrain.base.untrusted.quoting import quoted

ImageSize = int | tuple[int, int]

EXPECTED = "pixels of a square, as in 224, or HEIGHTxWIDTH, as in 256x192"
WRITTEN = re.compile(r"\s*([0-9]{1,9})(?:\s*[xX]\s*([0-9]{1,9}))?\s*")


def as_image_size(value: object) -> ImageSize:
    """The size that a value tells: 224, [256, 192], "224" or "256x192". ValueError for anything else, 0 included."""
    if isinstance(value, str):
        match = WRITTEN.fullmatch(value)
        given: Sequence[object] = [int(number) for number in match.groups() if number] if match else []
    else:
        given = value if isinstance(value, list | tuple) else [value]
    whole = [side for side in given if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(whole) != len(given) or len(whole) not in (1, 2) or (len(whole) == 1 and isinstance(value, list | tuple)):
        raise ValueError(f"image size {quoted(value)}: expected {EXPECTED}")
    return whole[0] if whole[0] == whole[-1] else (whole[0], whole[1])


def sides(size: ImageSize) -> tuple[int, int]:
    """(height, width) in pixels."""
    return (size, size) if isinstance(size, int) else size


def pixels(size: ImageSize) -> int:
    """Height times width."""
    height, width = sides(size)
    return height * width


def plain_size(size: ImageSize) -> int | list[int]:
    """The size as files hold it: YAML and JSON know no pairs."""
    return size if isinstance(size, int) else list(size)


def format_size(size: ImageSize) -> str:
    """`224`, `256x192`: as `--image-size` takes it."""
    return "x".join(map(str, (size,) if isinstance(size, int) else size))
