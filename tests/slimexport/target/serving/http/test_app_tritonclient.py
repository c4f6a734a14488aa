"""Triton's own client speaks to a real server of a real runtime: every answer is what the width it names gives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.runtime import Runtime
from tests.support.http_serving import CLASSES, NETWORK, SHAPE, Array, Running, images, logits, running, write_bundle

pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")
pytest.importorskip("uvicorn", reason="pip install '.[serve]'")
triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")

SLO_MS = 60_000.0  # nothing is late, however slow the machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Runtime(write_bundle(tmp_path_factory.mktemp("bundle")), slo_ms=SLO_MS) as runtime, running(runtime) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.address, connection_timeout=60.0, network_timeout=60.0)
    yield client
    client.close()


def given(array: Array, binary: bool = True) -> Any:
    tensor = triton.InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_it_sees_a_live_server_and_a_model_that_is_ready(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NETWORK) and client.is_model_ready(NETWORK, "1")
    assert not client.is_model_ready("other") and not client.is_model_ready(NETWORK, "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    model = client.get_model_metadata(NETWORK)
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, *SHAPE]}]
    assert model["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, CLASSES]}]


@pytest.mark.parametrize("count", [1, 3, 32])
@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("received", [True, False, None])
def test_an_answer_is_its_width_s_own(client: Any, count: int, sent: bool, received: bool | None) -> None:
    array = images(count, seed=count)
    outputs = None if received is None else [triton.InferRequestedOutput("output", binary_data=received)]
    result = client.infer(NETWORK, [given(array, sent)], outputs=outputs, request_id="mine", model_version="1")
    response = result.get_response()
    assert (response["model_name"], response["id"]) == (NETWORK, "mine")
    parameters = response["parameters"]
    assert parameters["batch"] >= count and parameters["queued_ms"] >= 0 and parameters["computed_ms"] > 0
    np.testing.assert_allclose(result.as_numpy("output"), logits(array, parameters["width"]), rtol=1e-4, atol=1e-4)


def test_many_at_once_get_their_own_answers(client: Any, server: Running) -> None:
    """In whatever batches they are computed."""

    def ask(seed: int) -> None:
        own = triton.InferenceServerClient(server.address, connection_timeout=60.0, network_timeout=60.0)
        array = images(1 + seed % 3, seed)
        result = own.infer(NETWORK, [given(array)])
        width = result.get_response()["parameters"]["width"]
        np.testing.assert_allclose(result.as_numpy("output"), logits(array, width), rtol=1e-4, atol=1e-4)
        own.close()

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(ask, range(40)))) == 40


def test_a_deadline_in_microseconds_that_nothing_meets_is_a_504(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="no width ends in the rest") as error:
        client.infer(NETWORK, [given(images(1))], timeout=1)
    assert error.value.status() == "504"


def test_an_error_is_the_client_s_exception_with_its_line(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="33 rows, a run takes 1 to 32") as error:
        client.infer(NETWORK, [given(images(33))])
    assert error.value.status() == "400"
    wrong = triton.InferInput("input", [1, *SHAPE], "FP64")
    wrong.set_data_from_numpy(images(1).astype(np.float64))
    with pytest.raises(triton.InferenceServerException, match="'FP64', expected FP32"):
        client.infer(NETWORK, [wrong])
    with pytest.raises(triton.InferenceServerException, match="model 'other' is not here") as error:
        client.infer("other", [given(images(1))])
    assert error.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match="classification"):
        client.infer(NETWORK, [given(images(1))], outputs=[triton.InferRequestedOutput("output", class_count=2)])


def test_a_body_that_is_too_large_is_the_client_s_exception_too(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="32 images, the most of a request") as error:
        client.infer(NETWORK, [given(images(10_000))])
    assert error.value.status() == "413"


def test_a_squeezed_body_is_told_not_to_be(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="gzip"):
        client.infer(NETWORK, [given(images(1))], request_compression_algorithm="gzip")


def test_several_outputs_come_by_their_names(tmp_path: Path) -> None:
    array = images(4)
    with Runtime(write_bundle(tmp_path / "bundle", outputs=True), slo_ms=SLO_MS) as runtime, running(runtime) as server:
        client = triton.InferenceServerClient(server.address, connection_timeout=60.0, network_timeout=60.0)
        result = client.infer(NETWORK, [given(array)])
        expected = logits(array, result.get_response()["parameters"]["width"])
        np.testing.assert_allclose(result.as_numpy("output"), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(result.as_numpy("best"), expected.argmax(1))
        assert result.as_numpy("best").dtype == np.int64
        alone = client.infer(NETWORK, [given(array)], outputs=[triton.InferRequestedOutput("best", binary_data=False)])
        assert [output["name"] for output in alone.get_response()["outputs"]] == ["best"]
        client.close()
