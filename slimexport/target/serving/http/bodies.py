"""Bodies of requests, read as far as they may be long: a body that is too long, too slow, or one too many at once is refused,
and not kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from starlette.requests import Request

from slimexport.target.serving.http.refusals import Refusal, busy

WITHIN_S = 60.0  # a body that takes longer is given up
RETRY_S = 1.0
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
    """The body of one request. It takes `room` from its first byte until `held` ends."""

    def __init__(self, room: Room, most: int, why: str) -> None:
        """`why` completes the message about one of more than `most` bytes."""
        self.room, self.most, self.why = room, most, why
        self.size = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.room.give_back(self.size)
            self.size = 0

    async def read(self, request: Request, start: int = 0) -> memoryview:
        """All of it, such that numbers from byte `start` on can be read in place. Refusal, and starlette's ClientDisconnect
        where its sender goes before its end."""
        length = request.headers.get("content-length")
        if length is not None and length.isdecimal():
            self._check(int(length[:20]))
        try:
            if sys.version_info >= (3, 11):
                async with asyncio.timeout(WITHIN_S):
                    parts = await self._read(request)
            else:  # which takes a task of its own
                parts = await asyncio.wait_for(self._read(request), WITHIN_S)
        except asyncio.TimeoutError:  # which is not the builtin one in Python 3.10
            raise Refusal(408, f"the body did not come within {WITHIN_S:g} s.", {"Connection": "close"}) from None
        return joined(parts, start)

    async def _read(self, request: Request) -> list[bytes]:
        parts = []
        async for part in request.stream():
            self._check(self.size + len(part))
            self.room.take(len(part))
            self.size += len(part)
            parts.append(part)
        return parts

    def _check(self, size: int) -> None:
        if size > self.most:
            raise Refusal(413, f"a body of {size:,} bytes or more: {self.why}")


def joined(parts: Sequence[bytes], start: int) -> memoryview:
    """One after the other. Byte `start` of them lies where numbers may: what does not is copied once more."""
    before = -start % ALIGNED
    buffer = np.empty(before + sum(map(len, parts)), np.uint8).data
    end = before
    for part in parts:
        buffer[end : (end := end + len(part))] = part
    return buffer[before:]
