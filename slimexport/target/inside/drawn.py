"""Values that are drawn alike on every machine, and sums of a layer's numbers that tell what it is off by.

Drawn from the raw numbers of a PCG64, which numpy promises to stay, with nothing but additions and products that have one
result. A layer's numbers [N, C, ...] are summed by channel, up to BUCKETS of them: as a mean, which averages roundings away
and shows what is off everywhere, and with drawn weights, which show what is off here and there. Of noise both sums are no
larger than the noise, so that one limit is for all sizes.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from slimexport.target.arrays import Array

BUCKETS = 64
MEANS, WEIGHTED = 0, 1  # of a sketch
MOST_SHARP = 64  # so many times as noise a mean's square counts: what rounds all numbers alike is no noise
LEAST_SCALE = 1e-2  # of a bucket, next to all of them: what is cut off at 0 is off by roundings of what is not
FEW = 8  # numbers of a bucket, of which some are near 0 by chance: then all of them are what it is next to
BLOCK = 1 << 20  # numbers that are drawn at once


def drawn(seed: int, name: str, shape: tuple[int, ...]) -> Array:
    """Float32 numbers around 0, whose mean square is 1, at most sqrt(6) large, most small; of a `name`'s own."""
    bits, values = np.random.PCG64([seed, zlib.crc32(name.encode())]), np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK]
        raw = np.asarray(bits.random_raw(len(part)), np.uint64)
        halves = (raw >> np.uint64(32)) + (raw & np.uint64(0xFFFFFFFF))
        part[:] = (halves / np.float64(2**32) - 1) * math.sqrt(6)
    return values.reshape(shape)


def sketch(seed: int, name: str, values: Array) -> tuple[Array, Array]:
    """Of values [N, C, ...], or of a row of them: their sums, means and weighted [2, BUCKETS], and how large the numbers of a
    bucket are, as a root mean square [BUCKETS], of one with few numbers no less than those of all. What has fewer channels has
    zeros. NaN where a number is not finite."""
    rows = values.reshape(1, -1, 1) if values.ndim < 2 else values.reshape(*values.shape[:2], -1)
    images, channels, places = rows.shape
    of_image, of_place = _unit(seed, f"{name}/images", images), _unit(seed, f"{name}/places", places)
    of_places = np.stack([np.ones(places), of_place], 1).astype(np.float32)
    sums, weighted, squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    with np.errstate(over="ignore", invalid="ignore"):
        for row, weight in zip(rows.astype(np.float32, copy=False), of_image, strict=True):
            both = row @ of_places
            sums += both[:, 0]
            weighted += weight * both[:, 1]
            squares += np.einsum("cp,cp->c", row, row)
    count = max(1, images * places)
    means = sums / count * math.sqrt(min(count, MOST_SHARP))
    signs = drawn(seed, f"{name}/channels", (channels,)).astype(np.float64)
    of_channel = np.where(signs < 0, -1.0, 1.0) * (0.5 + np.abs(signs) / (2 * math.sqrt(6)))
    sizes = np.sqrt(_bucketed(np.square(of_channel)))
    sizes[sizes == 0] = 1
    sketched = np.stack([_bucketed(of_channel * means), _bucketed(of_channel * weighted)]) / sizes
    scales = np.sqrt(_bucketed(np.square(of_channel) * squares / count)) / sizes
    used = min(channels, BUCKETS)
    share = max(LEAST_SCALE, min(1.0, FEW / (count * math.ceil(channels / BUCKETS)))) if channels else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        scales[:used] = np.maximum(scales[:used], share * np.sqrt(np.square(scales[:used]).mean())) if used else 0.0
    return sketched, scales


def off_by(given: Array, expected: Array, scales: Array) -> Array:
    """How far a sketch [2, BUCKETS] is off another, next to the `scales` [BUCKETS]: the largest of means and of weighted sums
    [2]. Infinity where a number is not finite."""
    sizes = scales.astype(np.float64)
    least = max(LEAST_SCALE * float(np.sqrt(np.square(sizes).mean())), float(np.finfo(np.float32).tiny))
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(given.astype(np.float64) - expected) / np.maximum(sizes, least)
    return np.asarray(np.nan_to_num(errors, nan=np.inf, posinf=np.inf).max(1))


def _unit(seed: int, name: str, count: int) -> Array:
    """Weights of which the squares add up to 1."""
    weights = drawn(seed, name, (count,)).astype(np.float64)
    return weights / max(float(np.linalg.norm(weights)), float(np.finfo(np.float32).tiny))


def _bucketed(values: Array) -> Array:
    """Sums of channels whose number leaves the same rest."""
    buckets = np.zeros(BUCKETS)
    np.add.at(buckets, np.arange(len(values)) % BUCKETS, values)
    return buckets
