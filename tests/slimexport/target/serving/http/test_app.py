"""A real server of a runtime that does what a test says: statuses, limits, clients that lie or go away."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.answer import Answer
from slimexport.target.serving.errors import Closed, Late, QueueFull, RequestError, RunFailed
from slimtrain.base.packages import is_installed
from tests.support.http_serving import LIMIT_S, NETWORK, SHAPE, Array, Running, images, logits, running
from tests.support.serving_fakes import FakeRuntime, answer, failing

pytest.importorskip("starlette", reason="pip install '.[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

INFER = f"/v2/models/{NETWORK}/infer"


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture(params=["h11 on asyncio", "httptools on auto", "as it is"])
def server(runtime: FakeRuntime, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """With either of the parsers and event loops that uvicorn takes, and as it is served: on uvloop, where that is installed,
    with bodies that are collected."""
    parser, _, loop = request.param.partition(" on ")
    if loop and not is_installed(parser):
        pytest.skip(f"{parser} is not installed")
    config = uvicorn.Config
    if loop:
        monkeypatch.setattr(uvicorn, "Config", lambda app, **options: config(app, **{**options, "http": parser, "loop": loop}))
    with running(runtime) as server:
        yield server


def tensor(array: Array, **changes: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist(), **changes}


def asking(array: Array, **changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor(array)], **changes}


def error_of(reply: Any, status: int) -> str:
    """The one line of a refusal, which is of the protocol's form."""
    assert (reply.status, list(reply.json), reply.headers["content-type"]) == (status, ["error"], "application/json")
    line = reply.json["error"]
    assert isinstance(line, str) and line and "\n" not in line
    return line


# ----------------------------------------------------------------------------------------------------------- what it is


def test_a_server_tells_what_it_is_and_what_its_model_takes_and_gives(server: Running) -> None:
    assert server.get("/v2").json["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/health/live").json == {"live": True}
    model = server.get(f"/v2/models/{NETWORK}").json
    assert (model["name"], model["inputs"][0]["shape"]) == (NETWORK, [-1, *SHAPE])
    assert server.get(f"/v2/models/{NETWORK}/versions/1").json == model
    assert server.get(f"/v2/models/{NETWORK}/ready").json["ready"] is True


@pytest.mark.parametrize("path", ["", "/ready", "/versions/1/ready"])
def test_another_model_or_version_is_not_here(server: Running, path: str) -> None:
    assert f"This serves '{NETWORK}'" in error_of(server.get(f"/v2/models/other{path}"), 404)
    assert "has version 1" in error_of(server.get(f"/v2/models/{NETWORK}/versions/2"), 404)
    assert f"This serves '{NETWORK}'" in error_of(server.ask("POST", "/v2/models/other/infer", "{}"), 404)


def test_what_is_not_served_is_told_in_the_protocol_s_form(server: Running) -> None:
    assert "/v2/nothing" in error_of(server.get("/v2/nothing"), 404)
    assert "GET" in error_of(server.get(INFER), 405)
    assert error_of(server.ask("POST", "/v2/health/live"), 405)


def test_ready_says_which_width_is_out_and_stays_while_any_serves(server: Running, runtime: FakeRuntime) -> None:
    paths = ("/v2/health/ready", f"/v2/models/{NETWORK}/ready")
    runtime.take_out("1", "a run of 8 did not come back within 10 s")
    for path in paths:
        reply = server.get(path)
        assert reply.status == 200
        assert reply.json["ready"] is True and reply.json["widths"] == ["0.5"]
        assert reply.json["out"] == {"1": "a run of 8 did not come back within 10 s"}
    runtime.take_out("0.5", "the same")
    for path in paths:
        reply = server.get(path)
        assert (reply.status, reply.json["ready"], reply.json["widths"]) == (503, False, [])
    assert server.get("/v2/health/live").status == 200


# ------------------------------------------------------------------------------------------------------------ inference


def test_numbers_in_json_come_to_the_runtime_and_its_answer_back(server: Running, runtime: FakeRuntime) -> None:
    array = images(2)
    reply = server.infer(asking(array, id="7", parameters={"timeout": 20_000}))
    assert reply.status == 200 and reply.json["id"] == "7"
    assert reply.json["parameters"] == {"width": 0.5, "batch": 2, "queued_ms": 1.25, "computed_ms": 2.5, "late": False}
    np.testing.assert_array_equal(np.array(reply.json["outputs"][0]["data"], np.float32), logits(array, 0.5).ravel())
    ((came, deadline_ms),) = runtime.came
    np.testing.assert_array_equal(came, array)
    assert deadline_ms is not None and 0 < deadline_ms <= 20


