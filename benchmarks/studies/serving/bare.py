"""A server that answers at once, whatever it is asked: what a request over HTTP costs before any service does anything.

    python -m benchmarks.studies.serving.bare NAME 3,224,224 1000

It is uvicorn, as ours is, with an application that reads the body and sends the same bytes back each time: the answer of a
model NAME to one input of that shape, with so many logits, all 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


def application(name: str, shape: Sequence[int], classes: int) -> Application:
    """What answers `GET` with the model's metadata and `POST` with its one answer."""
    logits = np.zeros((1, classes), np.float32).tobytes()
    output = {"name": "output", "datatype": "FP32", "shape": [1, classes], "parameters": {"binary_data_size": len(logits)}}
    said = {"queued_ms": 0.0, "computed_ms": 0.0}
    answer = json.dumps({"model_name": name, "model_version": "1", "parameters": said, "outputs": [output]}).encode()
    takes = [{"name": "input", "datatype": "FP32", "shape": [-1, *shape]}]
    gives = [{"name": "output", "datatype": "FP32", "shape": [-1, classes]}]
    metadata = json.dumps({"name": name, "versions": ["1"], "platform": "none", "inputs": takes, "outputs": gives}).encode()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        body = metadata if scope["method"] == "GET" else answer + logits
        headers = [(b"content-length", str(len(body)).encode())]
        if scope["method"] != "GET":
            headers.append((b"inference-header-content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def main() -> None:
    import uvicorn

    name, shape, classes = sys.argv[1:]
    app = application(name, [int(size) for size in shape.split(",")], int(classes))
    uvicorn.run(app, port=0, lifespan="off", access_log=False)  # it says where it listens


if __name__ == "__main__":
    main()
