"""Traces have the rates and the variation that they are asked for, whatever the seed; files of times are distrusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.traces import BURSTY, KINDS, POISSON, STEADY, STEP, bursty, draw, read_trace, renewals
from slimtrain.base.errors import UserError

RATE, SECONDS = 200.0, 50.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_is_ascending_within_its_time_and_the_same_for_a_seed(kind: str) -> None:
    trace = draw(kind, RATE, SECONDS, seed=3, cv2=8.0)
    assert (np.diff(trace.times_s) >= 0).all() and trace.times_s[0] >= 0 and trace.times_s[-1] < SECONDS
    assert np.array_equal(trace.times_s, draw(kind, RATE, SECONDS, seed=3, cv2=8.0).times_s)
    assert trace.rate == len(trace) / SECONDS and trace.as_dict()["requests"] == len(trace)
    if kind != STEADY:
        other = draw(kind, RATE, SECONDS, seed=4, cv2=8.0)
        assert not np.array_equal(trace.times_s[:100], other.times_s[:100])


@pytest.mark.parametrize(("kind", "cv2"), [(POISSON, 1.0), (BURSTY, 4.0), (BURSTY, 8.0), (STEP, 1.0)])
def test_the_mean_rate_over_many_seeds_is_the_asked_one(kind: str, cv2: float) -> None:
    """The variance of a renewal process's counts is about cv2 times their mean, so the mean of 300 traces is known to the
    root of cv2 rate seconds / 300; short traces would show a beginning that is none of the process's own."""
    seconds, seeds = 0.5, 300
    counts = [len(draw(kind, RATE, seconds, seed, cv2)) for seed in range(seeds)]
    expected = RATE * seconds
    assert abs(np.mean(counts) - expected) < 4 * np.sqrt(cv2 * expected / seeds)


def test_a_steady_trace_is_evenly_spaced() -> None:
    trace = draw(STEADY, 10.0, 2.0)
    assert np.allclose(trace.times_s, np.arange(20) / 10 + 0.05)


@pytest.mark.parametrize("cv2", [0.5, 1.0, 4.0, 8.0])
def test_intervals_of_bursts_have_the_variation(cv2: float) -> None:
    intervals = np.diff(renewals(RATE, 1000.0, cv2, np.random.default_rng(1)))
    assert intervals.mean() == pytest.approx(1 / RATE, rel=0.03)
    assert intervals.var() / intervals.mean() ** 2 == pytest.approx(cv2, rel=0.06)


def test_a_third_of_a_bursty_trace_is_poisson() -> None:
    """Counts in long windows have the variance of both parts together, which is additive: 1/3 and CV2 2/3 of the mean."""
    times = bursty(RATE, 4000.0, 8.0, np.random.default_rng(2))
    counts = np.histogram(times, np.arange(0, 4001, 4.0))[0]
    assert counts.mean() == pytest.approx(4 * RATE, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1 / 3 + 8 * 2 / 3, rel=0.15)


def test_a_step_is_half_double_half() -> None:
    counts = np.histogram(draw(STEP, RATE, 300.0).times_s, [0, 100, 200, 300])[0]
    assert counts == pytest.approx([10_000, 40_000, 10_000], rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("burst", 1.0, 1.0), "did you mean 'bursty'"),
        ((POISSON, 0.0, 1.0), "expected 1 to"),
        ((POISSON, float("nan"), 1.0), "expected 1 to"),
        ((POISSON, 1e9, 1.0), "expected 1 to 2,000,000 requests"),
        ((POISSON, 1.0, float("inf")), "--seconds inf"),
        ((STEADY, 0.5, 1.0), "has no request"),
        ((BURSTY, 1.0, 10.0, 0, -1.0), "--cv2 -1"),
    ],
)
def test_what_no_trace_can_be_is_refused(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        draw(*arguments)  # type: ignore[arg-type]


def written(folder: Path, text: str) -> Path:
    path = folder / "times.txt"
    path.write_text(text)
    return path


def test_times_in_a_file_count_from_the_first(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "1700000000.5\n\n1700000001\r\n1700000001\n1700000002.0\n"))
    assert trace.times_s.tolist() == [0, 0.5, 0.5, 1.5]
    assert trace.seconds == pytest.approx(2.0) and trace.rate == pytest.approx(2.0)


def test_a_file_is_stretched_to_a_rate_and_cut(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join(str(number / 4) for number in range(40)))
    assert read_trace(path).rate == pytest.approx(4.0)
    faster = read_trace(path, rate=8.0)
    assert faster.rate == pytest.approx(8.0) and faster.times_s[:3].tolist() == [0, 0.125, 0.25]
    short = read_trace(path, seconds=1.0, rate=8.0)
    assert len(short) == 8 and short.seconds == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 times"),
        ("1\n", "has 1 times"),
        ("1\n1\n", "two different"),
        ("1\n2\n1.5\n", "line 3: 1.5 is before the 2"),
        ("1\nnan\n", "line 2: 'nan' is no time"),
        ("1\n1e999\n", "is no time"),
        ("0\nsoon\n", "line 2: 'soon'"),
        ("0\n" + "9" * 100 + "\n", "is no time"),
        ("0\n100000\n", "at most a day"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_trace(written(tmp_path, text))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not there\. Give one of steady"):
        read_trace(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_trace(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_trace(tmp_path / "bytes")
    with pytest.raises(UserError, match="a rate of 0"):
        read_trace(written(tmp_path, "0\n1\n"), rate=0.0)
