"""When the thread that computes waits, and what ends that."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from slimexport.target.serving import lane as module
from slimexport.target.serving.lane import Lane
from tests.support.serving_helpers import PATIENCE_S


@pytest.fixture
def lane() -> Lane:
    return Lane(lambda lane: None, lambda lane, job: None)


@pytest.mark.parametrize("how", ["wait", "linger"])
def test_a_wake_ends_it(lane: Lane, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it came before or meanwhile."""
    monkeypatch.setattr(module, "LINGER_S", threading.TIMEOUT_MAX)
    for early in (True, False):
        waiting = threading.Thread(target=getattr(lane, how), daemon=True)
        if early:
            lane.wake()
        waiting.start()
        if not early:
            lane.wake()
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()


def test_a_moment_ends_by_itself_and_the_next_wake_is_not_lost(lane: Lane) -> None:
    lane.linger()
    lane.wake()
    waiting = threading.Thread(target=lane.wait, daemon=True)
    waiting.start()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_several_wakes_are_one(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.wake()
    lane.wake()
    lane.wait()
    waiting = threading.Thread(target=lane.wait, daemon=True)
    waiting.start()
    assert waiting.is_alive(), "the first ended the first wait"
    lane.wake()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


@pytest.mark.skipif(os.name != "posix", reason="sends this process a signal")
def test_a_join_that_was_interrupted_takes_no_lane_for_ended() -> None:
    """Of a thread whose join Ctrl-C interrupts, Python 3.12 and older say that it is not alive."""
    begin, over = threading.Event(), threading.Event()

    def works(lane: Lane) -> None:
        assert begin.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGINT)
        assert over.wait(PATIENCE_S)

    working = Lane(works, lambda lane, job: None)

    def join() -> None:
        begin.set()
        working.join(PATIENCE_S)

    working.start()
    with pytest.raises(KeyboardInterrupt):
        join()
    assert not working.join(0)
    over.set()
    assert working.join(PATIENCE_S)
