"""What a file of fewer bits gave when it was proven is held against what it gives elsewhere."""

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.precision import PRECISIONS
from slimexport.target.proof.own_outputs import LEEWAY, held_to_own, own_tolerance
from slimexport.target.reference import Probes
from slimexport.target.verification import FAILED, PASSED, Verification

INT8 = PRECISIONS["int8-cpu"]
DRAW = np.random.default_rng(7)
OUTPUTS = DRAW.normal(size=(3, 8))
OWN = Probes.of(np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1), OUTPUTS)
CHECK = Verification(status=PASSED, backend="onnxruntime-cpu", cosine=0.999, least_cosine=0.97)


class _Runner:
    backend = "test"

    def __init__(self, outputs: Array) -> None:
        self.outputs = outputs

    def __call__(self, images: Array) -> Array:
        return np.asarray(self.outputs[images.reshape(-1).astype(int)])


def _held(outputs: Array, recorded: float = 0.05) -> Verification:
    return held_to_own(_Runner(outputs), OWN, INT8, CHECK, recorded)


def test_the_same_outputs_pass_and_say_how_far_they_are_off() -> None:
    held = _held(OUTPUTS + 1e-3 * np.abs(OUTPUTS).max())
    assert held.status == PASSED and held.own_error == pytest.approx(1e-3) and held.own_tolerance == pytest.approx(0.05)


@pytest.mark.parametrize("outputs", [OUTPUTS * 1.2, OUTPUTS + 1, OUTPUTS[::-1], OUTPUTS * np.nan, OUTPUTS[:, ::-1]])
def test_others_fail_with_the_reason(outputs: Array) -> None:
    held = _held(outputs)
    assert held.status == FAILED and held.reason is not None and "when it was proven" in held.reason


def test_what_is_off_everywhere_is_wrong_before_it_is_off_by_the_tolerance() -> None:
    scale = np.abs(OUTPUTS).max()
    held = _held(OUTPUTS + 0.03 * scale)
    assert held.status == FAILED and held.reason is not None and "on average off by 0.03" in held.reason
    one = np.zeros_like(OUTPUTS)
    one[0, 0] = 0.03 * scale
    assert _held(OUTPUTS + one).status == PASSED


def test_the_tolerance_is_what_roundings_move_within_bounds() -> None:
    least, most = INT8.steady
    assert own_tolerance(INT8, 0.0, OWN) == least
    assert own_tolerance(INT8, 0.02, OWN) == pytest.approx(0.02 * LEEWAY)
    assert own_tolerance(INT8, np.inf, OWN) == most
    alike = Probes.of(OWN.images, OUTPUTS[:1] + 0.05 * OUTPUTS)
    assert own_tolerance(INT8, 10.0, alike) < most


def test_a_manifest_that_was_edited_does_not_make_wrong_files_right() -> None:
    assert _held(OUTPUTS * 2, recorded=1e9).status == FAILED
