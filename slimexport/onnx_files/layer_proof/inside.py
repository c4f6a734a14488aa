"""What a file's layers give of drawn values, one by one, when it is proven: `target/proof/inside.py` holds files to it.

What is drawn for a layer is as large as what it gives of the probe images. How far roundings move what layers give then is
tried out on numbers whose last bits are others; what they move by more than is permitted to anything is not compared, and
numbers are drawn anew where that helps, as where what chooses boxes hangs on last bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from slimexport.onnx_files.layer_proof.steadiness import NUDGES, USUAL_NUDGE
from slimexport.onnx_files.runner import source_in
from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.inside.drawn import off_by
from slimexport.target.inside.pieces import FLOAT, Piece, Pieces, Place
from slimexport.target.inside.recorded import KINDS, LARGEST, MOST_SIZES, MOST_VALUES, Inside, Listing, Value, inside_in
from slimexport.target.manifest import Artifact
from slimexport.target.precision import EXACT, row_of
from slimexport.target.proof.inside import LEEWAY, LIMITS, Feed, Source, outputs_of, sketches
from slimexport.target.reference import MOST_INSIDE
from slimexport.target.verification import Verification

log = logging.getLogger(__name__)

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")  # behind which a file is cut
CHOOSING = ("TopK", "NonMaxSuppression")
MOVING = ("Transpose", "Reshape", "Flatten", "Concat", "Slice", "Squeeze", "Unsqueeze", "Identity")
THROUGH = ("DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity")  # from a stored tensor to a layer's weights
# What drawn numbers are nudged by, of themselves, in float32 alone: more than sums in another order do; and what is chosen
# among them is to be the same with numbers that are nudged by more.
NUDGE_OF_EXACT, STEADY_NUDGE = 1e-5, 1e-4
TRIES, DRAWS = 6, 2
SEED = 5
NOISE = 65_521  # numbers that are drawn to nudge with, again and again: no size is a multiple of it
SMALL = 1 << 17  # numbers of all images that are run, about
MOST_IMAGES, MOST_OF_CHOOSING = 8, 2  # the second of networks that choose among what they compute
NATURAL, LARGER = 1 << 27, 6  # numbers that are looked at together; what layers give next to their image, about
WIDE = 1 << 24  # numbers that are summed as float64
LEAST_SIZE = 2**-10  # of numbers that are compared in fewer bits: of smaller ones, some runtimes keep few bits, or none
LONGEST = 1000  # letters of a name


def with_inside(path: Path, plan: str, artifact: Artifact, images: Array) -> tuple[Verification, dict[str, Array]]:
    """The verification of a file that was proven, which tells how many values inside it are recorded, and the entries of
    `reference.npz` that tell them."""
    inside = record_inside(path, artifact.precision, images)
    if inside is None:
        return artifact.verification, {}
    arrays = dict(inside.arrays(plan, artifact.precision))
    try:
        if (largest := max(array.size for array in arrays.values())) > MOST_INSIDE:
            raise ValueError(f"it takes {largest:,} numbers, expected at most {MOST_INSIDE:,}")
        inside_in(arrays, plan, artifact.precision, len(images), artifact.activations)
    except ValueError as error:  # a bundle that nobody reads is worse than one that tells less
        log.info("%s: its layers are not recorded one by one (%s)", path.name, error)
        return artifact.verification, {}
    return replace(artifact.verification, inside=len(inside.sketches)), arrays


def record_inside(path: Path, precision: str, images: Array) -> Inside | None:
    """What the layers of the file at `path` give of drawn values, and of the first of the `images`; None where it does not
    run in pieces, or where they are too large."""
    source, model = source_in(path, precision), onnx.load(path)
    images = images[: min(images_of(images[0].size), MOST_OF_CHOOSING if _chooses(model) else MOST_IMAGES)]
    try:
        listing = _listing(model, source, images)
        return None if listing is None else _steadiest(source, listing, images, precision, _ranked(model))
    except (BundleError, ValueError) as error:  # such as indices that are computed, and point beyond their table
        log.info("%s: its layers are not recorded one by one (%s)", path.name, error)
        return None


def images_of(size: int) -> int:
    """How many images of so many numbers are run: deep layers of small ones have few numbers, which hide less together."""
    return min(max(SMALL // size, 1), MOST_IMAGES)


def _listing(model: onnx.ModelProto, source: Source, images: Array) -> Listing | None:
    """The values of a model that are given and compared, as they are of the `images`; None where they are too many."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    outputs = [output.name for output in model.graph.output]
    layers, ends = (
        [name for name in names if name in outputs or (kinds.get(name) in KINDS and len(name) <= LONGEST)]
        for names in (_layers(model, outputs), [*_branches(model, outputs), *outputs])
    )
    most = max(1, NATURAL // (images.size * LARGER))
    values, pieces = [], Pieces(source.content)
    for start in range(0, len(names := [*layers, *ends]), most):
        group = names[start : start + most]
        piece = pieces.between([Place(source.input, images.shape)], group)
        for name, given in zip(group, _given(source, piece, images), strict=True):
            middle, spread = _size(given)
            if name in ends:
                values.append(Value(name=name, shape=given.shape))
            elif 0 < spread <= LARGEST and abs(middle) <= LARGEST:
                values.append(Value(name=name, shape=given.shape, kind=kinds[name], middle=middle, spread=spread))
    values = [value for value in values if value.place.size and len(value.shape) <= MOST_SIZES]
    return Listing(seed=0, images=len(images), values=tuple(values)) if 1 <= len(values) <= MOST_VALUES else None


def _given(source: Source, piece: Piece, images: Array) -> list[Array]:
    runner = source.opened(piece.content)
    try:
        return outputs_of(runner, images.reshape(1, -1))
    finally:
        runner.close()


def _branches(model: onnx.ModelProto, outputs: Sequence[str]) -> list[str]:
    """What is put together, in networks that choose among it, and regions of maps: what is not chosen hardly shows behind."""
    if not _chooses(model):
        return []
    written = {name for node in model.graph.node for name in node.output}
    layers, names = set(_layers(model, outputs)), list[str]()
    for node in model.graph.node:
        names += node.input if node.op_type == "Concat" else node.output if node.op_type == "RoiAlign" else []
    return [name for name in dict.fromkeys(names) if name in written - layers and name not in outputs]


def _ranked(model: onnx.ModelProto) -> frozenset[str]:
    """The values that are put in order as they are, without arithmetic: on every machine that is the same order."""
    origins: dict[str, set[str]] = {}
    ranked = set[str]()
    for node in model.graph.node:
        reads = set().union(*(origins.get(name, {name}) for name in node.input))
        if node.op_type in MOVING:
            origins.update(dict.fromkeys(node.output, reads))
        elif node.op_type == "TopK":
            ranked |= reads
    return frozenset(ranked)


def _chooses(model: onnx.ModelProto) -> bool:
    return any(node.op_type in CHOOSING for node in model.graph.node)


def _layers(model: onnx.ModelProto, outputs: Sequence[str]) -> list[str]:
    """What layers with stored weights give to others."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type in THROUGH and node.input[0] in stored:
            stored.update(node.output)
        elif node.op_type in LAYERS and stored.intersection(node.input) and node.output[0]:
            names.append(node.output[0])
    return [name for name in names if name not in outputs]


def _size(values: Array) -> tuple[float, float]:
    """Mean and standard deviation, as float32 has them; 0 of what is not finite."""
    wide = values.astype(np.float64) if values.size <= WIDE else values
    with np.errstate(over="ignore", invalid="ignore"):
        middle, spread = (float(np.float32(figure)) for figure in (wide.mean(), wide.std())) if values.size else (0.0, 0.0)
    return (middle, spread) if np.isfinite(middle) and np.isfinite(spread) else (0.0, 0.0)


def _steadiest(source: Source, listing: Listing, images: Array, precision: str, ranked: frozenset[str]) -> Inside | None:
    """What is given of those drawn numbers with which roundings move the fewest values by much: drawn anew as long as that is
    one that the file gives at its end."""
    tried: list[Inside] = []
    while len(tried) < TRIES and not (tried and all(value.compared for value in tried[-1].listing.values if not value.spread)):
        tried.append(_tried(source, replace(listing, seed=len(tried)), images, precision, ranked))
    best = max(tried, key=lambda one: len(one.sketches))
    return best if len(best.sketches) else None


def _tried(source: Source, listing: Listing, images: Array, precision: str, ranked: frozenset[str]) -> Inside:
    """What is given of numbers that are drawn with one seed."""
    row = row_of(precision)
    exact, (_, most) = row.name == EXACT, LIMITS[row.number]
    nudges = [NUDGE_OF_EXACT, STEADY_NUDGE] if exact else [NUDGES.get(precision, USUAL_NUDGE)]
    feeds = [Feed(images, lambda _, numbers: numbers)]
    for nudge in nudges:
        for number in range(DRAWS):
            nudged = _Nudged(nudge, np.random.default_rng([SEED, number]).standard_normal(NOISE, np.float32), ranked)
            feeds.append(Feed(nudged.of_images(images), nudged))
    (sums, scales), *others = sketches(source, listing, feeds)
    off = np.array([[off_by(*trio) for trio in zip(other, sums, scales, strict=True)] for other, _ in others])
    moved = off[:DRAWS].max(0)
    steady = (LEEWAY * off.max((0, 2)) <= most) & np.isfinite(scales).all(1)
    steady &= scales.max(1) > (0 if exact else LEAST_SIZE)
    values = tuple(replace(value, compared=bool(same)) for value, same in zip(listing.values, steady, strict=True))
    parts = [np.asarray(part[steady], np.float32) for part in (sums, scales, moved)]
    return Inside(replace(listing, values=values), *parts)


@dataclass(frozen=True)
class _Nudged:
    """Drawn values whose last bits are others: of float32 numbers by no more than USUAL_NUDGE, of what is `ranked` alike."""

    nudge: float
    noise: Array
    ranked: frozenset[str]

    def __call__(self, value: Value, numbers: Array) -> Array:
        nudge = min(self.nudge, USUAL_NUDGE) if value.kind == FLOAT else self.nudge
        if value.name in self.ranked:
            return np.asarray(numbers * np.float32(1 + nudge))
        return self.by(numbers, nudge)

    def of_images(self, images: Array) -> Array:
        return self.by(images, self.nudge)

    def by(self, numbers: Array, nudge: float) -> Array:
        """Numbers that are off by so much of themselves, one more, another less."""
        return np.asarray(numbers * np.resize(1 + np.float32(nudge) * self.noise, numbers.shape))
