"""A detector's bundle over HTTP: boxes, scores, labels and counts of every image, as JSON and as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")
pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from slimexport.target.arrays import Array
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.http.page import live
from slimexport.target.serving.runtime import Runtime
from tests.support.exported_detectors import DETECTIONS, assert_alike, given_by, noise
from tests.support.http_serving import Reply, Running, running

TYPES = {"boxes": "FP32", "scores": "FP32", "labels": "INT64", "count": "INT64", "settled": "BOOL"}
DTYPES = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}
SLO_MS = 60_000.0  # nothing is late, however slow the machine


@pytest.fixture(scope="module")
def server(detector_bundle: Path) -> Iterator[Running]:
    with Runtime(detector_bundle, widths=[0.5], slo_ms=SLO_MS, batches=[1, 4]) as runtime, running(runtime) as server:
        yield server


@pytest.fixture(scope="module")
def file(detector_bundle: Path) -> Path:
    return detector_bundle / read_manifest(detector_bundle).artifacts[0].file


def infer(server: Running, array: Array, **request: Any) -> Reply:
    name = server.runtime.manifest.source.network
    tensor = {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return server.ask("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [tensor], **request}))


def test_the_model_tells_all_that_it_gives(server: Running) -> None:
    model = server.get(f"/v2/models/{server.runtime.manifest.source.network}").json
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 64, 64]}]
    shapes = {
        "boxes": [-1, DETECTIONS, 4],
        "scores": [-1, DETECTIONS],
        "labels": [-1, DETECTIONS],
        "count": [-1],
        "settled": [-1],
    }
    assert {output["name"]: (output["datatype"], output["shape"]) for output in model["outputs"]} == {
        name: (TYPES[name], shape) for name, shape in shapes.items()
    }


def test_the_page_is_told_what_widths_are_compared_by(server: Running) -> None:
    assert live(server.runtime)["accuracy_kind"] == "average precision"


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_in_json_are_the_file_s_detections(server: Running, file: Path, count: int) -> None:
    array = noise(count, seed=count)
    reply = infer(server, array)
    assert reply.status == 200, reply.content
    assert reply.json["parameters"]["width"] == 0.5
    given = {
        output["name"]: np.array(output["data"], DTYPES[output["datatype"]]).reshape(output["shape"])
        for output in reply.json["outputs"]
    }
    assert {output["name"]: output["datatype"] for output in reply.json["outputs"]} == TYPES
    assert_alike(given, given_by(file, array))


def test_some_of_the_outputs_come_as_bytes(server: Running, file: Path) -> None:
    array = noise(2)
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("labels", "settled", "boxes")]
    reply = infer(server, array, outputs=wanted)
    length = int(reply.headers["inference-header-content-length"])
    content, at = {}, length
    for output in json.loads(reply.content[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        content[output["name"]] = np.frombuffer(reply.content[at : at + size], DTYPES[output["datatype"]]).reshape(
            output["shape"]
        )
        at += size
    assert at == len(reply.content) and list(content) == ["labels", "settled", "boxes"]
    expected = given_by(file, array)
    assert_alike(content, {name: expected[name] for name in content})


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 3, 32, 64), (3, 64, 64)])
def test_images_of_another_size_are_one_line(server: Running, shape: tuple[int, ...]) -> None:
    reply = infer(server, np.zeros(shape, np.float32))
    assert reply.status == 400 and list(reply.json) == ["error"]
    line = reply.json["error"]
    assert "3, 64, 64" in line and "\n" not in line


def test_triton_s_client_reads_them(server: Running, file: Path) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    client = triton.InferenceServerClient(server.address, connection_timeout=60.0, network_timeout=60.0)
    array = noise(2, seed=5)
    tensor = triton.InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    result = client.infer(server.runtime.manifest.source.network, [tensor])
    assert_alike({name: result.as_numpy(name) for name in TYPES}, given_by(file, array))
    client.close()
