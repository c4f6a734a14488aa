"""A file's layers, one by one, held against what they gave when the file was proven.

What a network gives at its end says little of a single wrong number in it: networks of fewer bits magnify roundings, which
hide it, and a detector may hardly use what is wrong. So the file is cut, in memory, behind every layer with weights, and in
the place of what layers give, numbers are put that are drawn alike everywhere. Then nothing is magnified: what a layer gives
is off by its own roundings alone, whatever is wrong with it shows, and what chooses boxes gets the same numbers on every
machine, so that it chooses the same ones. This is beside what the file gives as a whole, which a runtime fuses otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import CUDA
from slimexport.target.errors import BundleError
from slimexport.target.inside.drawn import BUCKETS, off_by, sketch
from slimexport.target.inside.pieces import FLOAT, Malformed, NotThere, Piece, Pieces, Place
from slimexport.target.inside.recorded import Inside, Listing, Value
from slimexport.target.precision import Precision
from slimexport.target.proof.comparing import finite
from slimexport.target.runners import FileRunner, OpenRunner, Runner
from slimexport.target.verification import FAILED, Verification

log = logging.getLogger(__name__)

MOST_AT_ONCE, MOST_TAKEN = 1 << 24, 1 << 27  # numbers that a piece is to give, and may take
LEEWAY = 4.0  # times what roundings that were tried out moved
# What sums of a layer may be off by, next to how large its numbers are, by what is multiplied: at least, and at most. In int8
# at least what one number does that is rounded the other way, of the eight that a channel of small images has.
LIMITS = {"float32": (1e-3, 2e-2), "float16": (1e-2, 0.1), "bfloat16": (8e-2, 0.3), "int8": (8e-2, 0.3)}


@dataclass(frozen=True)
class Source:
    """A file's `content`, the name of its `input`, what opens pieces of it (`opened`), and whether all numbers in it are
    float32, as in a file that stands in for one of other numbers (`single`)."""

    content: bytes
    input: str
    opened: Callable[[bytes], OpenRunner]
    single: bool = False


@dataclass(frozen=True)
class Feed:
    """What pieces are run on: the `images`, which are a file's input, and what comes of numbers that are drawn for a value."""

    images: Array
    changed: Callable[[Value, Array], Array]


def source_of(runner: Runner) -> Source | None:
    """What an open file is cut out of; None in a backend that opens no other."""
    if not isinstance(runner, FileRunner):
        return None
    return Source(runner.content, runner.input, runner.opened, runner.stands_in)


def limits_of(row: Precision, moved: Array) -> Array:
    """What each value may be off by [values, 2], where roundings `moved` it that far: what is recorded only widens that to a
    point."""
    least, most = LIMITS[row.number]
    return np.clip(LEEWAY * moved.astype(np.float64), least, most)


def sketches(source: Source, listing: Listing, feeds: Sequence[Feed]) -> list[tuple[Array, Array]]:
    """What the pieces of a file give of these feeds: sketches [values, 2, BUCKETS] and their scales [values, BUCKETS], NaN of
    what has another shape. NotThere, Malformed, BundleError."""
    pieces, compared = Pieces(source.content), listing.compared
    images = feeds[0].images
    places = [Place(source.input, images.shape), *(_typed(value.place, source.single) for value in listing.given)]
    given = {value.name: value for value in listing.given}
    count = len(compared)
    sketched = [(np.full((count, 2, BUCKETS), np.nan), np.full((count, BUCKETS), np.nan)) for _ in feeds]
    at = 0
    for group in _groups(compared):
        piece = pieces.between(places, [value.name for value in group])
        if (taken := sum(place.size for place in piece.takes)) > MOST_TAKEN:
            raise BundleError(f"a piece takes {taken:,} numbers, expected at most {MOST_TAKEN:,}")
        runner = source.opened(piece.content)
        numbers = {place.name: given[place.name].numbers(listing.seed) for place in piece.takes if place.name in given}
        try:
            for feed, (sums, scales) in zip(feeds, sketched, strict=True):
                outputs = outputs_of(runner, _row(piece, feed, given, numbers))
                for place, (value, output) in enumerate(zip(group, outputs, strict=True), at):
                    if output.shape == value.shape:
                        sums[place], scales[place] = sketch(listing.seed, value.name, output)
        finally:
            runner.close()
        at += len(group)
    return sketched


def _row(piece: Piece, feed: Feed, given: Mapping[str, Value], numbers: Mapping[str, Array]) -> Array:
    """A piece's input, of the `numbers` that are drawn for the values in it."""
    row = np.empty((1, sum(place.size for place in piece.takes)), np.float32)
    start = 0
    for place in piece.takes:
        part = feed.changed(given[place.name], numbers[place.name]) if place.name in given else feed.images
        row[0, start : start + place.size] = part.reshape(-1)
        start += place.size
    return row


def held_to_inside(source: Source, inside: Inside, images: Array, row: Precision, check: Verification) -> Verification:
    """A verification that passed, once every layer also gives, of drawn values and of the first `images`, what it gave when
    the file was proven."""
    listing = inside.listing
    try:
        feed = Feed(images[: listing.images], lambda _, numbers: numbers)
        ((given, _),) = sketches(source, listing, [feed])
    except NotThere as error:
        return replace(check, status=FAILED, reason=f"it has no value {str(error)!r}, which it had when it was proven: {WHY}")
    except (Malformed, BundleError) as error:
        if check.backend == CUDA:  # where kernels may lack for a piece by itself: no GPU has tried it
            log.info("its layers are not run one by one in %s (%s)", CUDA, error)
            return check
        return replace(check, status=FAILED, reason=f"its layers do not run one by one ({error}): {WHY}")
    off = np.array([off_by(*sums) for sums in zip(given, inside.sketches, inside.scales, strict=True)])
    shares = (off / limits_of(row, inside.moved)).max(1)
    worst = int(np.nan_to_num(shares, posinf=np.finfo(np.float64).max).argmax())
    held = replace(check, inside=len(shares), inside_error=finite(float(shares[worst])))
    if shares[worst] <= 1:
        return held
    reason = (
        f"inside it, of drawn numbers, {listing.compared[worst].name} is another one than when it was proven, off by "
        f"{shares[worst]:.3g} times what is permitted: {WHY}"
    )
    return replace(held, status=FAILED, reason=reason)


WHY = "the file was changed, or this runtime computes it wrongly"


def _typed(place: Place, single: bool) -> Place:
    return replace(place, kind=FLOAT) if single else place


def _groups(values: Sequence[Value]) -> Iterator[list[Value]]:
    """Values that one piece is to give."""
    group: list[Value] = []
    count = 0
    for value in values:
        if group and count + value.place.size > MOST_AT_ONCE:
            yield group
            group, count = [], 0
        group.append(value)
        count += value.place.size
    if group:
        yield group


def outputs_of(runner: Runner, row: Array) -> list[Array]:
    """What a piece gives, in its order."""
    given = runner(row)
    return [np.asarray(output) for output in given.values()] if isinstance(given, dict) else [np.asarray(given)]
