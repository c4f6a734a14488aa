"""What counts as proof: the rules of tolerance, spread, NaN and shape, each from its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.manifest import dump_json
from slimexport.target.precision import Difference, row_of
from slimexport.target.proof import comparing
from slimexport.target.proof.comparing import Pair, compare, compare_all, cosine, has_direction, spread
from slimexport.target.proof.running import run_probes
from slimexport.target.proof.verify import permitted, prove, recorded_tolerance, verdict
from slimexport.target.records import to_json
from slimexport.target.reference import Probes

REFERENCE = np.array([[1.0, -4.0, 2.0], [0.5, 3.0, -1.0]])
Array = NDArray[Any]


class Fake:
    """A runner that gives prepared logits: `alone` at batch 1, else `together`."""

    backend = "fake"

    def __init__(self, alone: Array, together: Array) -> None:
        self.alone, self.together = alone, together
        self.batches: list[int] = []

    def __call__(self, images: Array) -> Array:
        self.batches.append(len(images))
        if len(images) > 1:
            return self.together
        i = int(images[0, 0, 0, 0])
        return self.alone[i : i + 1]


class Fixed:
    """A runner that gives these logits: of all images at once, and of fewer those that come next, again and again."""

    backend = "fixed"

    def __init__(self, logits: Array) -> None:
        self.logits, self.place = logits, 0

    def __call__(self, images: Array) -> Array:
        rows = (self.place + np.arange(len(images))) % len(self.logits)
        self.place = (self.place + len(images)) % len(self.logits)
        return np.asarray(self.logits[rows])


def probes_of(reference: Array) -> Probes:
    return Probes.of(np.zeros((len(reference), 3, 1, 1), np.float32), reference)


def proof_of(precision: str) -> Difference:
    proof = row_of(precision).proof
    assert isinstance(proof, Difference)
    return proof


def images() -> Array:
    return np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1)


# ------------------------------------------------------------------------------------------------------------- error


def test_the_error_is_the_largest_difference_over_the_largest_logit() -> None:
    outputs = REFERENCE.copy()
    outputs[1, 0] += 0.02
    outputs[0, 1] -= 0.01
    comparison = compare(outputs.astype(np.float32), REFERENCE)
    assert comparison.max_rel_error == pytest.approx(0.02 / 4.0, rel=1e-5)
    assert comparison.top1_agreement == 1.0


@pytest.mark.parametrize("place", [0, 7, 8, 20])
def test_of_blocks_the_largest_difference_and_the_largest_number_count(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "BLOCK", 8)
    reference = np.ones((1, 21))
    reference[0, 20 - place] = -5.0
    outputs = reference.copy()
    outputs[0, place] += 0.5
    assert compare(outputs, reference).max_rel_error == pytest.approx(0.1)
    outputs[0, place] = np.nan
    assert np.isnan(compare(outputs, reference).max_rel_error)


def test_the_error_does_not_depend_on_the_logits_scale() -> None:
    for scale in (1e-6, 1.0, 1e6):
        assert compare(1.001 * scale * REFERENCE, scale * REFERENCE).max_rel_error == pytest.approx(1e-3)


def test_float32_outputs_are_compared_in_float64() -> None:
    """1 + 1e-9 and 1 are one number in float32: the reference must not be rounded to it."""
    reference = np.array([[1.0 + 1e-9, 0.0]])
    assert compare(np.array([[1.0, 0.0]], np.float32), reference).max_rel_error == pytest.approx(1e-9, rel=1e-3)


def test_top1_agreement_is_the_share_of_images_with_the_same_largest_logit() -> None:
    outputs = REFERENCE.copy()
    outputs[0] = [0.0, 0.0, 0.0]  # ties go to the first class
    outputs[1] = [0.0, 0.0, 9.0]
    assert compare(outputs, REFERENCE).top1_agreement == 0.0
    outputs[1] = REFERENCE[1]
    assert compare(outputs, REFERENCE).top1_agreement == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_fails(bad: float) -> None:
    outputs = REFERENCE.copy()
    outputs[1, 2] = bad
    result = verdict(compare(outputs, REFERENCE), probes_of(REFERENCE), "x", 1e-2)
    assert result.status == "failed"
    assert result.max_rel_error is None
    dump_json(to_json(result))


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2, 3, 1), (3, 2), (2, 0), (2,)])
def test_another_shape_fails(shape: tuple[int, ...]) -> None:
    result = verdict(compare(np.zeros(shape), REFERENCE), probes_of(REFERENCE), "x", 1e-2)
    assert result.status == "failed"
    assert result.top1_agreement == 0.0
    dump_json(to_json(result))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reference_that_is_not_finite_never_passes_and_its_entry_is_still_json(bad: float) -> None:
    reference = REFERENCE.copy()
    reference[0, 0] = bad
    for outputs in (REFERENCE, reference):
        result = verdict(compare(outputs, reference), probes_of(reference), "x", 1e-2)
        assert result.status != "passed"
        dump_json(to_json(result))


def test_an_error_at_the_tolerance_passes_and_the_next_number_above_fails() -> None:
    error = compare(1.0625 * REFERENCE, REFERENCE)
    assert error.max_rel_error == 0.0625
    assert verdict(error, probes_of(REFERENCE), "x", 0.0625).status == "passed"
    assert verdict(error, probes_of(REFERENCE), "x", np.nextafter(0.0625, 0.0)).status == "failed"


# --------------------------------------------------------------------------------------------------------- tolerance


@pytest.mark.parametrize(
    ("gap", "tolerance"),
    [
        (0.0, 1e-4),
        (1e-6, 1e-4),
        (5e-6, 1e-4),
        (6e-6, 1.2e-4),
        (3e-4, 6e-3),
        (5e-4, 1e-2),
        (3e-3, 1e-2),
        (1.0, 1e-2),
        (float("nan"), 1e-4),
        (float("inf"), 1e-4),
    ],
)
def test_fp32s_tolerance_is_1e_4_or_20_gaps_and_never_above_1e_2(gap: float, tolerance: float) -> None:
    assert permitted(proof_of("fp32"), gap, 1.0) == pytest.approx(tolerance)


@pytest.mark.parametrize(
    ("precision", "gap", "seen", "tolerance"),
    [
        ("fp16", 1e-3, 1.0, 1e-2),
        ("fp16", 1e-2, 1.0, 2e-2),
        ("fp16", 1e-1, 1.0, 5e-2),
        ("bf16", 6e-2, 1.0, 1.2e-1),
        ("bf16", 1.0, 1.0, 2e-1),
        ("bf16", 6e-2, 0.16, 8e-2),  # half of the spread: a file that answers all images alike is off by half of it at least
        ("bf16", 6e-2, 0.01, 5e-2),
        ("tf32", 1.0, 1.0, 5e-3),
        ("fp16", float("nan"), 1.0, 1e-2),
    ],
)
def test_a_tolerance_follows_what_rounding_costs_the_network_itself(
    precision: str, gap: float, seen: float, tolerance: float
) -> None:
    assert permitted(proof_of(precision), gap, seen) == pytest.approx(tolerance)


@pytest.mark.parametrize(
    ("precision", "recorded", "tolerance"),
    [("fp32", None, 1e-4), ("fp32", 5e-3, 5e-3), ("fp32", 0.5, 1e-2), ("tf32", 8e-3, 8e-3), ("bf16", 0.9, 2e-1)],
)
def test_a_manifest_widens_a_tolerance_only_as_far_as_an_export_would(
    precision: str, recorded: float | None, tolerance: float
) -> None:
    assert recorded_tolerance(proof_of(precision), recorded) == tolerance


def test_the_entry_says_when_the_gap_made_the_tolerance() -> None:
    error = compare(1.0005 * REFERENCE, REFERENCE)
    probes, off = Probes.of(np.zeros((len(REFERENCE), 3, 1, 1), np.float32), REFERENCE), Fixed(1.0005 * REFERENCE)
    assert error.max_rel_error == pytest.approx(5e-4)
    wide = prove(off, probes, "fp32", lambda: 5e-5)
    assert (wide.status, wide.tolerance_from, wide.float32_gap, wide.rounding_gap) == ("passed", "float32 gap", 5e-5, None)
    usual = prove(off, probes, "fp32", lambda: 1e-6)
    assert (usual.status, usual.tolerance_from, usual.tolerance) == ("failed", "default", 1e-4)
    rounded = prove(Fixed(1.02 * REFERENCE), probes, "fp16", lambda: 0.011)
    assert (rounded.status, rounded.tolerance_from, rounded.rounding_gap) == ("passed", "rounding gap", 0.011)
    assert rounded.tolerance == pytest.approx(0.022) and rounded.float32_gap is None


def test_what_is_within_its_tolerance_asks_for_no_gap() -> None:
    probes = Probes.of(np.zeros((len(REFERENCE), 3, 1, 1), np.float32), REFERENCE)

    def asked() -> float:
        raise AssertionError("the gap costs a run of the network")

    assert prove(Fixed(REFERENCE), probes, "bf16", asked).passed


def test_logits_of_one_class_are_proven_by_their_difference() -> None:
    reference = np.array([[1.0], [-2.0], [0.5]])
    probes = Probes.of(np.zeros((3, 3, 1, 1), np.float32), reference)
    for factor, status in ((1.1, "passed"), (1.5, "failed"), (float("nan"), "failed")):
        check = prove(Fixed(factor * reference), probes, "int8", lambda: 0.0)
        assert (check.status, check.tolerance, check.tolerance_from) == (status, 0.25, "no direction")
        assert check.least_cosine is None
    constant = prove(Fixed(np.full((3, 1), 1.0)), Probes.of(probes.images, np.full((3, 1), 1.0)), "int8", lambda: 0.0)
    assert constant.status == "unverifiable"


# ------------------------------------------------------------------------------------------------------------ spread


def test_the_spread_is_the_largest_difference_between_images_over_the_scale() -> None:
    assert spread(REFERENCE) == pytest.approx(7.0 / 4.0)  # class 1: from -4 to 3
    assert spread(np.array([[2.0, 1.0], [2.0, 1.1], [2.0, 0.9]])) == pytest.approx(0.1)


def test_logits_that_do_not_depend_on_the_image_have_no_spread() -> None:
    assert spread(np.tile(REFERENCE[0], (5, 1))) == 0.0
    assert spread(np.zeros((2, 3))) == 0.0


@pytest.mark.parametrize(("difference", "status"), [(0.0, "unverifiable"), (0.0099, "unverifiable"), (0.0101, "passed")])
def test_probes_that_a_network_cannot_tell_apart_prove_nothing(difference: float, status: str) -> None:
    reference = np.array([[1.0, 0.5], [1.0, 0.5 + difference]])
    result = verdict(compare(reference, reference), probes_of(reference), "x", 1e-4)
    assert result.status == status
    assert result.spread == pytest.approx(difference)


def test_a_wrong_file_fails_even_where_it_could_not_have_been_proven_right() -> None:
    reference = np.ones((2, 3))
    assert verdict(compare(2 * reference, reference), probes_of(reference), "x", 1e-4).status == "failed"


def test_all_logits_zero_is_unverifiable_and_is_not_reported_as_not_finite() -> None:
    reference = np.zeros((2, 3))
    assert verdict(compare(reference, reference), probes_of(reference), "x", 1e-4).status == "unverifiable"
    wrong = verdict(compare(reference + 1, reference), probes_of(reference), "x", 1e-4)
    assert wrong.status in ("failed", "unverifiable")


# ------------------------------------------------------------------------------------------------------------ probes


def test_each_image_runs_alone_and_all_run_together() -> None:
    runner = Fake(REFERENCE, REFERENCE)
    assert run_probes(runner, Probes.of(images(), REFERENCE)).max_rel_error == 0.0
    assert sorted(runner.batches) == [1, 1, 2]


@pytest.mark.parametrize("wrong", ["alone", "together"])
def test_the_worse_of_both_runs_counts(wrong: str) -> None:
    right = {"alone": REFERENCE, "together": REFERENCE}
    comparison = run_probes(Fake(**{**right, wrong: 1.5 * REFERENCE}), Probes.of(images(), REFERENCE))
    assert comparison.max_rel_error == pytest.approx(0.5)
    swapped = run_probes(Fake(**{**right, wrong: REFERENCE[::-1]}), Probes.of(images(), REFERENCE))
    assert swapped.top1_agreement == 0.0


@pytest.mark.parametrize("wrong", ["alone", "together"])
def test_a_nan_in_one_of_both_runs_fails(wrong: str) -> None:
    outputs = {"alone": REFERENCE, "together": REFERENCE, wrong: REFERENCE * np.nan}
    assert not run_probes(Fake(**outputs), Probes.of(images(), REFERENCE)).within(1e-2)


def test_the_entry_has_what_the_manifest_promises() -> None:
    result = verdict(compare(REFERENCE, REFERENCE), probes_of(REFERENCE), "onnxruntime-cpu", 1e-4)
    assert to_json(result) == {
        "status": "passed",
        "backend": "onnxruntime-cpu",
        "max_rel_error": 0.0,
        "tolerance": 1e-4,
        "tolerance_from": "default",
        "float32_gap": None,
        "top1_agreement": 1.0,
        "probes": 2,
        "spread": pytest.approx(1.75),
    }


def test_the_cosine_is_of_what_tells_classes_apart() -> None:
    """What all classes of an image share decides nothing: else large logits that have lost everything would agree."""
    reference = np.array([[101.0, 100.0, 99.0], [50.0, 52.0, 51.0]])
    assert cosine(reference + np.array([[7.0], [-30.0]]), reference) == pytest.approx(1)
    assert cosine(2 * reference, reference) == pytest.approx(1)
    assert cosine(200 - reference, reference) == pytest.approx(-1)
    assert np.isnan(cosine(np.full((2, 3), 100.0), reference)), "logits without a direction have no cosine"
    assert np.isnan(cosine(reference * np.nan, reference)) and np.isnan(cosine(reference[:1], reference))


# ---------------------------------------------------------------------------------------------------- several, of any shape


def test_of_several_outputs_the_worst_decides_and_is_named() -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    probes = Probes.of(images(), REFERENCE[:2], maps, maps > 0, names=("logits", "maps", "mask"))

    def pairs(**outputs: Array) -> list[Pair]:
        given = {"logits": REFERENCE[:2], "maps": maps, "mask": maps > 0, **outputs}
        return [Pair(part.name, given[part.name], part.values) for part in probes.expected]

    exact = compare_all(pairs())
    assert (exact.max_rel_error, exact.top1_agreement) == (0.0, 1.0)
    wrong = compare_all(pairs(maps=maps[:, ::-1]))
    assert wrong.output == "maps" and wrong.max_rel_error > 0.5
    assert wrong.top1_agreement == (maps.argmax(1) == maps[:, ::-1].argmax(1)).mean()
    assert np.isnan(compare_all(pairs(maps=maps * np.nan, logits=3 * REFERENCE[:2])).max_rel_error)
    flipped = maps > 0
    flipped[0, 0, 0, :2] ^= True
    assert compare_all(pairs(mask=flipped)).max_rel_error == 2 / maps.size
    check = verdict(compare_all(pairs(mask=flipped)), probes, "x", 1e-4)
    assert (check.status, check.output) == ("failed", "mask")
    assert not compare_all(pairs(maps=maps[:, :, :2])).within(1.0)


def test_maps_without_classes_agree_in_no_class() -> None:
    one = np.random.default_rng(0).standard_normal((2, 1, 4, 4))
    assert compare(one, one).top1_agreement is None and has_direction(one)
    assert cosine(one + 5, one) == pytest.approx(1) and cosine(-one, one) == pytest.approx(-1)
