"""Bodies of requests, read as far as they may be long: a body that is too long, too slow, or one too many at once is refused,
and not kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from slimexport.target.serving.http.metadata import Limits
from slimexport.target.serving.http.refusals import Refusal, busy

WITHIN_S = 60.0  # a body that takes longer is given up
RETRY_S = 1.0
COLLECTED, PARTS = "slimexport.body", "parts"  # of a scope's extensions: what no message holds of a body
ALIGNED = 16  # bytes; numpy's own arrays begin at a multiple of it


class Room:
    """Bytes of bodies that are held at once, at most `most`. Used on one event loop."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, size: int) -> None:
        """Refusal where there is no room for so many more."""
        if self.taken + size > self.most:
            raise busy(f"{self.taken:,} bytes of requests wait, {self.most:,} may. Send fewer.", RETRY_S)
        self.taken += size

    def give_back(self, size: int) -> None:
        self.taken -= size


class Body:
    """The body of one request, for a `with` block: it takes `room` from its first byte until the block ends."""

    def __init__(self, room: Room, limits: Limits, json_bytes: int | None) -> None:
        """The first `json_bytes` of it are JSON; None: all are."""
        self._room, self._limits, self._json_bytes = room, limits, json_bytes
        self._most = limits.most(json_bytes)
        self._size, self._given_up = 0, False

    def __enter__(self) -> Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._room.give_back(self._size)
        self._size = 0

    async def read(self, receive: Receive, length: bytes | None, collected: list[bytes] | None = None) -> memoryview:
        """All of it, such that numbers behind its JSON can be read in place. `length` is what its header says; `collected` are
        parts that no message holds, all of them once the last one comes, and are taken from there. Refusal, and starlette's
        ClientDisconnect where its sender goes before its end."""
        if length is not None and length.isdigit():
            self._check(int(length[:20]))
        task = asyncio.current_task()
        assert task is not None
        # `asyncio.timeout` does the same, and takes as long as reading a body
        limit = asyncio.get_running_loop().call_later(WITHIN_S, self._give_up, task)
        try:
            parts = await self._read(receive, [] if collected is None else collected)
        except asyncio.CancelledError:
            if not self._given_up or (sys.version_info >= (3, 11) and task.uncancel()):
                raise
            raise Refusal(408, f"the body did not come within {WITHIN_S:g} s.", {"Connection": "close"}) from None
        finally:
            limit.cancel()
        return joined(parts, self._json_bytes or 0)

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._given_up = True
        task.cancel()

    async def _read(self, receive: Receive, collected: list[bytes]) -> list[bytes]:
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            whole = not message.get("more_body")
            for part in (message.get("body", b""), *(collected if whole else ())):
                self._check(self._size + len(part))
                self._room.take(len(part))
                self._size += len(part)
                parts.append(part)
            if whole:
                collected.clear()  # a connection keeps the list until its next request
                return parts

    def _check(self, size: int) -> None:
        if size > self._most:
            raise Refusal(413, f"a body of {size:,} bytes or more: {self._limits.why(self._json_bytes)}")


def joined(parts: Sequence[bytes], start: int) -> memoryview:
    """One after the other. Byte `start` of them lies where numbers may: what does not is copied once more."""
    before = -start % ALIGNED
    buffer = np.empty(before + sum(map(len, parts)), np.uint8).data
    end = before
    for part in parts:
        buffer[end : (end := end + len(part))] = part
    return buffer[before:]
