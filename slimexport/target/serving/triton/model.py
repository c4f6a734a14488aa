"""A Triton model that holds several widths of a network and chooses one for every batch.

A model repository gets a copy of this file, `1/model.py`, with copies of what it imports beside it (`adaptive`), so that the
server's Python needs numpy and onnxruntime only (of engines TensorRT and a CUDA runtime).

Triton's Python backend tells neither how many requests wait in the server nor since when. What `execute` is still computing
holds back whatever comes meanwhile, out of its sight. So `execute` only moves requests into a queue of its own, and returns
without an answer; a thread serves that queue, and sends every answer when it is ready (InferenceResponseSender, of models that
are not decoupled too). The policy thus sees all that waits. What it cannot know is how long a request was on its way until
`execute` had it: deadlines begin there. Tried on Triton 2.51; servers whose backend takes answers from `execute` alone refuse.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.measuring import PERCENTILE, measure
from slimexport.target.serving.policy import named_policy
from slimexport.target.serving.requests import Request
from slimexport.target.serving.scheduling import LATE, Run, Scheduler
from slimexport.target.serving.triton.widths import WIDTHS, Width, open_width

WIDTH = "width"  # the output that says which was used
WITHIN_S = 5.0  # what measuring may take
FAILURES = 3  # in a row take a width out
OUTCOMES = ANSWERED, FAILED = ("answered", "failed")
REASONS = TOO_LATE, FULL, INVALID = ("late", "full", "invalid")


@dataclass(frozen=True)
class Settings:
    """What an operator may edit, as parameters in `config.pbtxt`: the deadline of requests without a timeout; the policy; what
    becomes of requests that cannot meet theirs; the images that may wait; onnxruntime's threads (0: as many as it takes)."""

    slo_ms: float
    policy: str
    late: str
    queue: int
    threads: int

    @staticmethod
    def of(parameters: Mapping[str, Mapping[str, str]], labels: Sequence[str]) -> Settings:
        """ValueError for a value that cannot be."""
        texts = {key: value["string_value"] for key, value in parameters.items()}
        settings = Settings(
            _number(texts, "slo_ms", float, 1e-3),
            texts.get("policy", ""),
            texts.get("late", ""),
            _number(texts, "queue", int, 1),
            _number(texts, "threads", int, 0),
        )
        named_policy(settings.policy, labels)
        if settings.late not in LATE:
            raise ValueError(f"parameter late is {settings.late!r}, expected one of {', '.join(LATE)}.")
        return settings


def _number(texts: Mapping[str, str], key: str, kind: Any, least: float) -> Any:
    try:
        value = kind(texts[key])
    except (KeyError, ValueError):
        value = math.nan
    if not least <= value < math.inf:
        raise ValueError(f"parameter {key} is {texts.get(key)!r}, expected a number of at least {least:g}.")
    return value


@dataclass(eq=False)
class Asked(Request):
    """A request, with what takes its answer."""

    sender: Any = None


class Counters:
    """What the server's metrics tell of a model, beside its own: those of `--serve`, with the model's name. Nothing where its
    metrics are off; no request fails for them."""

    def __init__(self, backend: Any, model: str, widths: Sequence[str]) -> None:
        self._error = backend.TritonModelException
        self._metrics: dict[tuple[str, ...], Any] = {}
        self._families = []  # which own their metrics
        for name, text, labels, values in (
            ("images", "Images answered.", ("width",), [(width,) for width in widths]),
            ("requests", "Requests by outcome.", ("width", "outcome"), list(itertools.product(widths, OUTCOMES))),
            ("refused", "Requests that were not taken.", ("reason",), [(reason,) for reason in REASONS]),
            ("deadline_misses", "Refused as late, or answered late.", (), [()]),
        ):
            try:
                kind = backend.MetricFamily.COUNTER
                family = backend.MetricFamily(name=f"slimexport_{name}_total", description=text, kind=kind)
                for row in values:
                    named = dict(zip(labels, row, strict=True))
                    self._metrics[(name, *row)] = family.Metric(labels={"model": model, **named})
            except self._error as error:
                backend.Logger.log_warn(f"{model}: no metrics of its own ({error})")
                return
            self._families.append(family)

    def add(self, count: int, name: str, *labels: str) -> None:
        metric = self._metrics.get((name, *labels))
        if metric is not None and count:
            with contextlib.suppress(self._error):
                metric.increment(count)


