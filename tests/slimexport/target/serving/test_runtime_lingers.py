"""After an answer the thread that computes leaves the interpreter to those whom it wakes. Here it does until it is woken
itself, so that whatever needs more than that hangs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from slimexport.target.arrays import Array
from slimexport.target.serving import lane
from slimexport.target.serving.errors import RunFailed
from slimexport.target.serving.requests import Pending
from slimexport.target.serving.runtime import Runtime
from slimexport.target.serving.scheduling import Run
from tests.support.serving_helpers import FOREVER_MS, WAIT, Bench, held, images, wait_until


@pytest.fixture(autouse=True)
def lingers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for every time that it does."""
    monkeypatch.setattr(lane, "LINGER_S", threading.TIMEOUT_MAX)
    noted: list[str] = []
    linger = lane.Lane.linger

    def note(self: lane.Lane) -> None:
        noted.append("here")
        linger(self)

    monkeypatch.setattr(lane.Lane, "linger", note)
    return noted


def learned(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every request of whose run the latencies learn: whether its answer was out."""
    out: list[bool] = []
    scheduler = runtime._scheduler
    learn = scheduler.ran

    def note(run: Run, ms: float) -> None:
        out.extend(request.future.done() for request in run.requests)
        learn(run, ms)

    monkeypatch.setattr(scheduler, "ran", note)
    return out


def test_the_next_request_or_the_end_is_served_at_once(
    bundle: Path, bench: Bench, lingers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime(bundle) as runtime:
        out = learned(runtime, monkeypatch)
        for _ in range(4):
            assert not runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT).late
    assert out == [True] * 4 and len(lingers) == 4


def test_nobody_is_kept_waiting(bundle: Path, bench: Bench, lingers: list[str]) -> None:
    with Runtime(bundle, batches=[1]) as runtime:
        with held(runtime, *bench.runners):
            futures = [runtime.submit(images(1)[0], FOREVER_MS) for _ in range(5)]
        for future in futures:
            future.result(**WAIT)
    assert len(lingers) == 1, "after the last of them"


def test_a_request_that_comes_while_answers_go_out_is_seen(bundle: Path, bench: Bench) -> None:
    """Its wake comes before the wait."""
    with Runtime(bundle) as runtime:
        later: list[object] = []
        first = runtime.submit(images(1)[0], FOREVER_MS)
        first.add_done_callback(lambda _: later.append(runtime.submit(images(1)[0], FOREVER_MS)))
        first.result(**WAIT)
        wait_until(lambda: len(later) == 1)
        assert later[0].result(**WAIT).batch == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("fails", [False, True])
def test_who_has_to_wake_another_thread_hears_of_the_end_before_the_answer(bundle: Path, bench: Bench, fails: bool) -> None:
    def fail(batch: Array) -> None:
        raise ValueError("of a test")

    done: list[bool] = []
    with Runtime(bundle, policy="fixed:1") as runtime:
        with held(runtime, *bench.runners):
            future = runtime.submit(images(1)[0], FOREVER_MS)
            assert isinstance(future, Pending)
            future.on_ran = lambda: done.append(future.done())
            if fails:
                bench.of("1").give = fail
        assert (type(future.exception(**WAIT)) is RunFailed) is fails
    assert done == [False]


def test_a_policy_set_meanwhile_holds_for_the_next(bundle: Path, bench: Bench) -> None:
    with Runtime(bundle, policy="fixed:1") as runtime:
        assert runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "1"
        runtime.policy = "fixed:0.25"
        assert runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT).name == "0.25"
        assert runtime.stats().answered == 2


def test_a_moment_ends_by_itself(bundle: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LINGER_S", 1e-3)
    with Runtime(bundle) as runtime:
        out = learned(runtime, monkeypatch)
        runtime.submit(images(1)[0], FOREVER_MS).result(**WAIT)
        wait_until(lambda: out == [True])
