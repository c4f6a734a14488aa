"""What the parts of a bundle's detectors take: backbone, FPN, RPN, proposals, RoIs, detections, beside the whole, per width.

    python -m benchmarks.studies.detection.parts exports/s_faster_rcnn [--rounds 30] [--threads 1] [--json parts.json]

In onnxruntime on the CPU, or with `--backend onnxruntime-cuda` on a GPU, in whose memory inputs and outputs stay. Files are
cut off after each part, and the pieces run in turns, each in every round; a part is what its piece takes more than the one
before, in the median, so parts add up to the whole. `proposals` and `detections` are mostly NMS, `RoIs` pooling and the heads
that follow. A part that is much smaller than the noise of the whole may come out below 0.
"""

from __future__ import annotations

import functools
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells.cell import NotMeasured
from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.script import needs, parse, script_parser, whole_number, write_result
from slimexport.target.backends import CPU, ONNX
from slimexport.target.manifest import Manifest, artifact_path, read_manifest
from slimexport.target.runners import PROVIDERS
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError

WHOLE = "whole"
WARM_UP = 3  # runs of each piece that are not counted


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--batch", type=whole_number, default=1, help="images of a run")
    parser.add_argument("--rounds", type=whole_number, default=30)
    parser.add_argument("--threads", type=whole_number, default=1)
    parser.add_argument("--precision", default="fp32")
    add_backend(parser)
    arguments = parse(parser)
    needs("detection_parts", "onnx", "onnxruntime")
    with script_messages("detection_parts"):
        before = environment()
        manifest = detectors_of(arguments.bundle)
        way = Way(arguments.backend, arguments.threads, arguments.rounds)
        rows = measured(arguments.bundle, manifest, arguments.precision, arguments.batch, way)
        print(table(rows))
        command = study_command("benchmarks.studies.detection.parts")
        write_result(arguments.json, {"command": command, "environment": before, "backend": way.backend, "widths": rows})


@dataclass(frozen=True)
class Way:
    """How files are run: by which backend, on how many `threads` of the CPU, each of them in so many `rounds`."""

    backend: str = CPU
    threads: int = 1
    rounds: int = 30


def add_backend(parser: ArgumentParser) -> None:
    """The option that says what runs files."""
    parser.add_argument("--backend", choices=tuple(PROVIDERS), default=CPU)


def detectors_of(bundle: Path) -> Manifest:
    """A bundle's manifest. UserError for one that is of no detector."""
    manifest = read_manifest(bundle)
    if manifest.detector is None:
        raise UserError(f"{bundle}: is of no detector, whose parts could be measured. Give a detector's bundle.")
    return manifest


def measured(bundle: Path, manifest: Manifest, precision: str, batch: int, way: Way) -> list[dict[str, Any]]:
    """Of each width its label, MACs, and milliseconds by part. UserError where a bundle has none of that precision."""
    files = sorted(
        (artifact for artifact in manifest.of_format(ONNX) if artifact.precision == precision), key=lambda one: one.macs
    )
    if not files:
        raise UserError(f"{bundle}: has no ONNX files in {precision}. Export some, or ask for another --precision.")
    shape = (batch, *manifest.input.input_shape)
    rows = []
    for artifact in files:
        path = artifact_path(bundle, artifact)
        parts, runs = runs_of(path, shape, way)
        times = in_turns(runs, way.rounds)
        rows.append({"width": artifact.width, "name": artifact.name, "macs": artifact.macs, "ms": split(parts, times)})
    return rows


def runs_of(path: Path, shape: tuple[int, ...], way: Way) -> tuple[list[str], list[Callable[[], object]]]:
    """A file's parts, and what runs it up to the end of each, on one and the same input. UserError for a file without."""
    import onnx

    from benchmarks.onnx_models.detector_parts import pieces

    try:
        cut = pieces(onnx.load(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}. Export it with slimexport.") from error
    return [piece.part for piece in cut], [run_of(piece.model.SerializeToString(), shape, way) for piece in cut]


def run_of(model: bytes, shape: tuple[int, ...], way: Way) -> Callable[[], object]:
    """What runs a model on noise of that shape, until it is done. NotMeasured where its layers would run elsewhere."""
    import numpy as np

    from benchmarks.runners.ort import load_onnxruntime, open_session, session_options
    from benchmarks.runners.ort_cuda import layers_among, nodes_on_cpu, require_cuda_provider, told_options

    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if way.backend == CPU:
        session = open_session(model, session_options(way.threads), PROVIDERS[CPU])
        return functools.partial(session.run, None, {session.get_inputs()[0].name: images})
    require_cuda_provider()
    session = open_session(model, told_options(way.threads), PROVIDERS[way.backend])
    if layers := layers_among(nodes_on_cpu(session)):
        raise NotMeasured(f"{way.backend}: has no kernel for {layers}, which would run on the CPU. Measure another precision.")
    binding = session.io_binding()
    on_device = load_onnxruntime().OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, on_device)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return functools.partial(session.run_with_iobinding, binding)


def in_turns(runs: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Of each run the median of its milliseconds, all of them once in every round."""
    for run in runs:
        for _ in range(WARM_UP):
            run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, own in zip(runs, times, strict=True):
            began = clock()
            run()
            own.append(1e3 * (clock() - began))
    return [statistics.median(own) for own in times]


def split(parts: Sequence[str], up_to: Sequence[float]) -> dict[str, float]:
    """Each part's milliseconds, of those up to its end; and of the whole."""
    own = [last - before for before, last in zip([0.0, *up_to], up_to, strict=False)]
    return {**dict(zip(parts, own, strict=True)), WHOLE: up_to[-1]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each width: milliseconds, and how much of the whole that is."""
    parts = list(rows[0]["ms"])
    lines = ["ms per run (share of the whole)", f"{'width':>8} {'MACs':>9} " + " ".join(f"{part:>13}" for part in parts)]
    for row in rows:
        width = row["name"] if row["width"] is None else f"{row['width']:g}x"
        cells = (f"{ms:.2f} ({ms / row['ms'][WHOLE]:.0%})" for ms in row["ms"].values())
        lines.append(f"{width:>8} {row['macs'] / 1e9:>8.3f}G " + " ".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
