"""A small bundle of our own making, and a real server of it on a port that the system chose."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slimexport.target.manifest import Accuracy
from slimexport.target.tensors import Result
from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest

Array = NDArray[Any]
NETWORK, SIZE, CLASSES = "tiny", 4, 5
SHAPE = (3, SIZE, SIZE)
WIDTHS = (0.25, 0.5, 1.0)
LIMIT_S = 60.0


def weights(width: float) -> Array:
    """Of the linear layer that is a width's whole network: [numbers of an image, classes]."""
    return np.random.default_rng(round(100 * width)).standard_normal((int(np.prod(SHAPE)), CLASSES)).astype(np.float32)


def logits(images: Array, width: float) -> Array:
    """What a width gives of images, computed here."""
    return images.reshape(len(images), -1) @ weights(width)


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def write_bundle(folder: Path, outputs: bool = False, widths: Sequence[float] = WIDTHS) -> Path:
    """A bundle of three widths, or of others; with `outputs` networks that also give the number of the largest logit, `best`,
    int64 [N]."""
    artifacts = []
    for width in widths:
        plain = artifact(f"{NETWORK}_x{f'{width:g}'.replace('.', '_')}", width, macs=round(1000 * width))
        described = with_file(folder, plain, _model(width, outputs).SerializeToString())
        top1 = Accuracy(top1=0.5 + width / 4, images=100, data="made up", sha256=described.sha256)
        artifacts.append(type(described)(**{**vars(described), "accuracy": top1}))
    results = (
        Result(name="output", shape=("batch", CLASSES), dtype="float32"),
        Result(name="best", shape=("batch",), dtype="int64"),
    )
    changes: dict[str, Any] = {"outputs": results} if outputs else {}
    return write_manifest(folder, manifest(*artifacts, network=NETWORK, image_size=SIZE, classes=CLASSES, **changes))


def _model(width: float, outputs: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["output"]),
    ]
    values = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])]
    if outputs:
        nodes.append(helper.make_node("ArgMax", ["output"], ["best"], axis=1, keepdims=0))
        values.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["batch"]))
    graph = helper.make_graph(
        nodes,
        NETWORK,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])],
        values,
        [numpy_helper.from_array(weights(width), "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# -------------------------------------------------------------------------------------------------------------- server


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Running:
    """A server at a port of 127.0.0.1."""

    runtime: Any
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def infer(self, request: Any, tensors: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """A request for inference: `request` as JSON, and behind it what the binary extension adds."""
        text = request if isinstance(request, bytes) else json.dumps(request).encode()
        length = {} if tensors is None else {"Inference-Header-Content-Length": str(len(text))}
        return self.ask("POST", f"/v2/models/{NETWORK}/infer", text + (tensors or b""), {**length, **(headers or {})})


@contextlib.contextmanager
def running(runtime: Any, **options: Any) -> Iterator[Running]:
    """A server of a runtime, or of what stands for one, in a thread; it has ended when the block has."""
    from slimexport.target.serving.http.app import make_app
    from slimexport.target.serving.http.server import bind, listen, make_server

    server = make_server(make_app(runtime, **options))
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        listen(listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Running(runtime, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)
            assert not thread.is_alive()
