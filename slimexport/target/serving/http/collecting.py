"""uvicorn's protocol for HTTP, which hands over the body of a request for inference at once.

uvicorn wakes the application for every part that comes, stops reading meanwhile, and copies each part twice. A body that says
that it is short is collected here as it comes, in the parts that the parser gives, and the application finds them in the
request's scope once it is woken for the end. What is collected and not yet handed over is bounded; what does not fit, is long,
does not say its length, or comes behind a request that is not answered yet, goes uvicorn's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slimexport.target.serving.http.bodies import COLLECTED, PARTS, Room

SHORT = 1 << 20  # bytes of a body
MOST = 1 << 26  # bytes of all that are being collected
PATH = b"/infer"  # what ends so reads `COLLECTED`


class Collecting(HttpToolsProtocol):
    """One connection. `room` is for what all of them collect."""

    def __init__(self, room: Room, **given: Any) -> None:
        super().__init__(**given)
        self._room, self._size = room, 0
        self._parts: list[bytes] | None = None

    def on_headers_complete(self) -> None:
        alone = self.cycle is None or self.cycle.response_complete  # else nobody would read it for long
        size = _length(self.headers) if alone and self.url.endswith(PATH) else 0
        if 0 < size <= SHORT and self._room.taken + size <= self._room.most:
            self._room.take(size)
            self._size, self._parts = size, []
            self.scope["extensions"] = {COLLECTED: {PARTS: self._parts}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._hand_over()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._hand_over()  # of a request that was answered before its end
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over()
        super().connection_lost(exc)

    def _hand_over(self) -> None:
        self._room.give_back(self._size)
        self._size, self._parts = 0, None


def _length(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Of a body, as its header says it; 0 where it does not."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 10 else 0
    return 0
