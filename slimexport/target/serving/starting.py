"""A runtime's start: which widths it opens, and what their runs take here, within ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from slimexport.target.backends import BACKENDS
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest
from slimexport.target.serving.by_size import BySize
from slimexport.target.serving.choosing import MOST_OPEN, Candidate, front, halving, not_outdone, spread
from slimexport.target.serving.measuring import (
    BATCHES,
    OFF,
    covers,
    farthest,
    images_of,
    latencies_of,
    percentile,
    sample,
    time_run,
)
from slimexport.target.serving.opening import (
    MOST_IMAGES,
    OpenFile,
    accuracy_of,
    choose_backend,
    device_of,
    files_of,
    label_of,
    open_file,
    version_of,
)
from slimexport.target.serving.policy import Latencies
from slimexport.target.timings import Samples
from slimexport.target.timings.kept import Key, keep, read_kept
from slimexport.target.timings.recorded import ProfileError, Served, recorded
from slimtrain.base.text import some

log = logging.getLogger(__name__)

LOOKS = 9  # rounds of one image that tell which widths are worth opening
LEAST_LOOKS = 3  # of them, however long they take
LOOKING_S, START_S, LEAST_S = 4.0, 9.5, 0.5
OPENING_SHARE = 0.75  # of the time to look, after which no more files are opened: the rest is for runs


@dataclass(frozen=True)
class Start:
    """What a runtime is to open. `widths`, `precision`, `backend`, `batches`, `threads` as the user said, `profile` a file
    that `python -m benchmarks` wrote."""

    folder: Path
    manifest: Manifest
    slo_ms: float
    widths: Sequence[float | str] | None = None
    precision: str = "fp32"
    backend: str | None = None
    batches: Sequence[int] | None = None
    profile: str | Path | None = None
    threads: int | None = None

    def open(self) -> tuple[list[OpenFile], Latencies]:
        """The files to serve, opened, from the quickest to the widest, and their latencies, in that order. BundleError for
        what the bundle does not hold, MissingBackend where nothing runs it, ProfileError of a profile that does not help."""
        began = time.perf_counter()
        backend = choose_backend(self.manifest, self.backend)
        artifacts = files_of(self.folder, self.manifest, backend, self.precision, self.widths)
        known = None if self.profile is None else self._profile(Path(self.profile), artifacts, backend)
        if known is not None:
            artifacts = [artifact for artifact in artifacts if self._label(artifact) in known]
        sizes = self._sizes(artifacts, known)
        if known is not None:
            known = {label: {size: row[size] for size in sizes} for label, row in known.items()}
        if self.widths is None:
            artifacts = not_outdone(artifacts)
        if self.widths is None and len(artifacts) > MOST_OPEN:
            artifacts = self._worth_opening(artifacts, backend, known)
        with ExitStack() as undo:
            files = []
            for artifact in artifacts:
                files.append(self._open(artifact, backend))
                undo.callback(files[-1].runner.close)
            samples = self._samples(files, backend, sizes, known, START_S - (time.perf_counter() - began))
            if BACKENDS[backend].tunes:  # no run is to be of a size that has not run
                sizes = [size for size in sizes if all(size in samples[file.label] for file in files)]
                files = [self._tuned(file, sizes) for file in files]
            undo.pop_all()
        latencies = latencies_of([file.label for file in files], samples, sizes, self.slo_ms)
        return files, replace(latencies, filled=BACKENDS[backend].tunes)

    def _label(self, artifact: Artifact) -> str:
        return label_of(artifact, self.manifest)

    def _open(self, artifact: Artifact, backend: str) -> OpenFile:
        return open_file(self.folder, self.manifest, artifact, backend, self.threads)

    def _tuned(self, file: OpenFile, sizes: Sequence[int]) -> OpenFile:
        """The same, which runs batches of these sizes only, each of which has run."""
        images = images_of(self.manifest.input.input_shape, sizes[-1])
        if isinstance(file.runner, BySize):
            file.runner.keep(sizes)
        for size in sizes:
            file(images[:size])
        return replace(file, sizes=tuple(sizes))

    # ------------------------------------------------------------------------------------------------------- latencies

    def _profile(self, profile: Path, artifacts: Sequence[Artifact], backend: str) -> Samples:
        """What the file knows of the artifacts; of widths that were asked for it knows all."""
        names = {artifact.name: self._label(artifact) for artifact in artifacts}
        served = Served(self.manifest.source.network, self.precision, backend, tuple(self.manifest.input.input_shape), names)
        known = recorded(profile, served)
        if missing := [label for label in names.values() if label not in known]:
            lacks = f"{profile}: holds no latency of width {some(missing)}"
            if self.widths is not None:
                raise ProfileError(f"{lacks}. Measure it too, or choose of {some(list(known))}.")
            log.info("%s, which is not served", lacks)
        return known

    def _sizes(self, artifacts: Sequence[Artifact], known: Samples | None) -> list[int]:
        """The batches whose latencies are in the table: those that the user chose, of a profile those that it has of every
        width, by default powers of two, as far as engines take them."""
        most = min((artifact.engine.batch[2] for artifact in artifacts if artifact.engine is not None), default=MOST_IMAGES)
        if self.batches is not None:
            sizes = sorted(set(self.batches))
            if not sizes or not all(type(size) is int and 1 <= size <= most for size in sizes):
                raise BundleError(f"batches {list(self.batches)}: expected numbers of images, 1 to {most}.")
        elif known is not None:
            sizes = sorted(size for size in set[int].union(*map(set, known.values())) if size <= most)
        else:
            sizes = sorted({size for size in BATCHES if size <= most} | ({most} if most < BATCHES[-1] else set()))
        if known is None:
            return sizes
        shared = [size for size in sizes if all(size in row for row in known.values())]
        if not shared:
            raise ProfileError(
                f"{self.profile}: has no batch of {some([str(size) for size in sizes])} of every width. Measure some of all."
            )
        return shared

    def _samples(
        self, files: Sequence[OpenFile], backend: str, sizes: Sequence[int], known: Samples | None, within_s: float
    ) -> Samples:
        """Of a profile, as they are; of an earlier start, where a few runs do not tell otherwise; or measured now."""
        widths = [(file.label, file) for file in files]
        shape = self.manifest.input.input_shape
        if known is not None:
            label, times = farthest(widths, shape, {label: {sizes[0]: row[sizes[0]]} for label, row in known.items()})
            if not 1 / OFF <= times <= OFF:
                log.warning(
                    "%s: width %s takes %.2f times as long here. What is served corrects the table", self.profile, label, times
                )
            return known
        key = self._key([file.artifact for file in files], backend, sizes)
        tunes = BACKENDS[backend].tunes
        if (kept := read_kept(key)) is not None and (tunes or all(covers(row, sizes, self.slo_ms) for row in kept.values())):
            label, times = farthest(widths, shape, kept)
            if 1 / OFF <= times <= OFF:
                return kept
            log.info("width %s takes %.2f times as long as when it was measured: all are measured anew", label, times)
        samples = sample(widths, shape, sizes, self.slo_ms, max(LEAST_S, within_s), some=tunes)
        keep(key, samples)
        return samples

    def _key(self, artifacts: Sequence[Artifact], backend: str, sizes: Sequence[int]) -> Key:
        return Key(
            files={self._label(artifact): artifact.sha256 for artifact in artifacts},
            backend=backend,
            version=version_of(backend, artifacts[0]),
            threads=self.threads,
            device=device_of(backend, artifacts[0]),
            batches=tuple(sizes),
            deadline_ms=self.slo_ms if BACKENDS[backend].tunes else None,
        )

    # ---------------------------------------------------------------------------------------------------------- widths

    def _worth_opening(self, artifacts: Sequence[Artifact], backend: str, known: Samples | None) -> list[Artifact]:
        """A few that spread best over the Pareto front of latency and accuracy."""
        ms = {label: percentile(row[min(row)], 0.5) for label, row in (known or self._looked_at(artifacts, backend)).items()}
        candidates = [
            Candidate(artifact, ms[self._label(artifact)], accuracy_of(artifact))
            for artifact in artifacts
            if self._label(artifact) in ms
        ]
        return [candidate.artifact for candidate in spread(front(candidates))]

    def _looked_at(self, artifacts: Sequence[Artifact], backend: str) -> Samples:
        """What one image takes: of all, or, where that takes long, of as many as there is time for, the ends first."""
        began = time.perf_counter()
        image = images_of(self.manifest.input.input_shape, 1)
        key = self._key(artifacts, backend, [1])
        if (kept := read_kept(key)) is not None:
            return kept
        order = halving(artifacts)
        with ExitStack() as opened:
            files: list[OpenFile] = []
            for artifact in order:
                if len(files) >= MOST_OPEN and time.perf_counter() - began > OPENING_SHARE * LOOKING_S:
                    break
                files.append(self._open(artifact, backend))
                opened.callback(files[-1].runner.close)
                files[-1](image)  # the first of a shape plans its memory
            looks: dict[str, dict[int, list[float]]] = {file.label: {1: []} for file in files}
            for number in range(LOOKS):  # in turns: a disturbance hits all widths, and the median of none
                if number >= LEAST_LOOKS and time.perf_counter() - began > LOOKING_S:
                    break
                for file in files:
                    looks[file.label][1].append(time_run(file, image))
        if len(files) < len(order):
            log.info("%d of %d widths were looked at", len(files), len(order))
            return looks
        keep(key, looks)
        return looks
