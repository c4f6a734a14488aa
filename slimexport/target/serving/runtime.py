"""A bundle that is served: requests with deadlines in, answers of the widest network that the load leaves time for out.

One thread computes (`lane`), any number submit, one more watches that runs come back. What runs next is `scheduling`'s to say,
under one lock; nothing is computed and no answer is handed over while that is held.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType

from slimexport.target.arrays import Array
from slimexport.target.manifest import Manifest, read_manifest
from slimexport.target.serving import errors
from slimexport.target.serving.answer import Answer, Event, Snapshot, parts
from slimexport.target.serving.books import ANSWERED, CLOSED, FAILED, FULL, SUBMITTED, Books, as_events
from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.errors import Closed, Late, QueueFull, RunFailed, checked_ms, checked_policy, checked_request
from slimexport.target.serving.lane import Job, Lane
from slimexport.target.serving.measuring import PERCENTILE
from slimexport.target.serving.opening import OpenFile, OpenFiles, info_of
from slimexport.target.serving.policy import DEFAULT, FIXED, Latencies, Policy
from slimexport.target.serving.requests import Direct, Pending, Request
from slimexport.target.serving.scheduling import LATE, REFUSE, Run, Scheduler
from slimexport.target.serving.starting import Start
from slimexport.target.serving.watching import OnDisk, Watcher
from slimtrain.base.errors import UserError
from slimtrain.base.untrusted.quoting import reason

SLO_MS, QUEUE = 50.0, 1000
HANG_S, HANG_FACTOR = 10.0, 20.0  # and at least so many times what the run should take
JOIN_S, STOPPING_S = 0.25, 2.0
LEARN_OF = 4  # runs on threads that ask: to wake the lane's, which learns of them, takes as long as all else after a run
SHUT = "the runtime was closed."


class Runtime(AbstractContextManager["Runtime"]):
    """A bundle as a service in this process, for a `with` block.

    `slo_ms`: the deadline of requests that bring none. `widths`: which to hold open; by default five that spread best over
    the Pareto front of latency and accuracy. `precision`, `backend`: as in `open_network`; by default the bundle's engines
    where they run here, else onnxruntime on the CPU. `policy`: `drain`, `slackfit`, `fixed:WIDTH`, or a function as in
    `slimexport.target.serving.policy`; it is called while the runtime's lock is held, so it must be quick. `late`: whether a
    request that can no longer meet its deadline is refused (`refuse`) or served at the narrowest (`serve`). `queue`: images
    that may wait. `batches`: the numbers of images of a run that are measured. `profile`: a `results.jsonl` of `python -m
    benchmarks` that says what runs take; without one that is measured, and kept in the user's cache. `threads`: of
    onnxruntime on the CPU. `hang_s`: a run that takes longer than this (10 seconds by default), and than twenty times what it
    should, is given up, and its width taken out, as is one of which three runs in a row fail, while others are left.

    What is on disk is read at the start alone: a bundle that is exported again is served once a runtime is opened on it.
    Raises BundleError for what is not there or whose SHA-256 is wrong, MissingBackend where nothing runs it, else UserError.

    >>> import numpy, slimexport
    >>> _ = slimexport.export("random:us_mobilenet_v1", widths=[0.25, 0.5], image_size=32, output_dir="mobilenet")
    >>> with slimexport.Runtime("mobilenet", slo_ms=20) as runtime:
    ...     answer = runtime.submit(numpy.zeros((3, 32, 32), numpy.float32), deadline_ms=60_000).result()
    >>> answer.output.shape, answer.width
    ((1000,), 0.5)
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
        profile: str | Path | None = None,
        threads: int | None = None,
        hang_s: float | None = None,
    ) -> None:
        if late not in LATE:
            raise UserError(f"late {late!r}: expected one of {', '.join(LATE)}.")
        errors.check_counts(queue=queue, threads=1 if threads is None else threads)
        if hang_s is not None and not (hang_s > 0 and math.isfinite(hang_s)):
            raise UserError(f"hang_s {hang_s!r}: expected seconds above 0.")
        if isinstance(policy, str) and not policy.startswith(f"{FIXED}:"):
            checked_policy(policy, ())  # before anything is opened
        self.bundle, self._slo_ms = Path(bundle), checked_ms(slo_ms, "slo_ms")
        self.queue, self.hang_s = queue, HANG_S if hang_s is None else float(hang_s)
        self._on_disk = OnDisk(self.bundle)
        self.manifest: Manifest = read_manifest(self.bundle)
        self._shape, self._results = tuple(self.manifest.input.input_shape), self.manifest.results
        start = Start(self.bundle, self.manifest, self._slo_ms, widths, precision, backend, batches, profile, threads)
        files, latencies = start.open()
        try:
            self._serve(files, latencies, policy, late)
        except BaseException:
            OpenFiles(files).close()
            raise

    def _serve(self, files: list[OpenFile], latencies: Latencies, policy: str | Policy, late: str) -> None:
        """Begin, with what was opened."""
        self._began = time.perf_counter()
        self._scheduler = Scheduler(Corrected(latencies, PERCENTILE), checked_policy(policy, latencies.widths), late)
        self.backend = files[0].runner.backend
        self.widths = tuple(map(info_of, files))
        self._files = OpenFiles(files)
        self._lock = threading.RLock()  # a policy of the user's, which is called while it is held, may look at the runtime
        self._closing = False
        self._books = Books(self._began)
        self._computed: list[tuple[Run, OpenFile, float]] = []  # and not learned of yet
        self._lane = Lane(self._next_job, self._compute)
        self._watcher = Watcher(self._give_up_what_hangs, self._on_disk.look)
        self._lane.start()
        self._watcher.start()

    def submit(self, image: Array, deadline_ms: float | None = None) -> Future[Answer]:
        """The answer to an image [C, H, W] or several [N, C, H, W], float32, normalized as `manifest.input` says, due in
        `deadline_ms` from now (None: `slo_ms`). The array must not change until the answer is there. A future that is
        cancelled while it waits is not computed. What a future calls back runs on the thread that computes: it must be quick.

        Raises RequestError for another shape, type or deadline, QueueFull, and Closed. The future raises Late where the
        request cannot meet its deadline any more, RunFailed where its run came to nothing, Closed where the runtime was."""
        future, within_ms = Pending(), self._slo_ms if deadline_ms is None else deadline_ms
        request = checked_request(image, self._shape, self._scheduler.latencies.largest, within_ms, future)
        with self._lock:
            if self._takes(request):
                self._wait(request, future)
        return future

    def infer(self, image: Array, deadline_ms: float | None = None) -> Answer:
        """The same, its answer awaited, and computed on the thread that asks where nothing else waits or runs: no other thread
        has to wake up, which takes as long as all else that a request costs. A run that does not come back holds this thread;
        others are served. Ctrl-C is raised once the run is over. Raises what `submit` and its future would, UserError where a
        future's callback calls it."""
        within_ms = self._slo_ms if deadline_ms is None else deadline_ms
        request = checked_request(image, self._shape, self._scheduler.latencies.largest, within_ms, Direct())
        errors.check_thread("infer", self._lane.is_here)
        job = failure = None
        try:
            with self._lock:
                lane = self._lane
                alone = lane.job is None and not self._scheduler.waiting.images and not lane.leaving
                if (taken := self._takes(request)) and alone:
                    run = self._scheduler.alone(request, request.submitted_s)
                    job = Job(run, self._files.serve[run.width], request.submitted_s)
                    lane.job, lane.asks = job, threading.get_ident()
                    self._books.count(SUBMITTED)  # not before: Ctrl-C may come anywhere here
                elif taken:
                    request.future = future = Pending()
                    self._wait(request, future)
            failure = None if job is None else self._compute(lane, job)
        finally:
            if job is not None:
                self._hand_back(lane, job)
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        try:
            return request.future.result()
        except BaseException:  # Ctrl-C, too: nobody waits for it any more
            request.future.cancel()
            raise

    def _takes(self, request: Request) -> bool:
        """Whether a request is to wait; one that would be late is refused. Closed, QueueFull. The lock is held."""
        waiting, counts = self._scheduler.waiting, self._books
        if self._closing or not self._files:
            counts.refuse(CLOSED)
            raise Closed("the runtime is closed." if self._closing else self._files.none_left())
        if waiting.images + request.size > self.queue:
            counts.refuse(FULL)
            raise QueueFull.of(waiting.images, self.queue, self._scheduler.empty_in_s())
        if self._scheduler.refuses(request, request.submitted_s):
            counts.count(SUBMITTED)
            counts.late(request, request.submitted_s)
            request.future.fail(Late.after(request, request.submitted_s))  # nobody has it yet
            return False
        return True

    def _wait(self, request: Request, future: Pending) -> None:
        self._books.count(SUBMITTED)
        future.on_cancel = partial(self._cancel, self._scheduler.waiting.add(request))
        self._lane.wake()

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._scheduler.waiting.cancel(number)

    def _next_job(self, lane: Lane) -> Job | None:
        """What a lane does next; it waits for something to do. None where there is nothing any more."""
        while True:
            self._drop_what_fails(lane)
            with self._lock:
                if lane.given_up or not self._files:
                    return None
                job, now = None, time.perf_counter()
                late: Sequence[Request] = ()
                if not (taken := lane.job is not None):  # by a thread that asks: it wakes this one afterwards
                    run, late = self._scheduler.next(now)
                    for request in late:
                        self._books.late(request, now)
                    if run is not None:
                        lane.job, lane.asks = (job := Job(run, self._files.serve[run.width], now)), None
                if job is None:
                    self._learn()  # of what ran on threads that ask
                    if self._closing and not late and not taken:
                        return None
            for request in late:
                request.future.fail(Late.after(request, now))
            if job is not None:
                return job
            if taken or not late:
                lane.wait()

    def _hand_back(self, lane: Lane, job: Job) -> None:
        """A lane's own thread goes on, after another one ran a job for it, or did not end it."""
        with self._lock:
            if lane.job is job:
                lane.job = None
                self._books.ran(job.run, FAILED, job.file.label, job.since_s, time.perf_counter())
            if lane.asks == threading.get_ident():
                lane.asks = None
            if self._waits() or job.run.trial or len(self._computed) >= LEARN_OF:
                lane.wake()

    def _waits(self) -> bool:
        """Whether there is something for the lane's own thread to do. The lock is held."""
        return bool(self._scheduler.waiting.images or self._closing or not self._files or self._files.to_go())

    def _drop_what_fails(self, lane: Lane) -> None:
        """Serve without widths whose runs fail, once none runs."""
        with self._lock:
            going = None if lane.job is not None else self._files.to_go()
            file = None if going is None else self._take_out(*going)
        if file is not None:
            file.runner.close()

    def _learn(self) -> None:
        """Count what ran, and let the latencies follow, once the answers are out. The lock is held."""
        for run, file, computed in self._computed:
            if self._files.is_at(file, run.width):
                self._scheduler.ran(run, computed)
        self._computed.clear()
        self._books.settle()

    def _compute(self, lane: Lane, job: Job) -> BaseException | None:
        """One run, and its answers, on the lane's thread or another. What goes wrong in it is its own requests' error."""
        run, file, began = job.run, job.file, time.perf_counter()
        failure: BaseException | None = None
        try:
            given = file(*[request.images for request in run.requests])
            ended = time.perf_counter()
            outputs = parts(given, self._results, [(request.size, request.single) for request in run.requests])
        except BaseException as error:  # whatever a backend raises: the next run is another one's
            ended, failure = time.perf_counter(), error.with_traceback(None)  # which holds this frame, and so the images
        if (tell := run.requests[0].future.on_ran) is not None:  # whoever waits for the others mostly waits in the same place
            tell()
        with self._lock:
            if not (given_up := lane.given_up):  # then its requests are told, and its width is out
                self._books.ran(run, FAILED if failure else ANSWERED, file.label, began, ended)
                self._files.ended(file, failure)
                if failure is None:
                    self._computed.append((run, file, computed := 1e3 * (ended - began)))
                else:
                    self._books.settle()  # or it holds the images
            lane.job = None
        why = f"the run failed ({reason(failure)})." if failure is not None else ""
        if given_up:
            file.runner.close()
            why = f"{self._files.out[file.label]}. It is out."
        if why:
            for request in run.requests:  # an error of its own each: whoever raises it writes into it
                request.future.fail(RunFailed(f"width {file.label}: {why}"))
            return failure
        for request, output in zip(run.requests, outputs, strict=True):
            queued, late = 1e3 * (began - request.submitted_s), ended > request.due_s
            request.future.answer(Answer(output, file.artifact.width, file.label, run.images, queued, computed, late))
        if lane.is_here:
            if not self._scheduler.waiting.images:
                lane.linger()
            with self._lock:
                self._learn()
        return None

    def _give_up_what_hangs(self) -> None:
        """Give up a run that does not come back: its lane, its width, its requests."""
        with self._lock:
            lane, job = self._lane, self._lane.job
            if job is None:
                if self._waits():  # a thread that asked was interrupted before it said so
                    lane.wake()
                return
            run, label = job.run, job.file.label
            limit = max(self.hang_s, HANG_FACTOR * self._scheduler.latencies.of(run.width, run.images) / 1e3)
            if (now := time.perf_counter()) <= job.since_s + limit:
                return
            lane.give_up()
            self._take_out(run.width, f"a run of {run.images} did not come back within {limit:.1f} s")
            self._books.ran(run, FAILED, label, job.since_s, now)
            other = Lane(self._next_job, self._compute)
            other.start()  # before `close` sees it
            self._lane = other
        for request in run.requests:
            request.future.fail(RunFailed(f"width {label}: {self._files.out[label]}. It is out."))
        if not self._files:
            self._refuse_all(self._files.none_left())

    def _take_out(self, width: int, why: str) -> OpenFile:
        """Serve without a width. The lock is held, by a thread of the runtime's."""
        file = self._files.take_out(width, why)
        if self._files:
            self._scheduler.take_out(width)
        return file

    def _refuse_all(self, why: str) -> None:
        """What waits will not be served."""
        with self._lock:
            rest = list(self._scheduler.waiting.take_all())
            for _ in rest:
                self._books.count(CLOSED)
        for request in rest:
            request.future.fail(Closed(why))

    # ------------------------------------------------------------------------------------------------------ what it says

    def now(self) -> float:
        """Seconds since it began, on the clock of events."""
        return time.perf_counter() - self._began

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        with self._lock:
            return bool(self._files) and not self._closing

    @property
    def slo_ms(self) -> float:
        """The deadline of requests that bring none; it can be set."""
        return self._slo_ms

    @slo_ms.setter
    def slo_ms(self, slo_ms: float) -> None:
        self._slo_ms = checked_ms(slo_ms, "slo_ms")

    @property
    def latencies(self) -> Latencies:
        """As they are now."""
        with self._lock:
            return self._scheduler.latencies

    @property
    def policy(self) -> str | Policy:
        """As it was set; UserError for a name that is none, or of a width that is not open."""
        return self._scheduler.policy

    @policy.setter
    def policy(self, policy: str | Policy) -> None:
        with self._lock:
            self._scheduler.policy = checked_policy(policy, self._scheduler.latencies.widths)

    def stats(self) -> Snapshot:
        """Counts since it began, and what is now."""
        with self._lock:
            widths = self._files.states(self.widths, self._books.answers)
            return self._books.snapshot(self._scheduler.waiting, widths, self._on_disk.stale, self._scheduler.latencies)

    def recent(self, since: int = 0) -> list[Event]:
        """The last events whose number is above `since`, in order; 20,000 are kept."""
        with self._lock:
            fields = self._books.since(since)
        return as_events(fields)

    # ------------------------------------------------------------------------------------------------------------ ending

    def close(self, drain: bool = True) -> None:
        """Take nothing more; serve what waits, or without `drain` refuse it; free what is held. Every future is done then.
        Ctrl-C while it serves what waits ends that: what runs is waited for, or left behind where that takes longer than
        STOPPING_S. UserError where a future's callback calls it: that is the thread that would have to end."""
        errors.check_thread("close", self._lane.is_here or (self._lane.job and self._lane.asks == threading.get_ident()))
        with self._lock:
            self._closing = True
            self._lane.wake()
        if not drain:
            self._refuse_all(SHUT)
        try:
            while not (lane := self._lane).join(JOIN_S) or lane is not self._lane:
                pass  # the watcher ends one that hangs
        except BaseException:
            self._refuse_all(SHUT)
            self._lane.end_soon(STOPPING_S)
            raise
        self._watcher.end()
        self._refuse_all(SHUT)  # of a lane that ended before its time
        self._files.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
