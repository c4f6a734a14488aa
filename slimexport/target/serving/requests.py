"""What waits: requests by their deadlines, the most urgent first."""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a Triton repository gets a copy of this file, which stands alone
    from slimexport.target.arrays import Array
    from slimexport.target.serving.answer import Answer


class Pending(Future["Answer"]):
    """A future that tells, once, when it is cancelled: what waits is counted, and its images are held no longer.

    `on_ran` is called on the thread that computes once the run has ended, before its answer is written down: another thread
    takes as long to wake up as that, so whoever has to wake one begins here. It must be quick, and raise nothing."""

    on_cancel: Callable[[], object] | None = None
    on_ran: Callable[[], object] | None = None

    def cancel(self) -> bool:
        cancelled = super().cancel()
        tell, self.on_cancel = self.on_cancel, None
        if cancelled and tell is not None:
            tell()
        return cancelled

    def begin(self) -> bool:
        """Whether it is to be computed: it cannot be cancelled any more. Not one that was, or that somebody else ended."""
        try:  # of `contextlib.suppress` three functions are called
            return self.set_running_or_notify_cancel()
        except RuntimeError:
            return False

    def answer(self, answer: Answer) -> None:
        """End it so; one that somebody else ended stays as it is, as after `fail`."""
        try:
            self.set_result(answer)
        except InvalidStateError:
            return

    def fail(self, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            self.set_exception(error)


class Direct:
    """In the place of a future for a request that is computed on the thread that asks: what it came to, without what others
    would need who wait for it."""

    on_ran = on_cancel = None

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def begin(self) -> bool:
        return True

    def cancel(self) -> bool:
        """It cannot be: it runs at once."""
        return False

    def done(self) -> bool:
        return self._answer is not None or self._error is not None

    def answer(self, answer: Answer) -> None:
        """End it so; one that was given up stays as it is, as after `fail`."""
        if not self.done():
            self._answer = answer

    def fail(self, error: Exception) -> None:
        if not self.done():
            self._error = error

    def result(self) -> Answer:
        """Its answer, or its error. It has ended."""
        if self._answer is not None:
            return self._answer
        error, self._error = self._error, None
        assert error is not None, "it has not ended"
        try:
            raise error
        finally:
            del error  # its trace holds this frame, and so the images, until somebody collects


@dataclass(eq=False, slots=True)
class Request:
    """`images` [N, ...] to be computed together by `due_s`, of the clock that `submitted_s` is of. `single`: one image that
    came without a batch dimension, whose answer has none either. `trial`: it is served though it seems to come too late."""

    images: Array
    single: bool
    submitted_s: float
    due_s: float
    future: Pending | Direct = field(default_factory=Pending)
    trial: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.images)


class Waiting:
    """Requests in the order of their deadlines, those of one deadline as they came. A request whose future is cancelled is not
    there any more. `images` counts what waits, `cancelled` the requests that went so."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._sizes: dict[int, int] = {}  # of what waits, by number; what is cancelled stays in the heap for a while
        self._number = 0
        self._last_due_s = -math.inf
        self.images = self.cancelled = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, request: Request) -> int:
        """The request's number, by which it can be cancelled."""
        number, size = self._number, request.size
        self._last_due_s = max(self._last_due_s, request.due_s) if self._sizes else request.due_s
        heapq.heappush(self._heap, (request.due_s, number, request))
        self._sizes[number] = size
        self.images += size
        self._number += 1
        return number

    def cancel(self, number: int) -> None:
        """A request's future was cancelled."""
        self.cancelled += self._forget(number)
        if len(self._heap) > 2 * len(self._sizes) + 8:
            self._heap = [entry for entry in self._heap if entry[1] in self._sizes]
            heapq.heapify(self._heap)

    @property
    def last_due_s(self) -> float:
        """By when all that waits is due, or later, where what was due last went; of nothing at no time."""
        return self._last_due_s if self._sizes else -math.inf

    def head(self) -> Request | None:
        """The most urgent request; cancelled ones before it go."""
        while self._heap and (self._heap[0][1] not in self._sizes or self._heap[0][2].future.done()):
            self.cancelled += self._pop()
        return self._heap[0][2] if self._heap else None

    def take_head(self) -> Request | None:
        """The most urgent request; its future cannot be cancelled any more."""
        while (head := self.head()) is not None:
            self._pop()
            if head.future.begin():
                return head
            self.cancelled += 1
        return None

    def take(self, images: int) -> list[Request]:
        """The most urgent requests, as long as all of them are of so many images at most; of a larger head that alone. Their
        futures cannot be cancelled any more."""
        taken: list[Request] = []
        room = images
        while room > 0 and (head := self.head()) is not None and (head.size <= room or room == images):
            self._pop()
            if head.future.begin():
                room -= head.size
                taken.append(head)
            else:
                self.cancelled += 1
        return taken

    def take_all(self) -> Iterator[Request]:
        """Everything, as `take` does."""
        while (head := self.take_head()) is not None:
            yield head

    def _pop(self) -> bool:
        return self._forget(heapq.heappop(self._heap)[1])

    def _forget(self, number: int) -> bool:
        """Whether it was not forgotten yet."""
        size = self._sizes.pop(number, 0)
        self.images -= size
        return size > 0
