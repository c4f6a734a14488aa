"""Clocks, runtimes and a server of the Open Inference Protocol that answer as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.serving import measuring
from slimexport.target.serving.answer import Answer


class Clock:
    """Seconds that pass while somebody sleeps, and as a test says."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class FakeRuntime:
    """Hands every submission to `on_submit`, with its number and deadline: an answer, an error that is raised, one in a tuple
    that the future raises, or None for a future that never ends."""

    def __init__(self, on_submit: Callable[[int, float], Any]) -> None:
        self.on_submit = on_submit
        self.seen: list[tuple[Array, float]] = []
        self.futures: list[Future[Answer]] = []

    def submit(self, image: Array, deadline_ms: float | None = None) -> Future[Answer]:
        assert deadline_ms is not None
        number = len(self.seen)
        self.seen.append((image, deadline_ms))
        outcome = self.on_submit(number, deadline_ms)
        if isinstance(outcome, Exception):
            raise outcome
        future: Future[Answer] = Future()
        self.futures.append(future)
        if isinstance(outcome, tuple):
            future.set_exception(outcome[0])
        elif outcome is not None:
            future.set_result(outcome)
        return future

    def infer(self, image: Array, deadline_ms: float | None = None) -> Answer:
        return self.submit(image, deadline_ms).result()


def answer_of(name: str = "0.5", batch: int = 1, queued_ms: float = 1.0, computed_ms: float = 2.0) -> Answer:
    return Answer(np.zeros(3, np.float32), float(name), name, batch, queued_ms, computed_ms)


def start_quickly(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Runtimes measure little when they are opened, and keep it in a folder of the test's own."""
    patch.setattr(measuring, "MOST_RUNS", 3)
    patch.setenv("XDG_CACHE_HOME", str(cache))


METADATA = {
    "name": "us_mobilenet_v1",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 4, 4]}],
    "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 5]}],
}
Responding = Callable[[int, Mapping[str, Any], bytes], tuple[int, Mapping[str, Any]]]


@contextmanager
def protocol_server(responding: Responding, metadata: Mapping[str, Any] = METADATA) -> Iterator[str]:
    """The address of a model whose server gives, for the n-th request with its header and bytes, a status, and parameters or
    an error."""
    lock, count = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, json.dumps(metadata).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers["Inference-Header-Content-Length"])
            with lock:
                number = count[0]
                count[0] += 1
            status, said = responding(number, json.loads(body[:size]), body[size:])
            if status != 200:
                self._send(status, json.dumps(said).encode())
                return
            tensor = np.zeros((1, 5), np.float32).tobytes()
            output = {"name": "output", "datatype": "FP32", "shape": [1, 5], "parameters": {"binary_data_size": len(tensor)}}
            header = {"model_name": metadata["name"], "model_version": "1", "parameters": said, "outputs": [output]}
            text = json.dumps(header).encode()
            self._send(200, text + tensor, {"Inference-Header-Content-Length": str(len(text))})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v2/models/us_mobilenet_v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
