"""Masks of COCO's files: polygons, and runs of pixels column by column (RLE), as numbers or as a text.

What is drawn from a file is checked before it is drawn: runs must fill the image exactly, corners lie in it or near it.
Polygons are filled by faster-coco-eval as COCO fills them; its runs are pycocotools' to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import ResourceError
from slimtrain.base.packages import install_command

Mask = NDArray[np.bool_]
SHIFT, MORE, NEGATIVE, VALUE = 5, 32, 16, 31  # of a text's characters: 5 bits of a number each, the lowest first
FIRST = 48  # the character that stands for zero
MOST_CHARACTERS = 7  # of a number below 2 to the 31st


def mask_library() -> Any:
    """faster-coco-eval's masks. ResourceError where they cannot be imported."""
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise ResourceError(
            f"detection needs faster-coco-eval, which cannot be imported ({error}). Install it: "
            f"{install_command('faster_coco_eval')}."
        ) from error
    return mask


def runs_of_text(text: str) -> list[int]:
    """The lengths of runs that COCO's compressed text tells. From the fourth on each is told as what it is more than the one
    before the last. ValueError for a text that tells none."""
    runs: list[int] = []
    value = characters = 0
    for code in text.encode("ascii"):
        bits = code - FIRST
        if not 0 <= bits < 2 * MORE or characters == MOST_CHARACTERS:
            raise ValueError("its counts are no compressed runs")
        value |= (bits & VALUE) << (SHIFT * characters)
        characters += 1
        if bits & MORE:
            continue
        if bits & NEGATIVE:
            value -= 1 << (SHIFT * characters)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = characters = 0
    if characters:
        raise ValueError("its counts end within a number")
    return runs


def text_of_runs(runs: Sequence[int]) -> str:
    """What `runs_of_text` reads, as COCO compresses it."""
    characters = []
    for number, length in enumerate(runs):
        value, more = int(length) - (int(runs[number - 2]) if number > 2 else 0), True
        while more:
            bits, value = value & VALUE, value >> SHIFT
            more = value != (-1 if bits & NEGATIVE else 0)
            characters.append(chr(FIRST + (bits | MORE if more else bits)))
    return "".join(characters)


def runs_of_mask(mask: Mask) -> list[int]:
    """What `mask_of_runs` reads: the lengths of runs of a mask [height, width], of the background first, which may be none."""
    values = np.concatenate([[False], mask.T.reshape(-1)])
    edges = np.flatnonzero(values[1:] != values[:-1])
    return [int(length) for length in np.diff([0, *edges.tolist(), mask.size])]


def mask_of_runs(runs: Sequence[int] | NDArray[np.int64], height: int, width: int) -> Mask:
    """bool [height, width] of runs, of the background first, down one column after another. ValueError where they do not fill
    the image."""
    lengths = np.asarray(runs, np.int64)
    pixels = height * width
    if ((lengths < 0) | (lengths > pixels)).any() or lengths.sum() != pixels:
        raise ValueError(f"its runs do not fill the image's {pixels:,} pixels")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def mask_of_polygons(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> Mask:
    """bool [height, width], filled where any of the polygons is: each its corners' x and y by turns, in the coordinates of
    boxes."""
    library = mask_library()
    runs = library.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    filled: Mask = library.decode(library.merge(runs)).astype(bool)
    return filled


def runs_of_masks(masks: NDArray[Any]) -> list[dict[str, Any]]:
    """COCO's runs, {"size": [H, W], "counts": bytes}, of masks [N, H, W]."""
    library = mask_library()
    return [library.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
