"""One file in one runtime, in a process of its own: whatever it does, even to crash, it does to nobody else.

    python -m benchmarks.studies.consumers.trial READER FILE IMAGES EXPECTED THREADS RUNS

Prints a line of JSON, the last of its output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure.threads import pinned
from benchmarks.studies.consumers.files import NetworkFile
from benchmarks.studies.consumers.readers import BASELINE, READERS, Run

ROOT = str(Path(__file__).resolve().parents[3])  # what holds the packages

SECONDS = 300  # that a file may take to be opened and run
TURNS, TURN_S = 5, 0.5
SIGNALS = 128
SHOWN = 200  # characters of an error


def difference(output: Any, expected: Any) -> dict[str, Any]:
    """How far an output [N, classes] is off: the largest difference over the largest value, and whether classes agree."""
    if output.shape != expected.shape:
        return {"shape": list(output.shape)}
    scale = float(np.abs(expected).max())
    error = float(np.abs(output.astype(np.float64) - expected).max() / scale)
    agree = float((output.argmax(1) == expected.argmax(1)).mean())
    return {"max_rel_error": error if np.isfinite(error) else None, "top1_agreement": agree}


def milliseconds(runs: Mapping[str, Run], image: Any, count: int) -> dict[str, float]:
    """Of one image, the least of TURNS turns in which all take their turn, each turn the mean of `count` runs, or of as many
    as take TURN_S seconds, one at least."""
    counts = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run(image)
        counts[name] = max(1, min(count, int(TURN_S / (time.perf_counter() - began))))
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(TURNS):
        for name, run in runs.items():
            run(image)
            began = time.perf_counter()
            for _ in range(counts[name]):
                run(image)
            least[name] = min(least[name], 1e3 * (time.perf_counter() - began) / counts[name])
    return {name: round(value, 4) for name, value in least.items()}


def trial(name: str, path: Path, images: Any, expected: Any, threads: int, count: int) -> dict[str, Any]:
    """What a runtime makes of a file: `one` image and `two` at once compared with what is expected, seconds to open it, and
    milliseconds of one image in turn with onnxruntime, where that runs the file."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name]
        began = time.perf_counter()
        run = reader.opener(path, Path(folder), images[:1], threads)
        result["one"] = difference(np.asarray(run(images[:1])), expected[:1])
        result["open_s"] = round(time.perf_counter() - began, 3)
        try:
            result["two"] = difference(np.asarray(run(images[:2])), expected[:2])
        except Exception as error:  # each has types of its own
            result["two"] = {"error": shown(error)}
            run = reader.opener(path, Path(folder), images[:1], threads)
        if count:
            runs = {name: run}
            if name != BASELINE:
                try:
                    runs = {BASELINE: READERS[BASELINE].opener(path, Path(folder), images[:1], threads), **runs}
                except Exception as error:
                    result["baseline"] = shown(error)
            result["ms"] = milliseconds(runs, images[:1], count)
    return result


def shown(error: BaseException) -> str:
    """An error in a line: its first that says more than where it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return (lines[0] if lines else type(error).__name__)[:SHOWN]


def in_own_process(name: str, file: NetworkFile, threads: int, count: int) -> dict[str, Any]:
    """`trial` of a file, or why there is none: the runtime's words, the signal that ended it, or that it took too long."""
    places = (path.absolute() for path in (file.path, file.images, file.expected))
    words = [name, *map(str, (*places, threads, count))]
    command = [sys.executable, "-m", "benchmarks.studies.consumers.trial", *words]
    with tempfile.TemporaryDirectory() as folder:  # some leave files in the folder that they run in
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))},
            )
        except subprocess.TimeoutExpired:
            return {"error": f"takes longer than {SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        result: dict[str, Any] = json.loads(lines[-1])
        return result
    if done.returncode < 0 or done.returncode > SIGNALS:
        return {"error": f"crashes (signal {-done.returncode if done.returncode < 0 else done.returncode - SIGNALS})"}
    return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:SHOWN]}


def main() -> None:
    name, path, images, expected, threads, count = sys.argv[1:]
    try:
        with pinned(int(threads)):
            result = trial(name, Path(path), np.load(images), np.load(expected), int(threads), int(count))
    except Exception as error:
        result = {"error": shown(error)}
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
