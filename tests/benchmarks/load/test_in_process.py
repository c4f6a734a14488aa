"""Requests are sent at the times of the trace, whatever becomes of those before, and latencies count from those times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.load.book import ANSWERED, FAILED, FULL, LATE, LOST, OUTCOMES
from benchmarks.load.in_process import LEAD_S, LEAST_DEADLINE_MS, facts_of, images_of, play
from slimexport.target.serving.answer import Answer, WidthInfo
from slimexport.target.serving.errors import Closed, Late, QueueFull, RequestError, RunFailed
from tests.support.load_fakes import Clock, FakeRuntime, answer_of

IMAGES = images_of((1, 2, 2), 0, 3)


def test_an_open_loop_waits_for_no_answer() -> None:
    """None of the first requests is answered before the last one is sent."""
    clock = Clock()
    runtime = FakeRuntime(lambda number, deadline_ms: None)
    times = np.array([0.0, 0.01, 0.01, 0.5])

    def at_last(number: int, deadline_ms: float) -> Answer | None:
        if number < 3:
            return None
        for future in runtime.futures:
            future.set_result(answer_of())
        return answer_of()

    runtime.on_submit = at_last
    samples = play(runtime, times, IMAGES, 1000.0, clock=clock, sleep=clock.sleep)
    assert samples.of(ANSWERED).all() and np.allclose(samples.latency_ms, [500, 490, 490, 0])
    assert np.allclose(samples.late_ms, 0) and sum(clock.slept) == pytest.approx(0.5 + LEAD_S)
    assert [deadline_ms for _, deadline_ms in runtime.seen] == pytest.approx([1000.0] * 4)
    assert [image is IMAGES[number % 3] for number, (image, _) in enumerate(runtime.seen)] == [True] * 4


def test_what_the_sender_is_late_is_part_of_the_latency_and_off_the_deadline() -> None:
    clock = Clock()

    def slow(number: int, deadline_ms: float) -> Answer:
        clock.now_s += 0.03  # submitting takes as long
        return answer_of()

    runtime = FakeRuntime(slow)
    samples = play(runtime, np.array([0.0, 0.01, 0.02]), IMAGES, 35.0, clock=clock, sleep=clock.sleep)
    assert np.allclose(samples.late_ms, [0, 20, 40]) and np.allclose(samples.latency_ms, [30, 50, 70])
    assert [deadline_ms for _, deadline_ms in runtime.seen] == pytest.approx([35.0, 15.0, LEAST_DEADLINE_MS])
    assert samples.in_time(35.0).tolist() == [True, False, False]


def test_every_end_has_its_name() -> None:
    clock = Clock()
    ends: list[Any] = [answer_of("1", 4), QueueFull("full"), Closed("closed"), (Late("late"),), (RunFailed("failed"),), None]
    runtime = FakeRuntime(lambda number, deadline_ms: ends[number])
    samples = play(runtime, np.arange(6.0), IMAGES, 50.0, clock=clock, sleep=clock.sleep, grace_s=-0.05)
    assert [OUTCOMES[place] for place in samples.outcome] == [ANSWERED, FULL, FAILED, LATE, FAILED, LOST]
    assert (samples.labels, samples.batch[0], samples.queued_ms[0], samples.computed_ms[0]) == (("1",), 4, 1.0, 2.0)


def test_images_that_nobody_takes_end_the_run() -> None:
    clock = Clock()
    runtime = FakeRuntime(lambda number, deadline_ms: RequestError("64 images: a run takes 32 at most"))
    with pytest.raises(RequestError, match="takes 32 at most"):
        play(runtime, np.zeros(1), IMAGES, 50.0, clock=clock, sleep=clock.sleep)


def test_answers_are_shown_to_who_wants_to_see_them_and_not_kept() -> None:
    clock, seen = Clock(), []
    runtime = FakeRuntime(lambda number, deadline_ms: answer_of(batch=number + 1))
    play(
        runtime,
        np.arange(2.0),
        IMAGES,
        50.0,
        on_answer=lambda number, answer: seen.append((number, answer.batch)),
        clock=clock,
        sleep=clock.sleep,
    )
    assert seen == [(0, 1), (1, 2)]


def test_images_are_noise_of_the_seed() -> None:
    assert IMAGES[0].shape == (1, 2, 2) and IMAGES[0].dtype == np.float32 and not np.array_equal(IMAGES[0], IMAGES[1])
    assert np.array_equal(images_of((1, 2, 2), 0, 1)[0], IMAGES[0]) and not np.array_equal(
        images_of((1, 2, 2), 1, 1)[0], IMAGES[0]
    )


def test_what_is_known_of_open_widths() -> None:
    (fact,) = facts_of([WidthInfo("0.5", 0.5, "net_x0_5", 0.9)])
    assert (fact.label, fact.width, fact.accuracy) == ("0.5", 0.5, 0.9)
