"""A bundle that is served: requests with deadlines in, answers of the widest network that the load leaves time for out.

One thread computes (`lane`), any number submit, one more watches that runs come back. What runs next is `scheduling`'s to say,
under one lock; nothing is computed and no answer is handed over while that is held.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.manifest import Manifest, read_manifest
from slimexport.target.runners import Given
from slimexport.target.serving.answer import Answer, Event, Snapshot, WidthState
from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.errors import Closed, Late, QueueFull, RequestError, RunFailed
from slimexport.target.serving.lane import Lane
from slimexport.target.serving.measuring import PERCENTILE
from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.policy import DEFAULT, Latencies, Policy, named_policy
from slimexport.target.serving.requests import Request
from slimexport.target.serving.scheduling import LATE, REFUSE, Run, Scheduler
from slimexport.target.serving.starting import open_widths
from slimtrain.base.errors import UserError

log = logging.getLogger(__name__)

SLO_MS = 50.0
QUEUE = 1000
HANG_S = 10.0  # and at least HANG_FACTOR times what the run should take
HANG_FACTOR = 20.0
MOST_EVENTS = 20_000
MOST_DEADLINE_MS = 3_600_000.0
WATCH_S = 0.25


@dataclass(frozen=True)
class WidthInfo:
    """An open width: its `label`, the `width` of the manifest (or an AutoSlim switch's number, or None), its file's `name`, and
    its accuracy where the manifest knows one."""

    label: str
    width: float | None
    name: str
    accuracy: float | None


class Runtime:
    """A bundle as a service in this process, for a `with` block.

    `slo_ms`: the deadline of requests that bring none. `widths`: which to hold open; by default five that spread best over the
    Pareto front of latency and accuracy. `precision`, `backend`: as in `open_network`; by default the bundle's engines where
    they run here, else onnxruntime on the CPU. `policy`: `drain`, `slackfit`, `fixed:WIDTH`, or a function as in
    `slimexport.target.serving.policy`. `late`: whether a request that can no longer meet its deadline is refused (`refuse`) or
    served at the narrowest (`serve`). `queue`: images that may wait. `batches`: the numbers of images of a run that are
    measured. `threads`: of onnxruntime on the CPU. `hang_s`: a run that takes longer (and twenty times what it should) is given
    up, and its width taken out.

    Raises BundleError for what the bundle does not hold or whose SHA-256 is wrong, MissingBackend where nothing runs it, and
    UserError for values that cannot be.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        slo_ms: float = SLO_MS,
        widths: Sequence[float | str] | None = None,
        precision: str = "fp32",
        backend: str | None = None,
        policy: str | Policy = DEFAULT,
        late: str = REFUSE,
        queue: int = QUEUE,
        batches: Sequence[int] | None = None,
        threads: int | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self.bundle = Path(bundle)
        self.manifest: Manifest = read_manifest(self.bundle)
        self.slo_ms = _deadline(slo_ms, "slo_ms")
        if late not in LATE:
            raise UserError(f"late {late!r}: expected one of {', '.join(LATE)}.")
        if queue < 1:
            raise UserError(f"queue {queue}: expected a number of images, 1 or more.")
        self.queue, self.hang_s = queue, hang_s
        files, latencies = open_widths(
            self.bundle,
            self.manifest,
            widths=widths,
            precision=precision,
            backend=backend,
            batches=batches,
            slo_ms=self.slo_ms,
            threads=threads,
        )
        self.backend = files[0].runner.backend
        self.widths = tuple(WidthInfo(file.label, file.artifact.width, file.artifact.name, file.accuracy) for file in files)
        self._files: list[OpenFile] = files  # those that serve, as the latencies count them
        self._out: dict[str, str] = {}
        self._began = time.perf_counter()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._closing = self._refusing = False
        self._policy: str | Policy = policy
        self._scheduler = Scheduler(Corrected(latencies, PERCENTILE), _policy(policy, latencies), late)
        self._counts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._number = 0
        self._lane = self._new_lane()
        self._watcher = threading.Thread(target=self._watch, name="slimexport watches", daemon=True)
        self._lane.start()
        self._watcher.start()

    # ------------------------------------------------------------------------------------------------------- requests

    def submit(self, image: Array, deadline_ms: float | None = None) -> Future[Answer]:
        """The answer to an image [C, H, W] or several [N, C, H, W], float32, normalized as `manifest.input` says, due in
        `deadline_ms` from now (None: `slo_ms`). The array must not change until the answer is there. A future that is cancelled
        while it waits is not computed.

        Raises RequestError for another shape, type or deadline, QueueFull, and Closed. The future raises Late where the request
        cannot meet its deadline any more, RunFailed where its run came to nothing, Closed where the runtime was.
        """
        images, single = self._checked(image)
        within_ms = self.slo_ms if deadline_ms is None else _deadline(deadline_ms, "deadline_ms")
        now = time.perf_counter()
        request = Request(images, single, now, now + within_ms / 1e3)
        with self._changed:
            if self._closing or not self._files:
                self._counts["closed"] += 1
                raise Closed("the runtime is closed." if self._closing else f"no width is left: {self._why_out()}")
            if request.size > self._scheduler.latencies.largest:
                raise RequestError(
                    f"{request.size} images: a run takes {self._scheduler.latencies.largest} at most. Send fewer at once."
                )
            waiting = self._scheduler.waiting.images
            if waiting + request.size > self.queue:
                self._counts["full"] += 1
                quickest = self._scheduler.latencies
                raise QueueFull(
                    f"{waiting} images wait, {self.queue} may. Send fewer, or allow more.",
                    retry_s=quickest.of_all(0, waiting, quickest.largest) / 1e3,
                )
            self._counts["submitted"] += 1
            self._scheduler.waiting.add(request)
            self._changed.notify()
        return request.future

    def _checked(self, image: Array) -> tuple[Array, bool]:
        shape = self.manifest.input.input_shape
        images = np.asarray(image)
        single = images.ndim == len(shape)
        if single:
            images = images[None]
        if images.shape[1:] != shape or not len(images):
            wanted = ", ".join(map(str, shape))
            raise RequestError(f"an input of shape {list(np.shape(image))}, expected [{wanted}] or [N, {wanted}].")
        if images.dtype != np.float32:
            raise RequestError(f"an input of {images.dtype}, expected float32, normalized as the manifest's input says.")
        return images, single

    # --------------------------------------------------------------------------------------------------------- running

    def _new_lane(self) -> Lane:
        return Lane(self._next_run, self._compute, "slimexport computes")

    def _next_run(self, lane: Lane) -> Run | None:
        """What a lane does next; it waits for something to do. None where there is nothing any more."""
        while True:
            with self._changed:
                while True:
                    if lane.given_up or not self._files:
                        return None
                    if self._scheduler.waiting.head() is not None:
                        break
                    if self._closing:
                        return None
                    self._changed.wait()
                run, late = self._scheduler.next(time.perf_counter())
                if run is not None:
                    lane.running = (run, time.perf_counter())
            for request in late:
                self._refuse(request)
            if run is not None:
                return run

    def _compute(self, lane: Lane, run: Run) -> None:
        """One run, and its answers. What goes wrong in it is its own requests' error."""
        with self._changed:
            if lane.given_up:
                return
            file = self._files[run.width]
        parts = [request.images for request in run.requests]
        began = time.perf_counter()
        try:
            given = file(parts[0] if len(parts) == 1 else np.concatenate(parts))
            outputs = _parts(given, run)
        except Exception as error:  # whatever a backend raises
            ended, failure = time.perf_counter(), error
            with self._changed:
                lane.running = None
                if lane.given_up:
                    return
            self._fail(run, file.label, RunFailed(f"width {file.label}: the run failed ({failure})."), began, ended)
            return
        ended = time.perf_counter()
        with self._changed:
            lane.running = None
            if lane.given_up:  # its requests were told, and its width is out
                return
            self._scheduler.corrected.seen(run.width, run.images, 1e3 * (ended - began))
        for request, output in zip(run.requests, outputs, strict=True):
            self._record(request, "answered", ended, file.label, run.images, began)
            queued, computed = 1e3 * (began - request.submitted_s), 1e3 * (ended - began)
            late = ended > request.due_s
            answer = Answer(output, file.artifact.width, file.label, run.images, queued, computed, late)
            request.future.set_result(answer)

    def _refuse(self, request: Request) -> None:
        now = time.perf_counter()
        self._record(request, "late", now, "", 0, now)
        waited, within = 1e3 * (now - request.submitted_s), 1e3 * (request.due_s - request.submitted_s)
        request.future.set_exception(
            Late(f"waited {waited:.1f} of its {within:g} ms, and no width ends in the rest. Send fewer, or allow more time.")
        )

    def _fail(self, run: Run, label: str, error: Exception, began: float, ended: float) -> None:
        for request in run.requests:
            self._record(request, "failed", ended, label, run.images, began)
            request.future.set_exception(error)

    def _record(self, request: Request, outcome: str, ended: float, label: str, batch: int, began: float) -> None:
        with self._changed:
            self._number += 1
            self._counts[outcome] += 1
            if outcome == "answered":
                self._answers[label] += 1
                self._counts["in_time"] += ended <= request.due_s
            self._events.append(
                Event(
                    self._number,
                    ended - self._began,
                    label,
                    request.size,
                    batch,
                    1e3 * (began - request.submitted_s),
                    1e3 * (ended - began),
                    1e3 * (ended - request.submitted_s),
                    1e3 * (request.due_s - ended),
                    outcome,
                )
            )

    # ---------------------------------------------------------------------------------------------------------- hanging

    def _watch(self) -> None:
        """Give up a run that does not come back."""
        while not self._ended.wait(WATCH_S):
            with self._changed:
                lane = self._lane
                if lane.running is None:
                    continue
                run, began = lane.running
                took = time.perf_counter() - began
                limit = max(self.hang_s, HANG_FACTOR * self._scheduler.latencies.of(run.width, run.images) / 1e3)
                if took <= limit:
                    continue
                lane.given_up = True
                label = self._take_out(run.width, f"a run of {run.images} did not come back within {limit:.1f} s")
                self._lane = self._new_lane()
                self._lane.start()
                orphans = [] if self._files else list(self._scheduler.waiting.take_all())
            self._fail(run, label, RunFailed(f"width {label}: {self._out[label]}. It is out."), began, began + took)
            for request in orphans:
                self._end(request, Closed(f"no width is left: {self._why_out()}"))

    def _take_out(self, width: int, reason: str) -> str:
        """Serve without a width; its label. The lock is held."""
        file = self._files.pop(width)
        self._out[file.label] = reason
        log.error("width %s is taken out: %s", file.label, reason)
        if self._files:
            self._scheduler.corrected = self._scheduler.corrected.without(width)
            self._scheduler.policy = _policy(self._policy, self._scheduler.latencies)
        return file.label

    def _why_out(self) -> str:
        return "; ".join(f"{label}: {reason}" for label, reason in self._out.items())

    def _end(self, request: Request, error: Closed) -> None:
        with self._changed:
            self._counts["closed"] += 1
        request.future.set_exception(error)

    # ------------------------------------------------------------------------------------------------------ what it says

    def now(self) -> float:
        """Seconds since it began, on the clock of events."""
        return time.perf_counter() - self._began

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        with self._changed:
            return bool(self._files) and not self._closing

    @property
    def latencies(self) -> Latencies:
        """As they are now."""
        with self._changed:
            return self._scheduler.latencies

    @property
    def policy(self) -> str | Policy:
        return self._policy

    @policy.setter
    def policy(self, policy: str | Policy) -> None:
        with self._changed:
            self._scheduler.policy = _policy(policy, self._scheduler.latencies)
            self._policy = policy

    def stats(self) -> Snapshot:
        """Counts since it began, and what is now."""
        with self._changed:
            counts, latencies = self._counts, self._scheduler.latencies
            return Snapshot(
                submitted=counts["submitted"],
                answered=counts["answered"],
                in_time=counts["in_time"],
                failed=counts["failed"],
                refused={reason: counts[reason] for reason in ("late", "full", "closed")},
                waiting=self._scheduler.waiting.images,
                widths=tuple(
                    WidthState(info.label, info.accuracy, self._answers[info.label], self._out.get(info.label, ""))
                    for info in self.widths
                ),
                latencies_ms={
                    label: dict(zip(latencies.batches, row, strict=True))
                    for label, row in zip(latencies.widths, latencies.ms, strict=True)
                },
            )

    def recent(self, since: int = 0) -> list[Event]:
        """The last events whose number is above `since`, in order; 20,000 are kept."""
        with self._changed:
            return [event for event in self._events if event.number > since]

    # ------------------------------------------------------------------------------------------------------------ ending

    def close(self, drain: bool = True) -> None:
        """Take nothing more; serve what waits, or without `drain` refuse it; free what is held. Every future is done then."""
        with self._changed:
            self._closing = True
            rest = [] if drain else list(self._scheduler.waiting.take_all())
            self._changed.notify_all()
        for request in rest:
            self._end(request, Closed("the runtime was closed."))
        while not (lane := self._lane).join(WATCH_S) or lane is not self._lane:
            pass  # the watcher ends one that hangs
        self._ended.set()
        self._watcher.join()
        with self._changed:
            files, self._files = self._files, []
        for file in files:
            file.runner.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _parts(given: Given, run: Run) -> list[Any]:
    """A run's output, cut into what belongs to its requests."""
    outputs, start = [], 0
    for request in run.requests:
        rows = slice(start, start + request.size)
        start = rows.stop

        def own(array: Array, rows: slice = rows, single: bool = request.single) -> Array:
            if len(array) != run.images:
                raise ValueError(f"{len(array)} rows for {run.images} images")
            return array[rows][0] if single else array[rows]

        outputs.append({name: own(array) for name, array in given.items()} if isinstance(given, dict) else own(given))
    return outputs


def _policy(policy: str | Policy, latencies: Latencies) -> Policy:
    """UserError for a name that is none."""
    if not isinstance(policy, str):
        return policy
    try:
        return named_policy(policy, latencies.widths)
    except ValueError as error:
        raise UserError(str(error)) from error


def _deadline(ms: float, what: str) -> float:
    if not (isinstance(ms, int | float) and math.isfinite(ms) and 0 < ms <= MOST_DEADLINE_MS):
        raise RequestError(f"{what} {ms!r}: expected milliseconds above 0, up to an hour.")
    return float(ms)
