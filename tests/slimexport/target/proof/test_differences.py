"""A file must tell images apart as the network does, whatever else of its outputs is right."""

import numpy as np
import pytest

from slimexport.target.precision import Direction
from slimexport.target.proof.comparing import Pair, cosine
from slimexport.target.proof.differences import differences, why_apart, worst_differences
from slimexport.target.verification import PASSED, Verification

PROOF = Direction()
DRAW = np.random.default_rng(11)
REFERENCE = 5 * DRAW.normal(size=(1, 10)) + DRAW.normal(size=(4, 10))  # mostly the same for all images, as logits are
SCALE = np.abs(REFERENCE).max()


def test_the_reference_itself_and_what_rounding_makes_of_it_are_within() -> None:
    exact = differences(REFERENCE, REFERENCE)
    assert exact.cosine == pytest.approx(1) and exact.magnitude == pytest.approx(1) and exact.shift == 0
    rounded = differences(np.round(REFERENCE / SCALE * 127) * SCALE / 127, REFERENCE)
    assert rounded.within(PROOF)


@pytest.mark.parametrize(
    "outputs",
    {
        "one answer for all": np.broadcast_to(REFERENCE.mean(0), REFERENCE.shape),
        "times 1000": REFERENCE * 1000,
        "plus 1000": REFERENCE + 1000,
        "a third": REFERENCE / 3,
        "another image's": REFERENCE[::-1],
        "negative": -REFERENCE,
        "of another shape": REFERENCE[:, :5],
        "not finite": np.where(REFERENCE.max() == REFERENCE, np.nan, REFERENCE),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_worth_nothing_is_not_within(outputs: tuple[str, np.ndarray]) -> None:
    assert not differences(outputs[1], REFERENCE).within(PROOF)


def test_an_angle_alone_does_not_see_a_constant_answer() -> None:
    """Which is why there are differences."""
    constant = np.broadcast_to(REFERENCE.mean(0), REFERENCE.shape)
    assert cosine(constant, REFERENCE) > PROOF.least_cosine


def test_the_worst_of_several_outputs_counts_even_one_that_is_alike_in_direction() -> None:
    pairs = [Pair("right", REFERENCE * 0.99, REFERENCE), Pair("wrong", REFERENCE * 100, REFERENCE)]
    assert worst_differences(pairs, ["right", "wrong"], PROOF).magnitude == pytest.approx(100)
    assert worst_differences(pairs, ["right"], PROOF).within(PROOF)
    assert not worst_differences(pairs, [], PROOF).within(PROOF)


def test_the_reason_says_what_was_found_and_expected() -> None:
    check = Verification(
        status=PASSED, backend="x", cosine=0.99, least_cosine=0.97, **differences(REFERENCE * 100, REFERENCE).figures()
    )
    assert "100 times the size (0.50 to 2.0)" in why_apart(check)
    right = Verification(
        status=PASSED, backend="x", cosine=0.99, least_cosine=0.97, **differences(REFERENCE, REFERENCE).figures()
    )
    assert why_apart(right) == ""
