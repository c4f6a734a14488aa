"""What a request costs beside its network while nothing else is there: one at a time, with pauses, in process and over HTTP.

In process: from before `submit` until `result` is back in the thread that waits, less the time that the run took; and the same
of `infer`, which computes on the thread that asks. Over HTTP:
from before the request is made until its answer is read, by Triton's client with tensors as bytes, less the time that the
request waited and ran in the server, as its answer says it; and in turn with that the same of a server that does nothing
(`bare.py`). `http_adds` is how much more that is than in process, the waiting counted in both.
"""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array
from benchmarks.load.in_process import images_of
from benchmarks.load.over_http import Model, model_of, open_client
from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.serving.bundles import published_bundle
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.opening import open_file
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import CommandError

WIDTHS = "0.25,1.0"
PAUSE_S = 0.01  # after an answer
WARM_UP = 50  # requests that are not counted
DEADLINE_MS = 10_000.0
LIMITS = {
    "infer_p50_ms": 0.15,
    "infer_p99_ms": 1.0,
    "in_process_p50_ms": 0.15,
    "in_process_p99_ms": 1.0,
    "http_p50_ms": 1.5,
    "http_adds_p50_ms": 1.5,
}
STOP_S = 30.0
LISTENS = re.compile(r"http://\S+:\d+")


def overhead(given: Path | None, seconds: float) -> dict[str, Any]:
    """Both ways, `seconds` each; printed, and given as plain values."""
    before = environment()
    with tempfile.TemporaryDirectory() as name:
        bundle = published_bundle(Path(name), given, WIDTHS)
        with Runtime(bundle) as runtime, widest_of(runtime) as run:
            samples = in_process_ms(runtime, run, 3 * seconds)
        with server(bundle) as url, bare_server(bundle) as bare_url:
            over_http, queued = http_ms({"http": url, "bare_http": bare_url}, 2 * seconds)
            samples |= over_http
    figures = {
        f"{way}_p{share}_ms": float(np.percentile(taken, share)) for way, taken in samples.items() for share in (50, 99)
    }
    waited = float(np.percentile(over_http["http"] + queued["http"], 50))
    figures["http_adds_p50_ms"] = waited - figures["in_process_p50_ms"]
    for name, value in figures.items():
        limit = f", expected at most {LIMITS[name]:g}" if name in LIMITS else ""
        print(f"{name}: {value:.3f}{limit}")
    return {
        "command": study_command("benchmarks.studies.serving"),
        "environment": before,
        "figures": figures,
        "limits": LIMITS,
        "holds": {name: figures[name] <= limit for name, limit in LIMITS.items()},
        "samples_ms": {way: np.round(taken, 4).tolist() for way, taken in samples.items()},
    }


def in_process_ms(runtime: Runtime, run: Callable[[Array], float], seconds: float) -> dict[str, Array]:
    """Milliseconds beside the network, a request each, in turn: `in_process` of `submit` and `result`, of `infer`, and of the
    standard library's executor of one thread, which calls `run` (it gives the seconds that the network took): a service in
    Python that computes on another thread is not below that."""
    images = images_of(runtime.manifest.input.input_shape, 0)
    taken: dict[str, list[float]] = {"in_process": [], "infer": [], "executor": []}
    pace = _Pace(seconds)
    with ThreadPoolExecutor(1) as executor:
        ways: dict[str, Callable[[Array], float]] = {
            "in_process": lambda image: runtime.submit(image, DEADLINE_MS).result().computed_ms,
            "infer": lambda image: runtime.infer(image, DEADLINE_MS).computed_ms,
            "executor": lambda image: 1e3 * executor.submit(run, image[None]).result(),
        }
        while pace.goes_on(done := len(taken["executor"])):
            for way, ask in ways.items():
                began = time.perf_counter()
                computed_ms = ask(images[done % len(images)])
                taken[way].append(1e3 * (time.perf_counter() - began) - computed_ms)
                time.sleep(PAUSE_S)
    return {way: np.array(ms[WARM_UP:]) for way, ms in taken.items()}


