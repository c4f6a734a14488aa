"""Int8 calibration: images in, the ranges of a network's activations out, and how they are best taken.

Ranges are measured on most of the images; the others judge which way of taking them serves a network better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from slimexport.onnx_files.integers import integer_values, recorded_integers
from slimexport.onnx_files.methods import AUTO, INT8_IMAGES, METHODS
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.quantize import quantized_inputs, recorded_pairs
from slimexport.onnx_files.ranges import Range, activation_scales, intervals, measure_ranges
from slimexport.onnx_files.runner import run_batches
from slimexport.target.arrays import Array
from slimexport.target.manifest import Agreement, Int8
from slimexport.target.precision import EVERY_TARGET
from slimexport.target.proof.comparing import has_classes
from slimtrain.base.errors import UserError
from slimtrain.data.images import Images, Preprocessing, open_source

_Written = tuple[onnx.ModelProto, Recorded]
HELD_BACK = 5  # every fifth image judges the methods
AT_ONCE, PIXELS_AT_ONCE = 8, 2**20  # images that are run together: 8 up to 362 x 362, one of 800 x 1344


def calibration_batches(
    source: str | Path, preprocessing: Preprocessing, batch_size: int, most: int = INT8_IMAGES
) -> Iterator[Images]:
    """Batches of up to `most` images drawn from `source`: a folder of images, an array file, or `digits`, scikit-learn's
    training digits. Errors as of `open_source`."""
    return open_source(source, preprocessing).batches(batch_size, most, "int8")


@dataclass(frozen=True)
class Calibration:
    """Images [N, channels, H, W] that ranges are measured on and those that choose between methods; `method` auto, max or
    percentile; `weight_bits` of files for CPUs, 8 or 7; `target`: whose files are written, one of INT8_TARGETS."""

    fit: list[Images]
    held: list[Images]
    method: str
    weight_bits: int = 8
    target: str = EVERY_TARGET

    @staticmethod
    def of(batches: Iterable[Images], method: str, weight_bits: int = 8, target: str = EVERY_TARGET) -> Calibration:
        """Of all the images, in whose order the classes are to mix. UserError for fewer than two."""
        taken = [image for batch in batches for image in batch]
        if len(taken) < 2:
            raise UserError(f"int8 calibration: {len(taken)} image is too few, expected 2 at the very least, better hundreds.")
        held = taken[::HELD_BACK]
        fit = [image for i, image in enumerate(taken) if i % HELD_BACK]
        return Calibration(_batched(fit), _batched(held), method, weight_bits, target)

    @property
    def methods(self) -> tuple[str, ...]:
        """Those to choose from."""
        return METHODS if self.method == AUTO else (self.method,)


def _batched(images: list[Images]) -> list[Images]:
    """Small batches: all activations of one are in memory at once."""
    size = max(1, min(AT_ONCE, PIXELS_AT_ONCE // max(1, math.prod(images[0].shape[1:])))) if images else AT_ONCE
    return [np.stack(images[i : i + size]) for i in range(0, len(images), size)]


@dataclass(frozen=True)
class Scheme:
    """A kind of int8 model: `values` of an fp32 model are the activations whose ranges it needs, and `write` makes it of the
    model, these ranges and the method by which they are taken, and tells what was decided."""

    values: Callable[[onnx.ModelProto], list[str]]
    write: Callable[[onnx.ModelProto, Mapping[str, Range], str], _Written]


def _write_symmetric(half: bool, model: onnx.ModelProto, ranges: Mapping[str, Range], method: str) -> _Written:
    scales = activation_scales(ranges, method)
    return recorded_pairs(model, {name: scales[name] for name in quantized_inputs(model)}, half)


def symmetric(half: bool = False) -> Scheme:
    """For TensorRT 8.6; `half`: for 10 and later."""
    return Scheme(quantized_inputs, partial(_write_symmetric, half))


def integers(weight_bits: int) -> Scheme:
    """For CPUs, weights of 8 or 7 bits."""
    return Scheme(
        integer_values, lambda model, ranges, method: recorded_integers(model, intervals(ranges, method), weight_bits)
    )


@dataclass(frozen=True)
class MethodChoice:
    """A calibration method, the `model` that it makes and what was decided, how every method that was tried did on held-back
    images, and the number of images on both sides."""

    method: str
    model: onnx.ModelProto
    recorded: Recorded
    tried: Mapping[str, Agreement | None]
    images: int
    held: int

    def described(self, weight_bits: int) -> Int8:
        """For the manifest."""
        return Int8(method=self.method, images=self.images, held_back=self.held, tried=self.tried, weight_bits=weight_bits)


class Calibrated:
    """A `model` (fp32) with the ranges of all activations that the `schemes` need, measured once on the images of a
    calibration."""

    def __init__(self, model: onnx.ModelProto, calibration: Calibration, schemes: Sequence[Scheme]) -> None:
        """UserError where there are no images, none were held back, or a value is not finite."""
        if not calibration.held:
            raise UserError("no calibration images were held back to compare int8 with fp32 on. Give more of them.")
        self.model, self.calibration = model, calibration
        names = list(dict.fromkeys(name for scheme in schemes for name in scheme.values(model)))
        self.ranges = measure_ranges(model, calibration.fit, names)
        self.reference = run_batches(model, calibration.held)

    def choose(self, scheme: Scheme) -> MethodChoice:
        """The method whose model's logits are nearest to the fp32 network's on the images held back; the first of equals.
        UserError where no method gives finite logits."""
        held = self.calibration.held
        written = {method: scheme.write(self.model, self.ranges, method) for method in self.calibration.methods}
        tried = {method: least_agreement(run_batches(model, held), self.reference) for method, (model, _) in written.items()}
        distances = {method: result.logit_distance for method, result in tried.items() if result is not None}
        if not distances:
            raise UserError("int8: the logits of held-back calibration images are not finite. Export fp32.")
        best = min(distances, key=lambda method: distances[method])
        return MethodChoice(best, *written[best], tried, sum(map(len, self.calibration.fit)), sum(map(len, held)))


def least_agreement(outputs: Sequence[Array], references: Sequence[Array]) -> Agreement | None:
    """The worst figures of all outputs in numbers; None where one is not finite."""
    pairs = zip(outputs, references, strict=True)
    figures = [agreement(output, reference) for output, reference in pairs if reference.dtype.kind == "f"]
    known = [one for one in figures if one is not None]
    if len(known) < len(figures) or not known:
        return None
    return Agreement(
        logit_distance=max(one.logit_distance for one in known),
        top1_agreement=min((one.top1_agreement for one in known if one.top1_agreement is not None), default=None),
        cosine=min(one.cosine for one in known),
    )


def agreement(logits: Array, reference: Array) -> Agreement | None:
    """Of `logits` with `reference`, both [N, classes] or of another shape; None where a number is not finite."""
    outputs, expected = logits.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(outputs).all() and np.isfinite(expected).all()):
        return None
    smallest = np.finfo(np.float64).tiny
    classes = has_classes(expected.shape)
    same = float((outputs.argmax(1) == expected.argmax(1)).mean()) if classes else None
    if expected.ndim != 2:
        outputs, expected = outputs.reshape(len(outputs), -1), expected.reshape(len(expected), -1)
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(expected, axis=1)
    return Agreement(
        logit_distance=float(np.sqrt(np.mean((outputs - expected) ** 2)) / max(np.abs(expected).max(), smallest)),
        top1_agreement=same,
        cosine=float(((outputs * expected).sum(1) / np.maximum(lengths, smallest)).mean()),
    )
