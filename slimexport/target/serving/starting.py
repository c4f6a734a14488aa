"""A runtime's start: which widths it opens, and what their runs take here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest
from slimexport.target.serving.choosing import MOST_OPEN, Candidate, front, spread
from slimexport.target.serving.measuring import BATCHES, images_of, measure, percentile, time_run
from slimexport.target.serving.opening import OpenFile, choose_backend, files_of, open_file
from slimexport.target.serving.policy import Latencies

LOOKS = 5  # runs of one image that tell which widths are worth opening


def open_widths(
    folder: Path,
    manifest: Manifest,
    *,
    widths: Sequence[float | str] | None = None,
    precision: str = "fp32",
    backend: str | None = None,
    batches: Sequence[int] | None = None,
    slo_ms: float,
    threads: int | None = None,
) -> tuple[list[OpenFile], Latencies]:
    """The files to serve, opened, from the quickest to the widest, and their latencies, in that order. BundleError for what the
    bundle does not hold, MissingBackend where nothing runs it."""
    name = choose_backend(manifest, backend)
    artifacts = files_of(folder, manifest, name, precision, widths)
    if widths is None and len(artifacts) > MOST_OPEN:
        artifacts = _worth_opening(folder, manifest, artifacts, name, threads)
    shape = manifest.input.input_shape
    with ExitStack() as undo:
        files = []
        for artifact in artifacts:
            files.append(open_file(folder, manifest, artifact, name, threads))
            undo.callback(files[-1].runner.close)
        most = min(file.batches[1] for file in files)
        sizes = sorted({batch for batch in (batches or BATCHES) if batch <= most} | ({most} if most < BATCHES[-1] else set()))
        if not sizes or sizes[0] < 1:
            raise BundleError(f"batches {list(batches or BATCHES)}: expected numbers of images, 1 to {most}.")
        latencies = measure([(file.label, file) for file in files], shape, sizes, slo_ms)
        undo.pop_all()
    return files, latencies


def _worth_opening(
    folder: Path, manifest: Manifest, artifacts: Sequence[Artifact], backend: str, threads: int | None
) -> list[Artifact]:
    """A few that spread best over the Pareto front of latency and accuracy."""
    candidates = []
    image = images_of(manifest.input.input_shape, 1)
    for artifact in artifacts:
        file = open_file(folder, manifest, artifact, backend, threads)
        try:
            file(image)
            times = [time_run(file, image) for _ in range(LOOKS)]
            candidates.append(Candidate(artifact, percentile(times, 0.5), file.accuracy))
        finally:
            file.runner.close()
    return [candidate.artifact for candidate in spread(front(candidates))]