class TritonPythonModel:
    """What Triton calls: `initialize`, `execute`, `finalize`."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the widths and measure them. ValueError for parameters that cannot be and files that were changed: the server
        does not load the model, and says why."""
        import triton_python_backend_utils as backend

        self._backend = backend
        folder = Path(__file__).parent
        config = json.loads(args["model_config"])
        stored = json.loads((folder / WIDTHS).read_text(encoding="utf-8"))
        labels = [entry["label"] for entry in stored["widths"]]
        settings = Settings.of(config.get("parameters", {}), labels)
        (tensor,) = config["input"]
        self._input, self._shape = str(tensor["name"]), tuple(int(size) for size in tensor["dims"])
        self._settings = settings
        self._widths = [open_width(folder, entry, settings.threads) for entry in stored["widths"]]
        most = max(1, int(config["max_batch_size"]))
        batches = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
        widths = [(width.label, width) for width in self._widths]
        latencies = measure(widths, self._shape, batches, settings.slo_ms, WITHIN_S)
        for label, row in zip(latencies.widths, latencies.ms, strict=True):
            times = ", ".join(f"{batch}: {ms:.2f} ms" for batch, ms in zip(latencies.batches, row, strict=True))
            backend.Logger.log_info(f"{args['model_name']} width {label}: {times}")
        self._scheduler = Scheduler(Corrected(latencies, PERCENTILE), settings.policy, settings.late)
        self._failures: Counter[str] = Counter()  # in a row
        self._counters = Counters(backend, args["model_name"], labels)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="slimexport computes", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests. An answer is sent to every one of them, here or later."""
        now = time.perf_counter()
        for request in requests:
            sender = request.get_response_sender()
            try:
                asked = self._asked(request, sender, now)
            except ValueError as error:
                self._refuse(sender, INVALID, str(error), self._backend.TritonError.INVALID_ARG)
                continue
            with self._changed:
                waiting = self._scheduler.waiting.images
                full = waiting + asked.size > self._settings.queue
                if not full:
                    self._scheduler.waiting.add(asked)
                    self._changed.notify()
            if full:
                message = f"{waiting} images wait, {self._settings.queue} may. Send fewer, or allow more (parameter queue)."
                self._refuse(sender, FULL, message, self._backend.TritonError.UNAVAILABLE)

    def finalize(self) -> None:
        """Serve what waits, and free what is held."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        for width in self._widths:
            width.close()
        self._widths = []
        del self._counters

    def _asked(self, request: Any, sender: Any, now: float) -> Asked:
        """ValueError for what no width takes."""
        tensor = self._backend.get_input_tensor_by_name(request, self._input)
        if tensor is None:
            raise ValueError(f"no input {self._input}.")
        images = np.array(tensor.as_numpy())  # Triton takes its own back at the end of `execute`
        if images.shape[1:] != self._shape or not len(images) or images.dtype != np.float32:
            wanted = ", ".join(map(str, self._shape))
            raise ValueError(f"{self._input} is {images.dtype} {list(images.shape)}, expected float32 [N, {wanted}].")
        largest = self._scheduler.latencies.largest
        if len(images) > largest:
            raise ValueError(f"{len(images)} images: {largest} at most are computed within slo_ms. Send fewer at once.")
        timeout_ms = request.timeout() / 1e3  # microseconds; 0 of a request without
        within_ms = timeout_ms if timeout_ms > 0 else self._settings.slo_ms
        return Asked(images, False, now, now + within_ms / 1e3, sender=sender)

    # --------------------------------------------------------------------------------------------------------- computing

    def _work(self) -> None:
        """Serve until `finalize` was called and nothing waits."""
        while True:
            with self._changed:
                while self._scheduler.waiting.head() is None:
                    if self._closing:
                        return
                    self._changed.wait()
                run, late = self._scheduler.next(time.perf_counter())
            for request in late:
                waited, within = 1e3 * (time.perf_counter() - request.submitted_s), 1e3 * (request.due_s - request.submitted_s)
                message = f"waited {waited:.1f} of its {within:g} ms, and no width ends in the rest."
                self._refuse(_sender(request), TOO_LATE, message, self._backend.TritonError.UNAVAILABLE)
            self._counters.add(len(late), "deadline_misses")
            if run is not None:
                self._compute(run)

    def _compute(self, run: Run) -> None:
        """A run's time is that of its answers too: sending one takes a fifth of a millisecond."""
        began = time.perf_counter()
        width = self._widths[run.width]
        try:
            answers = self._answers(run, width)
        except Exception as error:  # a library's may derive from nothing else: it is that of this batch alone
            for request in run.requests:
                message = f"width {width.label} failed on a batch of {run.images}: {error}"
                self._send(_sender(request), error=self._backend.TritonError(message, self._backend.TritonError.INTERNAL))
            self._counters.add(len(run.requests), "requests", width.label, FAILED)
            self._failed(run.width)
            return
        self._failures[width.label] = 0
        late = 0
        for request, tensors in zip(run.requests, answers, strict=True):
            self._send(_sender(request), output_tensors=tensors)
            late += time.perf_counter() > request.due_s
        with self._changed:
            self._scheduler.ran(run, 1e3 * (time.perf_counter() - began))
        self._counters.add(run.images, "images", width.label)
        self._counters.add(len(run.requests), "requests", width.label, ANSWERED)
        self._counters.add(late, "deadline_misses")

    def _answers(self, run: Run, width: Width) -> list[list[Any]]:
        """The tensors of every request's answer."""
        outputs = width(np.concatenate([request.images for request in run.requests]))
        answers, start = [], 0
        for request in run.requests:
            rows = slice(start, start + request.size)
            start = rows.stop
            label = np.full((request.size, 1), width.label, dtype=object)
            tensors = [self._backend.Tensor(name, array[rows]) for name, array in outputs.items()]
            answers.append([*tensors, self._backend.Tensor(WIDTH, label)])
        return answers

    def _failed(self, number: int) -> None:
        """Take a width out that fails again and again, while others are left."""
        label = self._widths[number].label
        self._failures[label] += 1
        if self._failures[label] >= FAILURES and len(self._widths) > 1:
            self._backend.Logger.log_error(f"width {label} is taken out: {FAILURES} runs in a row failed")
            with self._changed:
                del self._widths[number]
                self._scheduler.take_out(number)

    def _refuse(self, sender: Any, reason: str, message: str, code: Any) -> None:
        self._send(sender, error=self._backend.TritonError(message, code))
        self._counters.add(1, "refused", reason)

    def _send(self, sender: Any, **answer: Any) -> None:
        """The one answer to a request; where the server takes it no more, nobody waits for it."""
        try:
            sender.send(self._backend.InferenceResponse(**answer), flags=self._backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:
            self._backend.Logger.log_warn(f"an answer was not taken: {error}")


def _sender(request: Request) -> Any:
    return cast(Asked, request).sender
