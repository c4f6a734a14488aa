"""What traces are sent to: runtimes of a bundle, opened for every policy anew, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array
from benchmarks.cells.shares import AP, TOP1
from benchmarks.load import in_process, over_http
from benchmarks.load.accuracies import with_accuracies
from benchmarks.load.book import Samples
from benchmarks.load.capacity import median_times
from benchmarks.load.figures import WidthFacts
from benchmarks.load.in_process import images_of
from slimexport.target.serving.policy import DEFAULT, FIXED, NAMES, POLICIES
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError, nearest

WARM_UP: Array = np.arange(20) / 20.0  # a second of requests before a run, which are not counted
AS_SERVED = "as served"  # whatever policy a server has


@dataclass(frozen=True)
class Opened:
    """What a bundle's runtime was when it was first opened: the `labels` of its widths from the narrowest, the median times of
    the widest by batch, and its latencies by width and batch, at the percentile that it goes by; which `accuracy_kind` its
    widths have, TOP1 or AP."""

    network: str
    backend: str
    labels: tuple[str, ...]
    widest_ms: Mapping[int, float]
    latencies_ms: Mapping[str, Mapping[int, float]]
    accuracy_kind: str = TOP1


class LocalService:
    """A bundle in this process. A policy `fixed:WIDTH` has a runtime with that width alone, as a server without slimmable
    networks has; all others have the same widths, those of the first opening."""

    def __init__(
        self, bundle: Path, widths: Sequence[float | str] | None, slo_ms: float, seed: int, images: int = 1, **options: Any
    ) -> None:
        self.bundle, self.slo_ms, self.options = bundle, slo_ms, options
        self._facts: dict[str, WidthFacts] = {}
        with self._runtime(widths, DEFAULT) as runtime:
            labels = tuple(info.label for info in runtime.widths)
            latencies, shape = runtime.latencies, runtime.manifest.input.input_shape
            if images > latencies.largest:
                raise UserError(f"--images {images}: a run takes {latencies.largest} at most. Send fewer in a request.")
            self.images = images_of(shape, seed, together=images)
            self.opened = Opened(
                runtime.manifest.source.network,
                runtime.backend,
                labels,
                median_times(runtime, labels[-1], images_of(shape, seed, 1)[0]),
                {
                    label: dict(zip(latencies.batches, row, strict=True))
                    for label, row in zip(latencies.widths, latencies.ms, strict=True)
                },
                TOP1 if runtime.manifest.detector is None else AP,
            )
            manifest = runtime.manifest
        self._shape, self._classes = manifest.input.input_shape, manifest.output.classes if manifest.classifies else None

    def _runtime(self, widths: Sequence[float | str] | None, policy: str) -> Runtime:
        runtime = Runtime(self.bundle, slo_ms=self.slo_ms, widths=widths, policy=policy, **self.options)
        self._facts |= {fact.label: fact for fact in in_process.facts_of(runtime.widths)}
        return runtime

    @property
    def facts(self) -> tuple[tuple[WidthFacts, ...], str | None]:
        """The widths that were opened up to now with their accuracies, and where these are from."""
        return with_accuracies(tuple(self._facts.values()), self.opened.network, self._shape, self._classes)

    def play(self, policy: str, times_s: Array) -> Samples:
        """A trace on a runtime of its own."""
        fixed = fixed_width(policy)
        with self._runtime(self.opened.labels if fixed is None else [fixed], policy) as runtime:
            in_process.play(runtime, WARM_UP, self.images, self.slo_ms)
            return in_process.play(runtime, times_s, self.images, self.slo_ms)


class RemoteService:
    """A model of a server. Its policy is its own."""

    def __init__(self, url: str, slo_ms: float, seed: int, images: int = 1) -> None:
        self.url, self.slo_ms = url, slo_ms
        self.model = over_http.model_of(url)
        self.images = images_of(self.model.shape, seed, together=images)

    @property
    def facts(self) -> tuple[tuple[WidthFacts, ...], str | None]:
        return self.model.facts

    def play(self, policy: str, times_s: Array) -> Samples:
        """A trace sent to the server, whatever `policy` is called."""
        over_http.play(self.url, self.model, WARM_UP, self.images, self.slo_ms)
        return over_http.play(self.url, self.model, times_s, self.images, self.slo_ms)


def fixed_width(policy: str) -> float | str | None:
    """The width of `fixed:WIDTH`, None of other policies."""
    kind, colon, width = policy.partition(":")
    return width_of(width) if kind == FIXED and colon else None


def width_of(text: str) -> float | str:
    """A width as it is typed: a number, or a plan's name."""
    try:
        return float(text)
    except ValueError:
        return text


def names_of(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def checked_policies(text: str) -> list[str]:
    """The policies of a comma-separated list. UserError for a name that is none, and for one that is there twice."""
    names = names_of(text)
    if not names:
        raise UserError(f"--policies {text!r}: expected some of {', '.join(NAMES)}.")
    for name in names:
        if name not in POLICIES and not (name.startswith(f"{FIXED}:") and name != f"{FIXED}:"):
            raise UserError(f"--policies: {name!r} is not known{nearest(name, POLICIES)}. Available: {', '.join(NAMES)}.")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"--policies: {twice[0]} is there twice. Repeat runs with --repeats.")
    return names
