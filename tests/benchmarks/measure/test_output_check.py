"""Outputs held against a bundle's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import Array, WrongOutput
from benchmarks.measure.output_check import Reference, check_output
from slimexport.target.proof.detections import Rules
from slimexport.target.reference import Probes
from tests.support.bench_helpers import PROBES, Behaviour, FakeRunner, Machine, cell, logits_of


def check(precision: str, factor: float, batch: int = 1, tolerance: float | None = None) -> str:
    """The check of outputs that are off by `factor` of their scale, in one place."""

    def logits(images: Array) -> Array:
        outputs = logits_of(images)
        outputs[-1, 0] += factor * np.abs(logits_of(PROBES)).max()
        return outputs

    runner = FakeRunner(Machine(), "a", Behaviour(logits=logits))
    reference = Reference(Probes.of(PROBES, logits_of(PROBES)), tolerance)
    return check_output(runner, cell(precision=precision, batch=batch), reference)


@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp32", 1e-4), ("tf32", 5e-3), ("fp16", 1e-2), ("bf16", 5e-2), ("unheard-of", 1e-4)]
)
@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_each_precision_has_its_tolerance_in_every_place_of_a_batch(precision: str, allowed: float, batch: int) -> None:
    assert check(precision, 0.9 * allowed, batch) == ""
    with pytest.raises(WrongOutput, match="of its scale"):
        check(precision, 1.1 * allowed, batch)


def test_a_recorded_tolerance_counts_as_far_as_verification_would_accept_it() -> None:
    assert check("fp32", 9e-4, tolerance=1e-3) == ""
    with pytest.raises(WrongOutput):
        check("fp32", 1.1e-3, tolerance=1e-3)
    with pytest.raises(WrongOutput):
        check("fp32", 1.1e-2, tolerance=1.0)


def test_the_probes_fill_the_batch() -> None:
    seen: list[Array] = []

    def logits(images: Array) -> Array:
        seen.append(images)
        return logits_of(images)

    runner = FakeRunner(Machine(), "a", Behaviour(logits=logits))
    five = np.random.default_rng(1).standard_normal((5, 3, 4, 4), np.float32)
    assert check_output(runner, cell(batch=3), Reference(Probes.of(five, logits_of(five)))) == ""
    np.testing.assert_array_equal(np.concatenate(seen), five[[0, 1, 2, 3, 4, 0]])
    assert [images.shape for images in seen] == [(3, 3, 4, 4)] * 2
    assert all(images.flags.c_contiguous for images in seen)


def test_of_several_outputs_the_wrong_one_is_named() -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    probes = Probes.of(PROBES, logits_of(PROBES), maps, names=("logits", "maps"))

    def outputs(factor: float) -> FakeRunner:
        def logits(images: Array) -> Array:
            given: Any = {"maps": factor * maps[: len(images)], "logits": logits_of(images)}
            return given

        return FakeRunner(Machine(), "a", Behaviour(logits=logits))

    assert check_output(outputs(1), cell(batch=2), Reference(probes)) == ""
    with pytest.raises(WrongOutput, match="its output maps is off the bundle's reference"):
        check_output(outputs(1.1), cell(batch=2), Reference(probes))
    with pytest.raises(WrongOutput, match="its output maps is not finite"):
        check_output(outputs(float("nan")), cell(batch=2), Reference(probes))


RULES = Rules(score=0.05, nms=0.5, detections=3, side=64.0)


def detections(*, shift: float = 0.0, swapped: bool = False, none: bool = False) -> dict[str, Array]:
    """Of two images, two boxes each and a row that is empty."""
    boxes = np.zeros((2, 3, 4))
    boxes[:, 0], boxes[:, 1] = [1 + shift, 2, 21 + shift, 30], [30, 30, 60, 50]
    scores, labels = np.array([[0.9, 0.4, 0.0]] * 2), np.array([[2, 1, 0] if swapped else [1, 2, 0]] * 2)
    detected = {"boxes": boxes, "scores": scores, "labels": labels, "count": np.array([2, 2])}
    return {name: np.zeros_like(values) for name, values in detected.items()} if none else detected


def checked(given: dict[str, Array], expected: dict[str, Array], batch: int = 2, precision: str = "fp32") -> str:
    def logits(images: Array) -> Array:
        which: Any = [int(np.abs(PROBES - image).sum((1, 2, 3)).argmin()) for image in images]
        rows: Any = {name: values[which] for name, values in given.items()}
        return rows

    runner = FakeRunner(Machine(), "a", Behaviour(logits=logits))
    probes = Probes.of(PROBES[:2], *expected.values(), names=tuple(expected))
    return check_output(runner, cell(precision=precision, batch=batch), Reference(probes, None, RULES))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_detections_are_matched_one_to_one(batch: int) -> None:
    assert checked(detections(shift=1e-3), detections(), batch) == ""  # of 64 px 1e-4 are allowed


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
def test_detections_of_fewer_bits_are_weighed_as_a_whole(precision: str) -> None:
    assert checked(detections(shift=0.5), detections(), precision=precision) == ""
    for wrong in ({"shift": 9.0}, {"swapped": True}, {"none": True}):
        with pytest.raises(WrongOutput, match="are not the bundle's reference's: its detections are like the network's to"):
            checked(detections(**wrong), detections(), precision=precision)
    assert "nothing is detected" in checked(detections(none=True), detections(none=True), precision=precision)


@pytest.mark.parametrize("wrong", [{"shift": 0.1}, {"swapped": True}, {"none": True}])
def test_boxes_elsewhere_other_classes_and_no_boxes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongOutput, match="its detections are not the bundle's reference's"):
        checked(detections(**wrong), detections())


def test_a_reference_without_detections_proves_nothing() -> None:
    assert "nothing is detected in the bundle's probe images" in checked(detections(none=True), detections(none=True))
