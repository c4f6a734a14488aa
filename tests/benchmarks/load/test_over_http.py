"""Sending to a server, by Triton's own client: what it is sent, and what its answers and refusals count as."""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.load.book import ANSWERED, FAILED, FULL, LATE, OUTCOMES
from benchmarks.load.in_process import images_of
from benchmarks.load.over_http import UNKNOWN, Model, is_url, model_of, play
from slimtrain.base.errors import ResourceError, UserError
from tests.support.load_fakes import METADATA, protocol_server

try:
    importlib.import_module("tritonclient.http.aio")
    CLIENT = True
except ImportError:
    CLIENT = False
needs_client = pytest.mark.skipif(not CLIENT, reason="tritonclient[http] is not installed")

IMAGES = images_of((3, 4, 4), 0, 2)
ANSWER = {"width": 0.5, "batch": 3, "queued_ms": 1.5, "computed_ms": 2.5}


def spaced(count: int, seconds: float = 0.01) -> Any:
    return np.arange(count) * seconds


@needs_client
def test_a_model_is_asked_for_its_input() -> None:
    with protocol_server(lambda number, header, content: (200, ANSWER)) as url:
        assert model_of(url) == Model("us_mobilenet_v1", "input", (3, 4, 4), 5)


@needs_client
def test_requests_are_bytes_with_a_deadline_and_answers_tell_their_width() -> None:
    seen: dict[int, tuple[Mapping[str, Any], bytes]] = {}

    def responding(number: int, header: Mapping[str, Any], content: bytes) -> tuple[int, Mapping[str, Any]]:
        seen[number] = (header, content)
        return 200, ANSWER

    with protocol_server(responding) as url:
        samples = play(url, model_of(url), spaced(3), IMAGES, 60_000.0)
    assert samples.of(ANSWERED).all() and samples.labels == ("0.5",) and samples.doubled == 0
    assert (samples.batch[0], samples.queued_ms[0], samples.computed_ms[0]) == (3, 1.5, 2.5)
    assert (samples.latency_ms > 0).all() and (samples.late_ms >= 0).all()
    assert {content for _, content in seen.values()} == {image.tobytes() for image in IMAGES}
    for header, _ in seen.values():
        assert header["inputs"][0]["shape"] == [1, 3, 4, 4] and header["inputs"][0]["datatype"] == "FP32"
        assert 0 < header["parameters"]["timeout"] <= 60_000_000


@needs_client
def test_requests_of_several_images() -> None:
    shapes: list[list[int]] = []

    def responding(number: int, header: Mapping[str, Any], content: bytes) -> tuple[int, Mapping[str, Any]]:
        shapes.append(header["inputs"][0]["shape"])
        return 200, ANSWER

    with protocol_server(responding) as url:
        play(url, model_of(url), spaced(1), images_of((3, 4, 4), 0, 1, together=6), 60_000.0)
    assert shapes == [[6, 3, 4, 4]]


@needs_client
def test_no_request_waits_for_the_answer_of_another() -> None:
    """The server answers none before it has all of them."""
    everyone = threading.Barrier(12, timeout=60.0)

    def responding(number: int, header: Mapping[str, Any], content: bytes) -> tuple[int, Mapping[str, Any]]:
        everyone.wait()
        return 200, ANSWER

    with protocol_server(responding) as url:
        samples = play(url, model_of(url), spaced(12, 0.001), IMAGES, 60_000.0)
    assert samples.of(ANSWERED).all()


@needs_client
def test_refusals_and_failures_have_their_names() -> None:
    ends: list[tuple[int, Mapping[str, Any]]] = [
        (200, {}),
        (504, {"error": "late"}),
        (503, {"error": "full"}),
        (500, {"error": "the run failed"}),
        (400, {"error": "no"}),
    ]
    order: list[int] = []

    def responding(number: int, header: Mapping[str, Any], content: bytes) -> tuple[int, Mapping[str, Any]]:
        order.append(number)
        return ends[number]

    with protocol_server(responding) as url:
        samples = play(url, model_of(url), spaced(5, 0.3), IMAGES, 60_000.0)
    assert sorted(OUTCOMES[place] for place in samples.outcome) == sorted([ANSWERED, LATE, FULL, FAILED, FAILED])
    assert samples.labels == (UNKNOWN,), "a server that does not tell the width"
    answered = samples.of(ANSWERED)
    assert math.isnan(samples.queued_ms[answered][0]) and samples.batch[answered].tolist() == [1]


@needs_client
def test_a_server_that_goes_away_fails_its_requests() -> None:
    with protocol_server(lambda number, header, content: (200, ANSWER)) as url:
        model = model_of(url)
    assert play(url, model, spaced(2), IMAGES, 1000.0).of(FAILED).all()
    with pytest.raises(UserError, match="does not answer for us_mobilenet_v1"):
        model_of(url)


@needs_client
@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"inputs": []}, "takes more or other than one tensor"),
        ({"inputs": [{"name": "i", "datatype": "INT8", "shape": [-1, 3]}]}, "takes 'INT8'"),
        ({"inputs": [{"name": "i", "datatype": "FP32", "shape": [-1, -1]}]}, "expected FP32 of known sizes"),
        ({"inputs": [{"name": "i", "datatype": "FP32", "shape": [-1, 10**9, 10**9]}]}, "expected FP32 of known sizes"),
        ({"outputs": None}, "takes more or other"),
    ],
)
def test_what_is_no_such_model_is_refused(metadata: Mapping[str, Any], said: str) -> None:
    with (
        protocol_server(lambda number, header, content: (200, ANSWER), {**METADATA, **metadata}) as url,
        pytest.raises(UserError, match=said),
    ):
        model_of(url)


def test_an_address_names_a_model() -> None:
    assert is_url("http://127.0.0.1:8000") and is_url("https://a/b") and not is_url("exports/http")
    for url in ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v2/models", "http://a/v2/models/b/infer"):
        with pytest.raises(UserError, match="names no model"):
            model_of(url)


def test_without_the_client_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(ResourceError, match=r"pip install 'tritonclient\[http\]'"):
        model_of("http://127.0.0.1:1/v2/models/m")


def test_widths_of_a_published_model_have_their_accuracies() -> None:
    facts, source = Model("us_mobilenet_v1", "input", (3, 224, 224), 1000).facts
    assert source == "published" and {fact.label: fact.accuracy for fact in facts}["1"] == pytest.approx(0.718)
    assert len(facts) == 31
    facts, source = Model("us_mobilenet_v1", "input", (1, 16, 16), 10).facts
    assert source is None and all(fact.accuracy is None for fact in facts) and len(facts) == 31
    assert Model("mine", "input", (3, 224, 224), 1000).facts == ((), None)
