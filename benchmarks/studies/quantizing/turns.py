"""Files that take turns, one image at a time, in an order drawn for every turn, so that a drift of the machine meets all."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.quantizing.quantizers import Images
from slimexport.target.openvino import DEVICE, core

Run = Callable[[Images], NDArray[Any]]
UNTIMED = 2  # runs of a turn: caches fill, and threads of the run before, which spin for a while, go to sleep
SECONDS, FEWEST, MOST = 0.04, 2, 20  # of the timed ones
TURNS = 15


def onnxruntime_run(path: Path, threads: int) -> Run:
    """A file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"input": images})[0])


def openvino_run(path: Path, threads: int) -> Run:
    """A file in OpenVINO on the CPU, with float32 where it is not int8."""
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(core().read_model(path), DEVICE, settings)
    return lambda images: np.asarray(compiled(images)[compiled.output(0)])


RUNTIMES: dict[str, Callable[[Path, int], Run]] = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


@dataclass(frozen=True)
class Times:
    """Of a file: milliseconds for one image, the median over turns, and its ratio to the reference, the median over turns of
    both in the same turn, with the quarters of these ratios."""

    ms: float
    ratio: float
    quarters: tuple[float, float]


def timed(
    openers: Mapping[str, Callable[[], Run]], image: Images, alone: bool = False, turns: int = TURNS
) -> dict[str, Times]:
    """Every run's times; ratios are over the first run's. `alone`: a run is opened for its turn and closed after it, so that
    no threads of another, which spin while they wait, share its cores."""
    samples: dict[str, list[float]] = {name: [] for name in openers}
    runs = {} if alone else {name: opener() for name, opener in openers.items()}
    order, drawn = list(openers), random.Random(0)  # noqa: S311 (no secret)
    for _ in range(turns):
        drawn.shuffle(order)
        for name in order:
            run = openers[name]() if alone else runs[name]
            samples[name].append(_turn(run, image))
            del run
    base = next(iter(samples.values()))
    return {name: _times(values, base) for name, values in samples.items()}


def _reads(runtime: str, path: Path) -> bool:
    """Whether a runtime can read a file; OpenVINO reads no integer operators of onnxruntime's own."""
    try:
        RUNTIMES[runtime](path, 1)
    except RuntimeError:
        return False
    return True


def _turn(run: Run, image: Images) -> float:
    """Milliseconds of a run in its turn."""
    for _ in range(UNTIMED):
        started = time.perf_counter()
        run(image)
        once = time.perf_counter() - started
    count = min(max(round(SECONDS / once), FEWEST), MOST)
    started = time.perf_counter()
    for _ in range(count):
        run(image)
    return 1e3 * (time.perf_counter() - started) / count


def _times(values: Sequence[float], base: Sequence[float]) -> Times:
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Times(statistics.median(values), statistics.median(ratios), (quarters[0], quarters[-1]))


def all_times(
    files: Mapping[str, Path], image: Images, runtimes: Sequence[str], threads: Sequence[int], turns: int = TURNS
) -> dict[str, dict[str, dict[str, Times]]]:
    """By file, runtime and threads, without what a runtime cannot read. Ratios are over the first file in onnxruntime with as
    many threads, in turns of its own where the runtime is another."""
    result: dict[str, dict[str, dict[str, Times]]] = {name: {} for name in files}
    readable = {runtime: [name for name, path in files.items() if _reads(runtime, path)] for runtime in runtimes}
    for count in threads:
        for runtime in runtimes:
            exact = partial(onnxruntime_run, next(iter(files.values())), count)
            openers: dict[str, Callable[[], Run]] = {} if runtime == "onnxruntime" else {"": exact}
            openers |= {name: partial(RUNTIMES[runtime], files[name], count) for name in readable[runtime]}
            times = timed(openers, image, alone=count > 1, turns=turns)
            for name in readable[runtime]:
                result[name].setdefault(runtime, {})[str(count)] = times[name]
    return result
