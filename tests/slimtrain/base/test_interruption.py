"""An interruption reaches the program once, also where Python runs a callback whose errors nobody can catch."""

from __future__ import annotations

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator

import pytest

from slimtrain.base.interruption import interruptible

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SOON_S = 10.0  # what a test waits for at most; 0.02 s are usual


@pytest.fixture(autouse=True)
def _a_signal_too_late_ends_no_tests() -> Iterator[None]:
    handlers = {number: signal.signal(number, lambda *late: None) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Ended:
    """An object that does something as it goes."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __del__(self) -> None:
        self.action()


def interrupt(number: int) -> None:
    signal.raise_signal(number)
    for _ in range(1000):  # the handler runs in here
        pass


def in_a_destructor(action: Callable[[], object]) -> None:
    Ended(action)


def in_a_weak_reference(action: Callable[[], object]) -> None:
    thing = Ended(int)
    watched = weakref.ref(thing, lambda gone: action())
    del thing
    assert watched() is None


def in_a_generators_end(action: Callable[[], object]) -> None:
    def numbers() -> Generator[int]:
        try:
            yield 1
        finally:
            action()

    next(numbers())


def in_a_destructor_that_fails_of_it(action: Callable[[], object]) -> None:
    def fail() -> None:
        try:
            action()
        finally:
            raise ValueError("half done")

    Ended(fail)


PLACES = (in_a_destructor, in_a_weak_reference, in_a_generators_end, in_a_destructor_that_fails_of_it)


def wait() -> None:
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_callback_swallows_is_raised_after_it(place: Callable[[Callable[[], object]], None], number: int) -> None:
    after = []

    def block() -> None:
        place(lambda: interrupt(number))
        after.append("the callback's error is not the program's")
        wait()

    with pytest.raises(KeyboardInterrupt), interruptible():
        block()
    assert after


def test_one_that_is_swallowed_again_is_raised_again() -> None:
    """The destructor that the signal comes into is followed by one that lasts longer than the timer."""
    swallowed = []

    def work() -> None:
        try:
            wait()
        except KeyboardInterrupt:
            swallowed.append("again")
            raise

    def block() -> None:
        in_a_destructor(lambda: interrupt(signal.SIGTERM))
        in_a_destructor(work)
        wait()

    with pytest.raises(KeyboardInterrupt), interruptible():
        block()
    assert swallowed == ["again"]


def test_a_block_that_ends_before_it_is_raised_raises_it() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        in_a_destructor(lambda: interrupt(signal.SIGTERM))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_one_that_is_caught_is_raised_once() -> None:
    """Nothing comes afterwards into what handles it, not even where a destructor fails then for a reason of its own."""

    def fail() -> None:
        raise ValueError("half done")

    lines = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: lines.append(str(unraisable.exc_value))
    try:
        with interruptible():
            for place in (lambda action: action(), in_a_destructor):
                try:
                    place(lambda: interrupt(signal.SIGTERM))
                    wait()
                except KeyboardInterrupt:
                    in_a_destructor(fail)
                    time.sleep(0.1)
    finally:
        sys.unraisablehook = hook
    assert lines == ["half done", "half done"]


def test_handlers_and_hook_are_those_from_before_again() -> None:
    hook = sys.unraisablehook
    numbers = (signal.SIGTERM, signal.SIGALRM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before[0] and sys.unraisablehook is not hook
    assert [signal.getsignal(number) for number in numbers] == before and sys.unraisablehook is hook


def test_a_thread_goes_without() -> None:
    seen = []

    def block() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
