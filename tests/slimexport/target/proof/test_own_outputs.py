"""What a file of fewer bits gave when it was proven is held against what it gives elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU
from slimexport.target.precision import PRECISIONS
from slimexport.target.proof.own_outputs import IN_COMMON, LEEWAY, OF_ONE, held_to_own, own_tolerance
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.reference import Expected, Own, Probes
from slimexport.target.verification import FAILED, PASSED, UNVERIFIABLE, OwnShares, Verification

INT8 = PRECISIONS["int8-cpu"]
DRAW = np.random.default_rng(7)
OUTPUTS = DRAW.normal(size=(3, 8))
PROBES = Probes.of(np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1), OUTPUTS)
OWN = Own(PROBES.images, 3, PROBES.expected)
CHECK = Verification(status=PASSED, backend="onnxruntime-cpu", cosine=0.999, least_cosine=0.97)
MOVED = 0.01  # by roundings, of the scale
MANY = DRAW.normal(size=(60, 8))
MANY_IMAGES = np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1)
OWN_OF_MANY = Own(MANY_IMAGES, 3, (Expected("output", MANY),), (np.full(60, MOVED),))
SCALE = np.abs(MANY).max()


class _Runner:
    def __init__(self, outputs: Array, backend: str = "test") -> None:
        self.outputs, self.backend = outputs, backend

    def __call__(self, images: Array) -> Array:
        return np.asarray(self.outputs[images.reshape(-1).astype(int)])


def _held(outputs: Array, recorded: float = 0.05) -> Verification:
    return held_to_own(_Runner(outputs), OWN, INT8, CHECK, replace(CHECK, own_tolerance=recorded))


def _held_of_many(
    off: Array,
    backend: str = "test",
    runtime: str | None = None,
    own: Own = OWN_OF_MANY,
    shares: OwnShares | None = None,
) -> Verification:
    recorded = replace(CHECK, own_tolerance=0.3, own_runtime=runtime, own_shares=shares)
    return held_to_own(_Runner(MANY + off * SCALE, backend), own, INT8, CHECK, recorded)


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


def test_what_roundings_do_passes() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        assert _held_of_many(MOVED * draw.normal(size=MANY.shape)).status == PASSED


def test_twice_what_roundings_do_fails_within_the_tolerance() -> None:
    held = _held_of_many(2 * MOVED * np.random.default_rng(4).normal(size=MANY.shape))
    assert held.status == FAILED and held.own_error is not None and held.own_error < 0.1
    assert held.reason is not None and "on average off by" in held.reason and "what roundings move them" in held.reason


def test_one_image_that_is_off_by_more_than_roundings_move_it_fails() -> None:
    off = np.zeros_like(MANY)
    off[40] = 1.2 * OF_ONE * MOVED
    held = _held_of_many(off)
    assert held.status == FAILED and held.reason is not None and "of one image off by 6" in held.reason
    steadier = replace(OWN_OF_MANY, moved=(np.where(np.arange(60) == 40, 0.03, MOVED),))
    assert _held_of_many(off, own=steadier).status == PASSED


def test_what_all_images_have_in_common_is_no_rounding() -> None:
    off = MOVED * np.random.default_rng(5).normal(size=MANY.shape)
    off[:, 2] += 1.5 * IN_COMMON / np.sqrt(60) * MOVED
    held = _held_of_many(off)
    assert held.status == FAILED and held.reason is not None and "of all images alike off by" in held.reason


def _one_image() -> Array:
    off = np.zeros_like(MANY)
    off[40] = 4 * MOVED
    return off


def _in_common() -> Array:
    off = MOVED * np.random.default_rng(5).normal(size=MANY.shape)
    off[:, 2] += 7 / np.sqrt(60) * MOVED
    return off


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (1.55 * MOVED * np.random.default_rng(4).normal(size=MANY.shape), "on average off by"),
        (_one_image(), "of one image off by 4"),
        (_in_common(), "of all images alike off by"),
    ],
)
def test_what_roundings_never_did_to_this_file_fails_though_they_do_it_to_others(off: Array, words: str) -> None:
    steady = OwnShares(usual=1.0, of_one=1.5, in_common=3.0)
    assert _held_of_many(off).status == PASSED
    held = _held_of_many(off, shares=steady)
    assert held.status == FAILED and words in (held.reason or "")
    assert _held_of_many(MOVED * np.random.default_rng(6).normal(size=MANY.shape), shares=steady).status == PASSED


def test_figures_of_a_file_that_were_edited_neither_widen_limits_nor_refuse_what_any_rounding_does() -> None:
    off = 3 * MOVED * np.random.default_rng(4).normal(size=MANY.shape)
    assert _held_of_many(off, shares=OwnShares(usual=1e6, of_one=1e6, in_common=1e6)).status == FAILED
    small = 0.8 * MOVED * np.random.default_rng(4).normal(size=MANY.shape)
    assert _held_of_many(small, shares=OwnShares(usual=0.0, of_one=0.0, in_common=0.0)).status == PASSED


CHAOTIC = replace(OWN_OF_MANY, moved=(np.full(60, 0.2),))  # roundings move its images by more than any file is permitted


@pytest.mark.parametrize(("size", "status"), [(0.06, PASSED), (0.12, UNVERIFIABLE), (0.6, FAILED)])
def test_what_roundings_explain_beyond_what_is_permitted_is_not_called_wrong(size: float, status: str) -> None:
    off = size * np.random.default_rng(11).normal(size=MANY.shape)
    held = _held_of_many(off, own=CHAOTIC)
    assert held.status == status
    if status != PASSED:
        assert not held.passed
        words = "this network magnifies them" if status == UNVERIFIABLE else "the file was changed"
        assert words in (held.reason or "")


def test_of_a_network_that_magnifies_little_or_of_the_runtime_that_proved_it_it_is_wrong() -> None:
    off = 0.12 * np.random.default_rng(11).normal(size=MANY.shape)
    recorded = replace(CHECK, own_tolerance=0.25)  # less than the most that is permitted
    assert held_to_own(_Runner(MANY + off * SCALE), CHAOTIC, INT8, CHECK, recorded).status == FAILED
    here = own_runtime(CPU)
    if here is not None:
        assert _held_of_many(off, CPU, here, own=CHAOTIC).status == FAILED
    unknown = replace(CHAOTIC, moved=None)  # as of earlier versions
    assert _held_of_many(0.2 * np.ones_like(MANY), own=unknown).status == FAILED


class _Alone(_Runner):
    """What is off is so only where an image is run alone."""

    def __init__(self, off: Array, backend: str = "test") -> None:
        super().__init__(MANY, backend)
        self.off = off

    def __call__(self, images: Array) -> Array:
        outputs = super().__call__(images)
        return outputs + self.off * SCALE if len(images) == 1 else outputs


ODD = replace(CHAOTIC, images=MANY_IMAGES[:59], expected=(Expected("output", MANY[:59]),), moved=(np.full(59, 0.2),))


@pytest.mark.parametrize("off", [0.9, np.nan])
def test_what_is_wrong_in_one_size_of_batch_alone_is_no_rounding(off: float) -> None:
    """The last of 59 images is in no batch of its own when all are run."""
    for backend, runtime in (("test", None), (CPU, own_runtime(CPU))):
        recorded = replace(CHECK, own_tolerance=0.3, own_runtime=runtime)
        assert held_to_own(_Alone(off * np.eye(8)[0], backend), ODD, INT8, CHECK, recorded).status == FAILED


def test_whole_numbers_are_right_or_wrong_and_never_roundings() -> None:
    class Classes(_Runner):
        def __call__(self, images: Array) -> dict[str, Array]:  # type: ignore[override]
            outputs = super().__call__(images)
            return {"output": outputs, "classes": outputs.argmax(1) + 1}

    expected = (*ODD.expected, Expected("classes", MANY[:59].argmax(1)))
    own = replace(ODD, expected=expected, moved=(np.full(59, 0.2), np.zeros(59)))
    assert held_to_own(Classes(MANY), own, INT8, CHECK, replace(CHECK, own_tolerance=0.3)).status == FAILED


def test_what_proved_a_file_gives_the_same_again() -> None:
    here = own_runtime(CPU)
    if here is None:
        pytest.skip("this system does not tell its processor")
    off = np.zeros_like(MANY)
    off[5, 1] = 1e-3
    held = _held_of_many(off, CPU, here)
    assert held.status == FAILED and held.reason is not None and "on the processor that proved it" in held.reason
    assert _held_of_many(off * 1e-3, CPU, here).status == PASSED
    assert _held_of_many(off, CPU, f"{here}, another one").status == PASSED
    assert _held_of_many(off, "onnxruntime-cuda", here).status == PASSED


def test_the_tolerance_is_what_roundings_move_within_bounds() -> None:
    least, most = INT8.steady
    assert own_tolerance(INT8, 0.0, PROBES) == least
    assert own_tolerance(INT8, 0.02, PROBES) == pytest.approx(0.02 * LEEWAY)
    assert own_tolerance(INT8, np.inf, PROBES) == most
    alike = Probes.of(PROBES.images, OUTPUTS[:1] + 0.05 * OUTPUTS)
    assert own_tolerance(INT8, 10.0, alike) < most


def test_a_manifest_or_reference_that_was_edited_does_not_make_wrong_files_right() -> None:
    assert _held(OUTPUTS * 2, recorded=1e9).status == FAILED
    wide = replace(OWN_OF_MANY, moved=(np.full(60, 1e9),))
    assert _held_of_many(np.full(MANY.shape, 0.2), own=wide).status == FAILED