@contextmanager
def widest_of(runtime: Runtime) -> Iterator[Callable[[Array], float]]:
    """What runs the widest file that is open, and gives the seconds that it took."""
    manifest, name = runtime.manifest, runtime.widths[-1].name
    artifact = next(artifact for artifact in manifest.artifacts if artifact.name == name)
    file = open_file(runtime.bundle, manifest, artifact, runtime.backend, None)

    def run(images: Array) -> float:
        began = time.perf_counter()
        file(images)
        return time.perf_counter() - began

    try:
        yield run
    finally:
        file.runner.close()


class _Pace:
    """WARM_UP requests, and then so many seconds of them, one at the least."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ends = seconds, math.inf

    def goes_on(self, done: int) -> bool:
        if done == WARM_UP:
            self.ends = time.perf_counter() + self.seconds
        return done <= WARM_UP or time.perf_counter() < self.ends


def http_ms(urls: Mapping[str, str], seconds: float) -> tuple[dict[str, Array], dict[str, Array]]:
    """The same of servers' models at `urls`, in turn, by the urls' names; and how long each request waited."""
    return asyncio.run(_http_ms({name: (url, model_of(url)) for name, url in urls.items()}, seconds))


async def _http_ms(models: Mapping[str, tuple[str, Model]], seconds: float) -> tuple[dict[str, Array], dict[str, Array]]:
    clients = {name: open_client(url) for name, (url, _) in models.items()}
    images = {name: images_of(model.shape, 0) for name, (_, model) in models.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    try:
        pace = _Pace(seconds)
        while pace.goes_on(done := min(map(len, taken.values()))):
            for name, (_, model) in models.items():
                taken[name].append(await _asked_ms(clients[name], model, images[name][done % len(images[name])]))
                await asyncio.sleep(PAUSE_S)
    finally:
        for client in clients.values():
            await client.close()
    both = {name: np.array(ms[WARM_UP:]) for name, ms in taken.items()}
    return {name: ms[:, 0] for name, ms in both.items()}, {name: ms[:, 1] for name, ms in both.items()}


async def _asked_ms(client: Any, model: Model, image: Array) -> tuple[float, float]:
    """One request, beside what the server says that it waited and ran; and how long it waited."""
    from tritonclient.http import InferInput

    began = time.perf_counter()
    given = InferInput(model.input, [1, *image.shape], "FP32")
    given.set_data_from_numpy(image[None], binary_data=True)
    result = await client.infer(model.name, [given], timeout=round(1e3 * DEADLINE_MS))
    np.asarray(result.as_numpy(result.get_response()["outputs"][0]["name"]))
    whole = 1e3 * (time.perf_counter() - began)
    said = result.get_response()["parameters"]
    queued = float(said["queued_ms"])
    return whole - queued - float(said["computed_ms"]), queued


@contextmanager
def server(bundle: Path) -> Iterator[str]:
    """A bundle's `slimexport --serve` in a process of its own: its model's address. CommandError where it does not begin."""
    with _listening("-m", "slimexport", "--bundle", str(bundle), "--serve", "--port", "0") as address:
        yield f"{address}/v2/models/{read_manifest(bundle).source.network}"


@contextmanager
def bare_server(bundle: Path) -> Iterator[str]:
    """The same of a server that does nothing, of a model that takes and gives as much."""
    manifest = read_manifest(bundle)
    name, shape = manifest.source.network, ",".join(map(str, manifest.input.input_shape))
    with _listening("-m", "benchmarks.studies.serving.bare", name, shape, str(manifest.results[0].own_shape[0])) as address:
        yield f"{address}/v2/models/{name}"


@contextmanager
def _listening(*arguments: str) -> Iterator[str]:
    """A process of this Python's that says where it listens. CommandError where it does not."""
    words = [sys.executable, *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        reading: threading.Thread | None = None
        try:
            heard, address = [], None
            for line in process.stdout:
                heard.append(line)
                if (address := LISTENS.search(line)) is not None:
                    break
            if address is None:
                raise CommandError(f"{arguments[1]} did not begin to listen:\n{''.join(heard).strip()}", process.wait() or 1)
            reading = threading.Thread(target=process.stdout.read, daemon=True)  # a pipe that nobody reads fills
            reading.start()
            yield address[0]
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            if reading is not None:
                reading.join()
