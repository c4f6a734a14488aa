"""Int8 calibration: images in, scales of a network's activations out.

Scales are measured on most of the images; the others judge which way of taking ranges serves a network better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from slimexport.onnx_files.methods import AUTO, INT8_IMAGES, METHODS
from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.onnx_files.ranges import activation_scales, measure_ranges
from slimexport.onnx_files.runner import run_batches
from slimexport.target.arrays import Array
from slimexport.target.manifest import Agreement, Int8
from slimtrain.base.errors import UserError
from slimtrain.data.images import Images, Preprocessing, open_source

HELD_BACK = 5  # every fifth image judges the methods


def calibration_batches(
    source: str | Path, preprocessing: Preprocessing, batch_size: int, most: int = INT8_IMAGES
) -> Iterator[Images]:
    """Batches of up to `most` images drawn from `source`: a folder of images, an array file, or `digits`, scikit-learn's
    training digits. Errors as of `open_source`."""
    return open_source(source, preprocessing).batches(batch_size, most, "int8")


@dataclass(frozen=True)
class Calibration:
    """Images [N, 3, S, S] that scales are measured on and those that choose between methods; `method` auto, max or
    percentile."""

    fit: list[Images]
    held: list[Images]
    method: str

    @staticmethod
    def of(batches: Iterable[Images], method: str) -> Calibration:
        """Of all the images, in whose order the classes are to mix. UserError for fewer than two."""
        taken = [image for batch in batches for image in batch]
        if len(taken) < 2:
            raise UserError(f"int8 calibration: {len(taken)} image is too few, expected 2 at the very least, better hundreds.")
        held = taken[::HELD_BACK]
        fit = [image for i, image in enumerate(taken) if i % HELD_BACK]
        return Calibration(_batched(fit), _batched(held), method)

    def choose(self, model: onnx.ModelProto) -> RangeChoice:
        """The scales of `model` (fp32), by the method asked for, or by the better one."""
        return choose_method(model, self.fit, self.held, METHODS if self.method == AUTO else (self.method,))


def _batched(images: list[Images], size: int = 64) -> list[Images]:
    return [np.stack(images[i : i + size]) for i in range(0, len(images), size)]


@dataclass(frozen=True)
class RangeChoice:
    """A calibration method, its activation scales, and how every method that was tried did on held-back images."""

    method: str
    scales: Mapping[str, float]
    tried: Mapping[str, Agreement | None]
    images: int
    held: int

    def described(self) -> Int8:
        """For the manifest."""
        return Int8(method=self.method, images=self.images, held_back=self.held, tried=self.tried)


def choose_method(
    model: onnx.ModelProto,
    images_fit: Iterable[Images],
    images_held: Iterable[Images],
    methods: Sequence[str] = METHODS,
) -> RangeChoice:
    """Calibrate `model` (fp32) on the batches `images_fit` by each of `methods`, and take the one whose int8 logits are
    nearest to the fp32 network's on the batches `images_held`; the first of equals.

    UserError where either has no images, or no method gives finite logits.
    """
    fit, held = list(images_fit), list(images_held)
    if not held:
        raise UserError("no calibration images were held back to compare int8 with fp32 on. Give more of them.")
    ranges = measure_ranges(model, fit, quantized_inputs(model))
    scales = {method: activation_scales(ranges, method) for method in methods}
    reference = run_batches(model, held)
    tried = {method: agreement(run_batches(quantize(model, scales[method]), held), reference) for method in methods}
    distances = {method: result.logit_distance for method, result in tried.items() if result is not None}
    if not distances:
        raise UserError("int8: the logits of held-back calibration images are not finite. Export fp32.")
    best = min(distances, key=lambda method: distances[method])
    return RangeChoice(best, scales[best], tried, sum(map(len, fit)), sum(map(len, held)))


def agreement(logits: Array, reference: Array) -> Agreement | None:
    """Of `logits` with `reference`, both [N, classes]; None where a logit is not finite."""
    outputs, expected = logits.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(outputs).all() and np.isfinite(expected).all()):
        return None
    smallest = np.finfo(np.float64).tiny
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(expected, axis=1)
    return Agreement(
        logit_distance=float(np.sqrt(np.mean((outputs - expected) ** 2)) / max(np.abs(expected).max(), smallest)),
        top1_agreement=float((outputs.argmax(1) == expected.argmax(1)).mean()),
        cosine=float(((outputs * expected).sum(1) / np.maximum(lengths, smallest)).mean()),
    )
