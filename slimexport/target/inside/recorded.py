"""What a file's layers gave of drawn values when it was proven, in `reference.npz`.

Of a plan and a precision: `inside_x0_5.int8.values` is JSON in UTF-8 (`Listing`), of which values of the file are given, as
what, and which are compared; `.sketches` float32 [values, 2, 64] and `.scales` [values, 64] are what `drawn.sketch` makes of
them; `.moved` [values, 2] is how far roundings that were tried out moved these, next to the scales.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.inside.drawn import BUCKETS, drawn
from slimexport.target.inside.pieces import FLOAT, Place
from slimexport.target.records import Count, EntryError, Magnitude, Positive, Record, Within, from_json, to_json
from slimexport.target.reference import INSIDE, MOST_INSIDE
from slimtrain.base.untrusted.json_text import JsonError, parse_json

MOST_VALUES = MOST_INSIDE // (2 * BUCKETS)
MOST_SIZES = 8  # of a shape
MOST_NUMBERS = 1 << 26  # of one value
LARGEST = 1e30  # of a value's middle and spread
COPIES, SPARE = 4, 1 << 20  # numbers of all values: as many as layers give of all images, and some more
KINDS = {FLOAT: "float32", 10: "float16", 16: "bfloat16"}
PARTS = SKETCHES, SCALES, MOVED = "sketches", "scales", "moved"


@dataclass(frozen=True, kw_only=True)
class Value(Record):
    """A value of a file, by its `name`, and its `shape` of as many images as there are. `kind`: of its numbers, as ONNX counts
    types. One with a `spread` is given, as numbers drawn around the `middle`; without, it is only `compared`."""

    name: Annotated[str, Within(1, 1000)]
    shape: tuple[Positive, ...]
    kind: Annotated[int, Within(1, 16)] = FLOAT
    middle: Annotated[float, Within(-LARGEST, LARGEST)] = 0.0
    spread: Magnitude | None = None
    compared: bool = True

    @property
    def place(self) -> Place:
        return Place(self.name, self.shape, self.kind)

    def numbers(self, seed: int) -> Array:
        """What is given for it, float32."""
        assert self.spread is not None
        values = drawn(seed, self.name, self.shape)
        values *= np.float32(self.spread)
        values += np.float32(self.middle)
        return values


@dataclass(frozen=True, kw_only=True)
class Listing(Record):
    """The `seed` that numbers are drawn with, so many `images` of the reference, and the values that are given or compared."""

    seed: Count
    images: Positive
    values: tuple[Value, ...]

    @property
    def numbers(self) -> int:
        """Of all values."""
        return sum(value.place.size for value in self.values)

    @property
    def given(self) -> list[Value]:
        return [value for value in self.values if value.spread is not None]

    @property
    def compared(self) -> list[Value]:
        return [value for value in self.values if value.compared]


@dataclass(frozen=True)
class Inside:
    """What is known of the compared values of a `listing`: float32 `sketches` [values, 2, BUCKETS], `scales` of their numbers
    [values, BUCKETS], and by how much of these roundings moved them (`moved` [values, 2])."""

    listing: Listing
    sketches: Array
    scales: Array
    moved: Array

    def arrays(self, plan: str, precision: str) -> Iterator[tuple[str, Array]]:
        """As `reference.npz` has them."""
        key = inside_key(plan, precision)
        text = json.dumps(to_json(self.listing), separators=(",", ":")).encode()
        yield f"{key}.values", np.frombuffer(text, np.uint8)
        for part in PARTS:
            yield f"{key}.{part}", np.asarray(getattr(self, part), np.float32)


def inside_key(plan: str, precision: str) -> str:
    return f"{INSIDE}{plan}.{precision}"


def most_numbers(activations: int | None, images: int) -> int:
    """How many numbers all values have at the most, of a file whose layers give so many of an image."""
    return COPIES * images * (activations or 0) + SPARE


def inside_in(
    reference: Mapping[str, Array], plan: str, precision: str, images: int, activations: int | None
) -> Inside | None:
    """That of a plan's file, whose layers give so many numbers (`activations`) of an image, in a bundle of so many `images`;
    None where there is none. ValueError for what cannot be."""
    key = inside_key(plan, precision)
    text = reference.get(f"{key}.values")
    if text is None:
        return None
    try:
        if text.dtype != np.uint8 or text.ndim != 1:
            raise EntryError(f"{text.dtype} {list(text.shape)}, expected bytes")
        listing = from_json(Listing, parse_json(text.tobytes().decode(), "the list"))
        _check(listing, images, activations)
    except (UnicodeDecodeError, JsonError, EntryError) as error:
        raise ValueError(f"its {key}.values: {error}") from error
    count = len(listing.compared)
    shapes = {SKETCHES: (count, 2, BUCKETS), SCALES: (count, BUCKETS), MOVED: (count, 2)}
    parts = {part: reference.get(f"{key}.{part}", np.empty(0)) for part in PARTS}
    for part, shape in shapes.items():
        values = parts[part]
        if values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ValueError(
                f"its {key}.{part} are {values.dtype} {list(values.shape)}, expected finite float32 {list(shape)}"
            )
    return Inside(listing, **parts)


def _check(listing: Listing, images: int, activations: int | None) -> None:
    """EntryError where values are too many, too large, or of no type."""
    if listing.images > images:
        raise EntryError(f"of {listing.images:,} images, expected at most {images:,}")
    most = most_numbers(activations, listing.images)
    if not listing.compared or len(listing.values) > MOST_VALUES or listing.numbers > most:
        raise EntryError(
            f"{len(listing.values):,} values of {listing.numbers:,} numbers, expected 1 to {MOST_VALUES:,}, "
            f"and at most {most:,}"
        )
    if many := next((value for value in listing.values if len(value.shape) > MOST_SIZES), None):
        raise EntryError(f"a value of {len(many.shape):,} dimensions, expected at most {MOST_SIZES}")
    if large := next((value for value in listing.values if value.place.size > MOST_NUMBERS), None):
        raise EntryError(f"a value of {large.place.size:,} numbers, expected at most {MOST_NUMBERS:,}")
    if other := next((value.kind for value in listing.values if value.kind not in KINDS), None):
        raise EntryError(f"a value of type {other}, expected {', '.join(map(str, KINDS))}")
    if len({value.name for value in listing.values}) < len(listing.values):
        raise EntryError("a value is there twice")
