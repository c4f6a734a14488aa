"""What waits: requests by their deadlines, the most urgent first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a Triton repository gets a copy of this file, which stands alone
    from slimexport.target.arrays import Array
    from slimexport.target.serving.answer import Answer


@dataclass(eq=False)
class Request:
    """`images` [N, ...] to be computed together by `due_s`, of the clock that `submitted_s` is of. `single`: one image that came
    without a batch dimension, whose answer has none either."""

    images: Array
    single: bool
    submitted_s: float
    due_s: float
    future: Future[Answer] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return len(self.images)


class Waiting:
    """Requests in the order of their deadlines, those of one deadline as they came. A request whose future is cancelled is not
    there any more. `images` counts what waits."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._number = 0
        self.images = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request) -> None:
        heapq.heappush(self._heap, (request.due_s, self._number, request))
        self._number += 1
        self.images += request.size

    def head(self) -> Request | None:
        """The most urgent request; cancelled ones before it go."""
        while self._heap and self._heap[0][2].future.cancelled():
            self._pop()
        return self._heap[0][2] if self._heap else None

    def take_head(self) -> Request | None:
        """The most urgent request; its future cannot be cancelled any more."""
        while (head := self.head()) is not None:
            self._pop()
            if head.future.set_running_or_notify_cancel():
                return head
        return None

    def take(self, images: int) -> Iterator[Request]:
        """The most urgent requests, as long as all of them are of so many images at most; of a larger head that alone. Their
        futures cannot be cancelled any more."""
        room = images
        while (head := self.head()) is not None and (head.size <= room or room == images):
            self._pop()
            if head.future.set_running_or_notify_cancel():
                room -= head.size
                yield head

    def take_all(self) -> Iterator[Request]:
        """Everything, as `take` does."""
        while (head := self.take_head()) is not None:
            yield head

    def _pop(self) -> None:
        self.images -= heapq.heappop(self._heap)[2].size
