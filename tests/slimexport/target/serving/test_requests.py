"""What waits: order, counts, cancelled requests, against a list that is sorted anew every time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimexport.target.serving.requests import Direct, Pending, Request, Waiting

DUES = [0.0, 1.0, 2.0, 3.0]
OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(DUES), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("take"), st.integers(1, 6)),
    st.tuples(st.just("head")),
)


def request(due_s: float = 0.0, images: int = 1) -> Request:
    return Request(np.zeros((images, 1), np.float32), False, 0.0, due_s)


@given(st.lists(OPERATIONS, max_size=60))
@settings(deadline=None, max_examples=300)
def test_it_is_a_sorted_list_without_what_was_cancelled(operations: list[tuple[object, ...]]) -> None:
    """A future tells that it was cancelled, or, as one of the user's, does not."""
    waiting, expected, everything, cancelled = Waiting(), list[Request](), list[Request](), 0
    for operation in operations:
        match operation:
            case ("add", float(due), int(images)):
                asked = request(due, images)
                asked.future.on_cancel = partial(waiting.cancel, waiting.add(asked))
                expected.append(asked)
                everything.append(asked)
            case ("cancel", int(index), bool(tells)) if everything:
                asked = everything[index % len(everything)]
                if not tells:
                    asked.future.on_cancel = None
                if asked.future.cancel() and asked in expected:
                    expected.remove(asked)
                    cancelled += 1
            case ("take", int(room)):
                expected.sort(key=lambda asked: asked.due_s)  # stable: those of one deadline as they came
                taken: list[Request] = []
                while expected and (not taken or sum(asked.size for asked in [*taken, expected[0]]) <= room):
                    taken.append(expected.pop(0))
                    if taken[0].size > room:
                        break
                assert list(waiting.take(room)) == taken
                assert not any(asked.future.cancel() for asked in taken), "they are being computed"
            case ("head",):
                expected.sort(key=lambda asked: asked.due_s)
                assert waiting.head() is (expected[0] if expected else None)
            case _:
                continue
    rest = list(waiting.take_all())
    assert rest == sorted(expected, key=lambda asked: asked.due_s)
    assert (waiting.images, len(waiting), waiting.cancelled) == (0, 0, cancelled)


def test_images_that_wait_are_counted_without_those_cancelled() -> None:
    waiting = Waiting()
    requests = [request(float(number), number + 1) for number in range(4)]
    for asked in requests:
        asked.future.on_cancel = partial(waiting.cancel, waiting.add(asked))
    assert (waiting.images, len(waiting)) == (10, 4)
    requests[3].future.cancel()
    requests[0].future.cancel()
    assert (waiting.images, len(waiting), waiting.cancelled) == (5, 2, 2)
    assert waiting.head() is requests[1]


def test_a_future_tells_once_that_it_is_cancelled() -> None:
    calls: list[int] = []
    asked = request()
    asked.future.on_cancel = lambda: calls.append(1)
    assert asked.future.cancel() and asked.future.cancel() and calls == [1]
    running = request()
    running.future.on_cancel = lambda: calls.append(2)
    assert running.future.begin() and not running.future.cancel() and calls == [1]


def test_a_future_that_ended_is_ended_no_more() -> None:
    asked = request()
    assert isinstance(asked.future, Pending)
    asked.future.set_result("mine")  # type: ignore[arg-type]
    assert not asked.future.begin()
    asked.future.fail(ValueError("late"))
    asked.future.answer("other")  # type: ignore[arg-type]
    assert asked.future.result() == "mine"  # type: ignore[comparison-overlap]


def test_what_is_computed_where_it_is_asked_ends_once() -> None:
    for ends_by in ("answer", "fail"):
        direct, error = Direct(), ValueError("gave up")
        assert direct.begin() and not direct.cancel() and not direct.done()
        if ends_by == "fail":
            direct.fail(error)
        direct.answer("mine")  # type: ignore[arg-type]
        direct.fail(ValueError("late"))
        assert direct.done()
        if ends_by == "answer":
            assert direct.result() == "mine"  # type: ignore[comparison-overlap]
        else:
            with pytest.raises(ValueError, match="gave up"):
                direct.result()
