"""What a file of fewer bits gives, and how far that moves where roundings fall otherwise.

Another machine adds in another order, fuses other operators, and so rounds a value now and then the other way. Both are tried
out here: the file run operator by operator, and on images whose last bits are others. What that moves a device may be off too
(`target/proof/own_outputs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from slimexport.onnx_files.runner import cpu_session, onnx_runner
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.onnx_scan import check_onnx
from slimexport.target.precision import Precision, row_of
from slimexport.target.proof.comparing import Pair, compare_all
from slimexport.target.proof.own_outputs import LEEWAY, Shares, by_images, own_tolerance, shares_of
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.proof.running import outputs_of
from slimexport.target.reference import Expected, Own, Probes, own_batches
from slimexport.target.runners import Given, Runner, alone, runs_on_cpu
from slimexport.target.verification import OwnShares

# What each number of an image is nudged by, of itself: what rounding does to it in the numbers around the file's integers;
# with float32 around them enough that some values round the other way.
NUDGES = {"fp16": 2**-11, "bf16": 2**-8, "int8-fp16": 2**-11}
USUAL_NUDGE = 1e-4
DRAWS, DRAWS_OF_SHARES = 2, 6
MOST_SHARE = 1e6  # of what is recorded: where others move nothing
SEED = 4
# What runs a recurrent layer in fewer bits adds up in these, step by step: on an H200 cuDNN's fp16 LSTM moved what two files
# give by 0.0044 of the scale, where none of what is tried out here, which adds in float32, moved them by 0.0008.
RECURRENT = {"LSTM", "GRU", "RNN"}


@dataclass(frozen=True)
class Steadiness:
    """A file's `own` outputs; how far, of the scale of all or of the probe images alone, roundings `moved` them at the most
    (infinity where something is not finite), what is permitted elsewhere for that (`tolerance`), and what one of them did next
    to the others (`shares`); the `runtime` that gives the same ones each time, if it does."""

    own: Own
    moved: float
    tolerance: float
    shares: OwnShares
    runtime: str | None


def steadiness(path: Path, precision: str, probes: Probes, more: Array) -> Steadiness:
    """What a file gives of the probe images, all at once, and of `more` [M, ...], with the places that the reference tells."""
    images = np.concatenate([probes.images, more.astype(np.float32)])
    batches = own_batches(len(images), len(probes.images))
    runner = onnx_runner(path, precision)
    given = outputs_of(runner, images, probes.expected, batches)
    own = tuple(Expected(part.name, values, part.places) for part, values in zip(probes.expected, given, strict=True))
    others = nearly_the_same(path, precision, runner, images, own, batches, DRAWS_OF_SHARES)
    tried = [[Pair(part.name, values, part.values) for part, values in zip(own, outputs, strict=True)] for outputs in others]
    share = len(probes.images) / len(images)
    of_probes = [[_first(pair, share) for pair in pairs] for pairs in tried]
    errors = [compare_all(pairs).max_rel_error for pairs in (*tried, *of_probes)]
    moved = max(float(np.nan_to_num(error, nan=np.inf)) for error in errors)
    by_image = tuple(_moved([pairs[place] for pairs in tried], len(images)) for place in range(len(own)))
    runtime = own_runtime(runner.backend)
    if runtime is not None:
        again = outputs_of(onnx_runner(path, precision), images, own, batches)
        runtime = runtime if all(map(np.array_equal, again, given)) else None
    row = row_of(precision)
    if adds_in_fewer_bits(path, row):
        moved = max(moved, row.proof.tolerance / LEEWAY)
        by_image = tuple(np.maximum(of_one, np.float32(row.steady[0])) for of_one in by_image)
    kept = Own(images, len(probes.images), own, by_image)
    tolerance = own_tolerance(row, moved, kept.probes)
    return Steadiness(kept, moved, tolerance, _shares(tried, len(images), row, tolerance), runtime)


def adds_in_fewer_bits(path: Path, row: Precision) -> bool:
    """Whether a file has recurrent layers in numbers that others than this machine's CPU add up in."""
    return row.number in ("float16", "bfloat16") and bool(RECURRENT & check_onnx(path).operators)


def nearly_the_same(
    path: Path,
    precision: str,
    runner: Runner,
    images: Array,
    like: Sequence[Expected],
    batches: Sequence[Array],
    draws: int = DRAWS,
) -> list[list[Array]]:
    """What a file gives where roundings fall otherwise: run operator by operator, and of images whose last bits are others, as
    often as there are `draws`."""
    model = onnx.load(path)
    session = cpu_session(model if runs_on_cpu(precision) else cast_twin(model), as_written=True)
    names = [output.name for output in session.get_outputs()]

    def as_written(images: Array) -> Given:
        return alone(dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True)))

    draw = np.random.default_rng(SEED)
    nudge = NUDGES.get(precision, USUAL_NUDGE)
    others = [outputs_of(as_written, images, like, batches)]
    for _ in range(draws):
        nudged = (images * (1 + nudge * draw.standard_normal(images.shape))).astype(np.float32)
        others.append(outputs_of(runner, nudged, like, batches))
    return others


def _shares(tried: list[list[Pair]], images: int, row: Precision, permitted: float) -> OwnShares:
    """What one of several does at the most next to all others."""
    largest = np.zeros(len(Shares._fields))
    for place, pair in enumerate(tried[0]):
        if pair.expected.dtype.kind != "f":
            continue
        for number, pairs in enumerate(tried):
            others = [other[place] for other in (*tried[:number], *tried[number + 1 :])]
            with np.errstate(over="ignore", invalid="ignore"):
                own = shares_of(pairs[place], _moved(others, images), row, permitted)
            largest = np.maximum(largest, np.nan_to_num(own, nan=MOST_SHARE))
    usual, of_one, in_common = np.minimum(largest, MOST_SHARE).tolist()
    return OwnShares(usual=usual, of_one=of_one, in_common=in_common)


def _first(pair: Pair, share: float) -> Pair:
    """The probe images' part of an output: they are run apart, too, and their scale may be smaller than that of all."""
    rows = round(share * len(pair.expected))
    return Pair(pair.name, pair.output[:rows], pair.expected[:rows])


def _moved(tried: list[Pair], images: int) -> Array:
    """How far each image is moved at the most, as a root mean square [images]; not at all in whole numbers."""
    if tried[0].expected.dtype.kind != "f":
        return np.zeros(images, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = [np.sqrt(np.square(by_images(pair, images)).mean(1)) for pair in tried]
    return np.nan_to_num(np.max(sizes, axis=0), nan=1.0, posinf=1.0).astype(np.float32)
