"""How far the tool's own figures can be trusted on this machine.

    python -m benchmarks.studies.trust BUNDLE [--batches 1,8] [--json results.json]

Three things: what the tool itself costs per iteration; how exactly it measures work of known duration; and whether its
medians agree with an independent loop, `timeit` around `session.run` in a process of its own, on the same files. The last is
done in turns (tool, loop, tool, loop, ...), so that a drift of the machine hits both. Exit code 1 where something is off by
more than 5 %.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.cell import Array, Cell, CellRunner, Inputs, Options, Timing
from benchmarks.cells.inputs import RandomImages
from benchmarks.cells.plan_cells import Wanted, open_bundle, plan_cells
from benchmarks.cells.statistics import summary
from benchmarks.machine.environment import environment
from benchmarks.measure.threads import pinned
from benchmarks.measure.turns import CellSource, Method, measure
from benchmarks.runners.opening import open_runner
from benchmarks.studies.script import parse, script_parser, write_result
from slimexport.target.precision import EXACT
from slimtrain.base.command import script_messages

LIMIT = 0.05
KNOWN_MS = (0.2, 1.0, 5.0, 20.0)
TURNS = 5

# The independent loop: nothing of this project, the inputs made as a user would make them, one fixed buffer.
LOOP = """
import json, sys, timeit
import numpy, onnxruntime
file, batch, threads, seconds, *shape = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4]), *map(int, sys.argv[5:])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: numpy.random.default_rng(0).standard_normal((batch, *shape), numpy.float32)}
run = lambda: session.run(None, feed)
timeit.timeit(run, number=5)
number = max(10, int(seconds / (timeit.timeit(run, number=10) / 10)))
print(json.dumps(timeit.repeat(run, number=1, repeat=number)))
"""


class Known:
    """A runner whose iterations take `duration_s`, waited for by the clock that measures; 0 returns at once."""

    settings: Mapping[str, Any] = {"device": "cpu"}

    def __init__(self, duration_s: float) -> None:
        self.duration_s = duration_s

    def run(self, index: int) -> Timing:
        begin = time.perf_counter()
        if self.duration_s:
            end = begin + self.duration_s
            while time.perf_counter() < end:
                pass
        return Timing(time.perf_counter() - begin)

    def logits(self, images: Array) -> Array:
        raise AssertionError("nothing is computed, so nothing is checked")

    def close(self) -> None:
        """Nothing is held."""


def measure_known(duration_s: float, seconds: float = 1.0) -> dict[str, float]:
    """Work of a known duration as the tool measures it in `seconds`, and what its loop took per iteration beyond the work
    itself."""
    cell = Cell("known", "known", "known", "known", None, "known", "", ONNXRUNTIME_CPU, EXACT, 1, 1, 1, 1, 1)
    begun: list[float] = []

    def open_known(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner:
        begun.append(time.perf_counter())
        return Known(duration_s)

    method = Method(duration_s=seconds, repeats=1, warmup_s=0.0)
    ended: list[float] = []
    source = CellSource(lambda cell: Path(), open_known, lambda cell: RandomImages(cell.image_size), Options())
    (result,) = measure([cell], source, method, on_result=lambda result: ended.append(time.perf_counter()))
    figures = summary(result)
    assert figures is not None
    inside_s = 1e-3 * figures.mean_ms * figures.iterations
    return {
        "known_ms": 1e3 * duration_s,
        "median_ms": figures.median_ms,
        "iterations": figures.iterations,
        "beyond_us_per_iteration": 1e6 * (ended[0] - begun[0] - inside_s) / figures.iterations,
    }


def agreement(folder: Path, batches: tuple[int, ...], threads: int, seconds: float) -> list[dict[str, Any]]:
    """For every fp32 file and batch: the tool's median, the loop's, and the first over the second, over all turns."""
    bundle = open_bundle(folder)
    cells, _ = plan_cells(bundle, Wanted((ONNXRUNTIME_CPU,), batches, (EXACT,)))
    images = RandomImages(bundle.manifest.input.image_size, channels=bundle.manifest.input.channels)
    method = Method(duration_s=seconds, repeats=1)
    source = CellSource(lambda cell: folder, open_runner, lambda cell: images, Options(threads=threads))
    tool: dict[Cell, list[float]] = {cell: [] for cell in cells}
    loop: dict[Cell, list[float]] = {cell: [] for cell in cells}
    for _ in range(TURNS):
        for cell in cells:
            (result,) = measure([cell], source, method)
            tool[cell] += [sample for samples in result.latency_ms for sample in samples]
            words = [cell.file, cell.batch, threads, seconds, *cell.image_shape]
            done = subprocess.run(
                [sys.executable, "-c", LOOP, *map(str, words)], capture_output=True, text=True, check=True, cwd=folder
            )
            loop[cell] += [1e3 * sample for sample in json.loads(done.stdout)]
    return [
        {
            "file": cell.file,
            "batch": cell.batch,
            "tool_median_ms": median(tool[cell]),
            "loop_median_ms": median(loop[cell]),
            "ratio": median(tool[cell]) / median(loop[cell]),
            "iterations": [len(tool[cell]), len(loop[cell])],
        }
        for cell in cells
    ]


def run(bundle: Path, batches: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """All three comparisons, told as they come, in plain values."""
    with pinned() as threads:
        before = environment()
        nothing = measure_known(0)
        cost_us = 1e3 * nothing["median_ms"]
        print(
            f"the tool's own cost: {cost_us:.3f} us in a sample, {nothing['beyond_us_per_iteration']:.2f} us between samples"
        )
        known = [measure_known(duration / 1e3) for duration in KNOWN_MS]
        for timing in known:
            error = timing["median_ms"] / timing["known_ms"] - 1
            print(f"{timing['known_ms']:g} ms: measured {timing['median_ms']:.5f} ms, {error:+.2%}")
        agreed = agreement(bundle, batches, threads["threads"], seconds)
        print("file, batch: the tool's median, the loop's, ratio")
        for row in agreed:
            print(
                f"{row['file']}, {row['batch']}: {row['tool_median_ms']:.4f} ms, {row['loop_median_ms']:.4f} ms, "
                f"{row['ratio']:.3f}"
            )
    off = [abs(timing["median_ms"] / timing["known_ms"] - 1) for timing in known]
    off += [abs(row["ratio"] - 1) for row in agreed]
    return {
        "environment": before,
        "threads": threads,
        "own_cost": {"in_a_sample_us": cost_us, "between_samples_us": nothing["beyond_us_per_iteration"]},
        "known": known,
        "agreement": agreed,
        "worst": max(off),
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn of each file")
    arguments = parse(parser)
    with script_messages("trust"):
        open_bundle(arguments.bundle)
    result = run(arguments.bundle, tuple(map(int, arguments.batches.split(","))), arguments.seconds)
    print(f"worst: {result['worst']:.1%} (limit {LIMIT:.0%})")
    words = f"{arguments.bundle.name} --batches {arguments.batches} --seconds {arguments.seconds:g}"
    write_result(arguments.json, {"command": f"python -m benchmarks.studies.trust {words}", **result})
    sys.exit(1 if result["worst"] > LIMIT else 0)


if __name__ == "__main__":
    main()
