"""When the thread that computes waits, and what ends that."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from slimexport.target.serving import lane as module
from slimexport.target.serving.lane import Job, Lane
from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.scheduling import Run
from tests.support import ROOT
from tests.support.bundle_helpers import artifact
from tests.support.interrupts import interrupts
from tests.support.serving_helpers import PATIENCE_S, ToyRunner


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
    over = threading.Event()

    def works(lane: Lane) -> None:
        assert over.wait(PATIENCE_S)

    working = Lane(works, lambda lane, job: None)

    def join() -> None:
        interrupt()
        working.join()

    working.start()
    with interrupts() as interrupt, pytest.raises(KeyboardInterrupt):
        join()
    assert not working.join(0)
    over.set()
    assert working.join(PATIENCE_S)


def ended(script: str) -> subprocess.CompletedProcess[str]:
    """What a process that runs this did."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


SCRIPT = """
import atexit, threading
from slimexport.target.serving.lane import Lane

begun, ending = threading.Event(), threading.Event()

def compute(lane, job):
    begun.set()
    assert ending.wait(60)
    print("came to its end")

jobs = iter(["a job"])
lane = Lane(lambda lane: next(jobs, None) or lane.wait(), compute)
lane.start()
assert begun.wait(60)
atexit.register(ending.set)  # before what the lane registered is called
raise SystemExit(7)
"""


def test_what_runs_comes_to_its_end_before_the_interpreter_does() -> None:
    """Where nobody closes the runtime; a library's thread that comes back later crashes the process."""
    done = ended(SCRIPT)
    assert (done.stdout, done.returncode) == ("came to its end\n", 7), done.stderr


CLOSED_LATER = """
import atexit
from slimexport.target.serving import lane as module

module.EXIT_S = 1e6  # an idle lane is not waited for
jobs, closing = [], []

def next_job(lane):
    while not jobs:
        if closing:
            return None
        lane.wait()
    return jobs.pop()

def close():
    jobs.append("a late job")
    closing.append(True)
    lane.wake()
    assert lane.join(60)

atexit.register(close)  # called after what the lane registers
lane = module.Lane(next_job, lambda lane, job: print("computed", job))
lane.start()
"""
FORKED = """
import os, sys, threading
from slimexport.target.serving import lane as module

module.EXIT_S = 1e6
begun = threading.Event()

def compute(lane, job):
    begun.set()
    threading.Event().wait()

module.Lane(lambda lane: "a job", compute).start()
assert begun.wait(60)
child = os.fork()
if child == 0:
    sys.exit(3)
print("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


def test_who_closes_it_later_in_the_same_end_still_can() -> None:
    """As a service whose own handler was registered before."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_LATER], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout, done.returncode) == ("computed a late job\n", 0), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_waits_for_no_thread_of_its_parents() -> None:
    done = ended(FORKED)
    assert done.stdout == "the child ended with 3\n", done.stderr


def test_a_lane_that_ended_is_not_kept() -> None:
    ended = Lane(lambda lane: None, lambda lane, job: None)
    ended.start()
    assert ended.join(PATIENCE_S)
    there = weakref.ref(ended)
    del ended
    gc.collect()
    assert there() is None


def test_an_interpreter_that_ends_waits_for_a_job_that_another_thread_is_at(lane: Lane) -> None:
    """The lane's own thread waits meanwhile: that is not to say that nothing runs."""
    lane._waits = True
    lane.job = Job(Run(0, (), 1.0), OpenFile("1", artifact(), ToyRunner(Path("net.onnx"))), 0.0)
    leaving = threading.Thread(target=lane._let_exit, daemon=True)
    leaving.start()
    leaving.join(5 * module.LOOK_S)
    assert leaving.is_alive() and lane.leaving
    lane.job = None
    leaving.join(PATIENCE_S)
    assert not leaving.is_alive()