def test_bytes_behind_the_json_come_back_as_bytes(server: Running) -> None:
    array = images(3)
    sent = {**tensor(array), "parameters": {"binary_data_size": array.nbytes}}
    del sent["data"]
    reply = server.infer({"inputs": [sent], "parameters": {"binary_data_output": True}}, array.tobytes())
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    length = int(reply.headers["inference-header-content-length"])
    (output,) = json.loads(reply.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(reply.content) - length}
    np.testing.assert_array_equal(np.frombuffer(reply.content[length:], "<f4").reshape(3, -1), logits(array, 0.5))


@pytest.mark.parametrize("wrong", [{}, {"inputs": []}, {"id": 5}])
def test_with_its_version_a_model_says_the_same(server: Running, wrong: dict[str, Any]) -> None:
    """What is asked for most goes past the routes."""
    text = json.dumps(asking(images(2), **wrong)).encode()
    plain, versioned = (server.ask("POST", path, text) for path in (INFER, f"/v2/models/{NETWORK}/versions/1/infer"))
    assert plain == versioned and plain.status == (400 if wrong else 200)
    for method in ("GET", "PUT"):
        assert error_of(server.ask(method, INFER, text), 405).startswith(f"{method} '{INFER}'")


def test_a_body_of_nothing_but_the_tensor_is_answered_too(server: Running) -> None:
    reply = server.ask("POST", INFER, images(1).tobytes(), {"Inference-Header-Content-Length": "0"})
    length = int(reply.headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(reply.content[length:], "<f4").reshape(1, -1), logits(images(1), 0.5))


def test_without_a_timeout_the_deadline_is_the_runtime_s_own(server: Running, runtime: FakeRuntime) -> None:
    runtime.slo_ms = 7000.0
    assert server.infer(asking(images(1))).status == 200
    ((_, deadline_ms),) = runtime.came
    assert deadline_ms is not None and 0 < deadline_ms <= 7000


def test_long_json_is_read_beside_the_event_loop_and_says_the_same(server: Running, runtime: FakeRuntime) -> None:
    array = images(4)
    padded = json.dumps(asking(array)).encode() + b" " * 70_000
    assert server.infer(padded).status == 413, "no more than the largest batch takes, and some"
    padded = padded[:-6000]
    reply = server.infer(padded)
    assert reply.status == 200 and len(padded) > 1 << 16
    np.testing.assert_array_equal(runtime.came[0][0], array)
    assert "no JSON" in error_of(server.infer(padded[:-1] + b"x"), 400)


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (RequestError("another shape."), 400, None),
        (QueueFull("10 images wait.", retry_s=2.5), 503, "3"),
        (Closed("the runtime is closed."), 503, "1"),
        (Late("too late."), 504, None),
        (RunFailed("width 1: the run failed."), 500, None),
        (ZeroDivisionError("of ours"), 500, None),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_ends_a_request_is_its_status(
    server: Running, runtime: FakeRuntime, error: Exception, status: int, retry: str | None, at_once: bool
) -> None:
    def refuse(array: Array) -> Future[Answer]:
        raise error

    runtime.answers = refuse if at_once else failing(error)
    reply = server.infer(asking(images(1)))
    line = error_of(reply, status)
    assert reply.headers.get("retry-after") == retry
    assert line == str(error) or (status == 500 and "of ours" not in line)


def test_a_body_that_is_squeezed_is_refused(server: Running) -> None:
    assert "gzip" in error_of(server.infer(asking(images(1)), headers={"Content-Encoding": "gzip"}), 415)


def test_more_rows_than_a_run_takes_are_told_how_many_it_takes(server: Running, runtime: FakeRuntime) -> None:
    assert "5 rows, a run takes 1 to 4" in error_of(server.infer(asking(images(5))), 400)
    assert not runtime.came


def test_requests_wait_beside_each_other(server: Running, runtime: FakeRuntime) -> None:
    """None of three is answered before all are there."""
    waiting: list[tuple[Array, Future[Answer]]] = []
    all_there = threading.Event()

    def wait(array: Array) -> Future[Answer]:
        waiting.append((array, Future()))
        if len(waiting) == 3:
            all_there.set()
        return waiting[-1][1]

    runtime.answers = wait
    replies: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: replies.update({seed: server.infer(asking(images(1, seed)))}))
        for seed in range(3)
    ]
    for thread in threads:
        thread.start()
    assert all_there.wait(LIMIT_S)
    for array, future in reversed(waiting):
        future.set_result(answer(array))
    for thread in threads:
        thread.join(LIMIT_S)
    for seed, reply in replies.items():
        own = logits(images(1, seed), 0.5)
        np.testing.assert_array_equal(np.array(reply.json["outputs"][0]["data"], np.float32), own.ravel())
    assert len(replies) == 3


# -------------------------------------------------------------------------------------------- clients that lie or go away


