"""Bodies of requests: never more is held than may be, and all of it is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.http.refusals import Refusal

starlette = pytest.importorskip("starlette.requests", reason="pip install '.[serve]'")
bodies = pytest.importorskip("slimexport.target.serving.http.bodies")


class Sender:
    """A request whose body comes in these parts; None: its client goes away. `taken` counts the parts that were asked for."""

    def __init__(self, parts: Sequence[bytes | None], length: str | None = None) -> None:
        self.parts, self.taken = list(parts), 0
        self.length = None if length is None else length.encode()

    async def receive(self) -> dict[str, Any]:
        if self.taken == len(self.parts):
            await asyncio.Event().wait()  # for ever
        part = self.parts[self.taken]
        self.taken += 1
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": self.taken < len(self.parts) or not part}


def body_of(most: int, room: Any) -> Any:
    """The body of a request, of at most so many bytes."""

    class Limits:
        def most(self, json_bytes: int | None) -> int:
            return most

        def why(self, json_bytes: int | None) -> str:
            return "why"

    return bodies.Body(room, Limits(), None)


def read(body: Any, sender: Sender) -> Any:
    return asyncio.run(body.read(sender.receive, sender.length))


def test_a_body_is_its_parts_and_is_held_while_it_is_needed() -> None:
    room, sender = bodies.Room(10), Sender([b"abc", b"def"])
    with body_of(6, room) as body:
        assert read(body, sender) == b"abcdef"
        assert room.taken == 6
    assert room.taken == 0


def test_what_was_collected_is_behind_what_messages_hold_and_counts_as_they_do() -> None:
    room = bodies.Room(10)
    collected = [b"cd", b"e"]
    with body_of(5, room) as body:
        assert asyncio.run(body.read(Sender([b"ab"]).receive, None, collected)) == b"abcde"
        assert room.taken == 5 and not collected  # which its connection would hold until the next request
    with pytest.raises(Refusal) as refusal, body_of(4, room) as body:
        asyncio.run(body.read(Sender([b"ab"]).receive, None, [b"cd", b"e"]))
    assert (refusal.value.status, room.taken) == (413, 0)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 15, 16, 17, 181])
@pytest.mark.parametrize("pieces", [1, 2, 7, 500])
def test_numbers_behind_any_length_of_json_are_read_in_place(start: int, pieces: int) -> None:
    whole = np.random.default_rng(start).bytes(start + 400)
    size = -(-len(whole) // pieces)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    body = bodies.joined(parts, start)
    assert body == whole and body.readonly is False
    assert np.frombuffer(body, np.float64, 50, start).flags.aligned


def test_a_body_of_nothing_is_nothing() -> None:
    assert bytes(bodies.joined([], 5)) == b""
    assert bytes(bodies.joined([b"a"], 10**12)) == b"a"


@pytest.mark.parametrize("length", ["7", "9" * 30])
def test_a_body_that_says_it_is_too_long_is_not_read(length: str) -> None:
    sender = Sender([b"abcdefg"], length)
    with pytest.raises(Refusal, match=r"a body of .* bytes or more: why") as refusal:
        read(body_of(6, bodies.Room(100)), sender)
    assert (refusal.value.status, sender.taken) == (413, 0)


@pytest.mark.parametrize("length", [None, "3"])
def test_a_body_that_does_not_say_it_is_read_as_far_as_it_may_be_long(length: str | None) -> None:
    room, sender = bodies.Room(100), Sender([b"abc"] * 9, length)
    with pytest.raises(Refusal) as refusal, body_of(6, room) as body:
        read(body, sender)
    assert (refusal.value.status, sender.taken, room.taken) == (413, 3, 0)


def test_what_does_not_fit_beside_others_may_come_again() -> None:
    room = bodies.Room(8)
    room.take(5)
    with pytest.raises(Refusal, match="bytes of requests wait") as refusal, body_of(6, room) as body:
        read(body, Sender([b"abc", b"d"]))
    assert (refusal.value.status, refusal.value.headers["Retry-After"], room.taken) == (503, "1", 5)


def test_what_a_client_sent_before_it_went_is_given_back() -> None:
    room = bodies.Room(8)
    with pytest.raises(starlette.ClientDisconnect), body_of(6, room) as body:
        read(body, Sender([b"abc", None], "6"))
    assert room.taken == 0


def test_a_body_that_stops_in_the_middle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "WITHIN_S", 0.05)
    room = bodies.Room(8)
    with pytest.raises(Refusal, match="did not come within") as refusal, body_of(6, room) as body:
        read(body, Sender([b"abc", b""], "6"))
    assert (refusal.value.status, room.taken) == (408, 0)