def raw(server: Running, *parts: bytes, end: bool = False) -> bytes:
    """What comes back of bytes sent as they are, until the server closes the connection. `end`: nothing is sent any more."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except TimeoutError:
            raise
        except OSError:  # it closed before it had read everything
            pass
    return received


def head(*headers: str) -> bytes:
    return "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: here", "Connection: close", *headers, "", ""]).encode()


def still_answers(server: Running) -> None:
    assert server.infer(asking(images(1))).status == 200


def test_a_client_that_goes_away_takes_its_request_with_it(server: Running, runtime: FakeRuntime) -> None:
    future: Future[Answer] = Future()
    cancelled = threading.Event()
    future.add_done_callback(lambda done: cancelled.set() if done.cancelled() else None)
    runtime.answers = lambda array: future
    text = json.dumps(asking(images(1))).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        connection.sendall(head(f"Content-Length: {len(text)}") + text)
        assert runtime.arrived.wait(LIMIT_S)
        assert not future.done()
    assert cancelled.wait(LIMIT_S)
    runtime.answers = FakeRuntime().answers
    still_answers(server)


def test_a_body_that_ends_before_its_length_is_never_computed(server: Running, runtime: FakeRuntime) -> None:
    text = json.dumps(asking(images(1))).encode()
    assert raw(server, head(f"Content-Length: {len(text) + 1}"), text, end=True) == b""
    assert not runtime.came
    still_answers(server)


def test_a_body_that_goes_on_after_its_length_is_cut_there(server: Running, runtime: FakeRuntime) -> None:
    text = json.dumps(asking(images(1))).encode()
    received = raw(server, head(f"Content-Length: {len(text) - 1}"), text)
    assert received.startswith(b"HTTP/1.1 400") and b"no JSON" in received
    assert not runtime.came
    still_answers(server)


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "0x10"])
def test_a_length_that_is_no_number_is_refused(server: Running, runtime: FakeRuntime, length: str) -> None:
    received = raw(server, head(f"Content-Length: {length}"), b"{}", end=True)
    assert received == b"" or received.startswith(b"HTTP/1.1 400")
    assert not runtime.came
    still_answers(server)


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(server: Running) -> None:
    received = raw(server, head("Content-Length: 99999999999"), end=True)
    assert received.startswith(b"HTTP/1.1 413") and b"4 images, the most of a request" in received
    still_answers(server)


def test_a_client_that_asks_first_need_not_send_what_is_refused(server: Running) -> None:
    """As curl does with long bodies."""
    text = json.dumps(asking(images(1))).encode()
    received = raw(server, head(f"Content-Length: {len(text)}", "Expect: 100-continue"), text)
    assert received.startswith(b"HTTP/1.1 100 ") and b"HTTP/1.1 200 " in received
    received = raw(server, head("Content-Length: 8000000", "Expect: 100-continue"), end=True)
    assert received.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_too_much_all_the_same_reads_why_it_is_too_much(server: Running) -> None:
    line = error_of(server.infer(b" " * (8 << 20)), 413)
    assert "8,388,608 bytes" in line and "Send fewer at once" in line
    still_answers(server)


def test_a_body_in_chunks_is_read_to_its_end_or_to_its_limit(server: Running, runtime: FakeRuntime) -> None:
    text = json.dumps(asking(images(1))).encode()
    parts = [text[start : start + 100] for start in range(0, len(text), 100)]
    assert server.ask("POST", INFER, iter(parts)).status == 200
    assert "or more" in error_of(server.ask("POST", INFER, iter([b" " * 65536] * 10)), 413)
    assert len(runtime.came) == 1


@pytest.mark.parametrize(("length", "status"), [("1000000", 400), ("-5", 400), ("many", 400), ("9" * 40, 400)])
def test_more_json_than_body_is_refused(server: Running, runtime: FakeRuntime, length: str, status: int) -> None:
    reply = server.infer(asking(images(1)), headers={"Inference-Header-Content-Length": length})
    assert "Inference-Header-Content-Length" in error_of(reply, status)
    assert not runtime.came


def test_hostile_json_ends_one_request(server: Running, runtime: FakeRuntime) -> None:
    for text in (b"[" * 60_000, b'{"a":' * 10_000, b"9" * 60_000, b'"\\ud800"', b"\xff", b"\x00" * 1000, b"NaN"):
        error_of(server.infer(text), 400)
    assert not runtime.came
    still_answers(server)


def test_no_bytes_of_bodies_are_held_when_all_is_answered(runtime: FakeRuntime) -> None:
    """A server whose room is full once would refuse everything then."""
    with running(runtime) as server:
        for _ in range(40):  # the room is of fewer
            assert server.infer(json.dumps(asking(images(4))).encode() + b" " * 50_000).status == 200
            assert server.infer(b" " * 60_000).status == 400


# -------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_count_answers_by_their_status(server: Running) -> None:
    server.infer(asking(images(1)))
    server.infer(b"{")
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.content.decode().splitlines()
    assert 'slimexport_http_responses_total{status="200"} 1.0' in lines
    assert 'slimexport_http_responses_total{status="400"} 1.0' in lines
