"""The model that chooses a width, as Triton's Python backend calls it, on a stand-in for the server: every answer is that of
the file of the width it names; the policy sees all that waits; an error is that of its request or batch alone."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.serving.triton.widths import Width
from tests.support.served_widths import CLASSES, NETWORK, SHAPE, bundle_of, logits
from tests.support.triton_backend import LIMIT_S, NAME, Backend, Request, arguments, model_module

WIDTHS = (0.25, 0.5, 1.0)
# Milliseconds so far apart that no machine's load moves a choice: the widest takes 20 minutes an image
SLOW = Latencies(("0.25", "0.5", "1"), (1, 2, 4), ((1e3, 2e3, 4e3), (2e5, 4e5, 8e5), (1_200_000.0, 2_400_000.0, 4_800_000.0)))
HALF_AN_HOUR_US = 1_800_000_000

Open = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder of three widths."""
    manifest = bundle_of(tmp_path / "bundle", dict.fromkeys(WIDTHS))
    write_adaptive(tmp_path / "bundle", manifest, tmp_path / "models", max_batch=8)
    return tmp_path / "models" / NETWORK


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    module = Backend()
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


@pytest.fixture
def opened(folder: Path, backend: Backend) -> Iterator[Open]:
    """Opens the model; `table` stands for what it would measure."""
    models = []

    def open_model(table: Latencies | None = None, **parameters: str) -> Any:
        module = model_module(folder)
        if table is not None:
            module.measure = lambda *given: table  # type: ignore[attr-defined]
        model = module.TritonPythonModel()
        model.initialize(arguments(folder, **parameters))
        models.append(model)
        return model

    yield open_model
    for model in models:
        if model._thread.is_alive():
            model.finalize()


def images(count: int = 1, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE), dtype=np.float32)


class Gate:
    """Holds a model's runs back until it is opened."""

    def __init__(self, model: Any) -> None:
        self.began, self._open = threading.Event(), threading.Event()
        self._widths = list(model._widths)
        model._widths = [self._behind(width) for width in self._widths]

    def _behind(self, width: Any) -> Any:
        def run(given: NDArray[Any]) -> Any:
            self.began.set()
            assert self._open.wait(LIMIT_S)
            return width(given)

        return Width(width.label, run)

    def open(self) -> None:
        self._open.set()


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("policy", ["drain", "slackfit", "fixed:0.5"])
def test_every_answer_is_that_of_the_width_it_names(opened: Open, policy: str) -> None:
    model = opened(policy=policy, slo_ms="60000")
    asked = [(images(1 + seed % 3, seed)) for seed in range(30)]
    requests = [Request(array.copy()) for array in asked]
    for start in range(0, 30, 7):
        model.execute(requests[start : start + 7])
        for request in requests[start : start + 7]:
            request.tensor.array[:] = np.nan  # Triton's memory, which it takes back
    for request, array in zip(requests, asked, strict=True):
        label, output = request.result()
        assert output.shape == (len(array), CLASSES) and output.dtype == np.float32
        np.testing.assert_allclose(output, logits(float(label), array), rtol=0, atol=1e-4)
        assert policy != "fixed:0.5" or label == "0.5"


def test_latencies_are_measured_at_the_start_and_corrected(opened: Open, backend: Backend) -> None:
    model = opened(slo_ms="60000")
    measured = model._scheduler.latencies
    assert measured.widths == ("0.25", "0.5", "1") and measured.batches == (1, 2, 4, 8)
    assert all(0 < ms < 60_000 for row in measured.ms for ms in row)
    assert [line for line in backend.log if line.startswith("net width 0.25: 1: ")]
    request = Request(images())
    model.execute([request])
    request.result()
    model.finalize()
    assert model._scheduler.latencies != measured


def test_one_alone_gets_the_widest_and_many_get_what_serves_them_all(opened: Open) -> None:
    model = opened(SLOW)
    gate = Gate(model)
    first = Request(images(), HALF_AN_HOUR_US)
    model.execute([first])
    assert gate.began.wait(LIMIT_S)
    rest = [Request(images(1, seed), HALF_AN_HOUR_US) for seed in range(5)]
    for request in rest:  # one by one, while the first is computed: they are chosen for together all the same
        model.execute([request])
    gate.open()
    assert first.result()[0] == "1"
    labels = [request.result()[0] for request in rest]
    assert labels[0] == "0.5", "five times the widest is more than half an hour"
    assert set(labels) <= {"0.25", "0.5", "1"}
    for seed, request in enumerate(rest):
        label, output = request.result()
        np.testing.assert_allclose(output, logits(float(label), images(1, seed)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("slo_ms", "timeout_us", "label"),
    [
        ("1800000", 0, "1"),
        ("600000", 0, "0.5"),
        ("60000", 0, "0.25"),
        ("60000", HALF_AN_HOUR_US, "1"),
        ("1800000", 60_000_000, "0.25"),
        ("1800000", 2**64 - 1, "1"),  # microseconds are Triton's uint64
    ],
)
def test_a_requests_timeout_is_its_deadline_else_slo_ms(opened: Open, slo_ms: str, timeout_us: int, label: str) -> None:
    model = opened(SLOW, slo_ms=slo_ms)
    request = Request(images(), timeout_us)
    model.execute([request])
    assert request.result()[0] == label


def test_the_most_urgent_is_served_first(opened: Open) -> None:
    model = opened(SLOW, policy="fixed:0.25", late="serve")
    gate, order = Gate(model), list[str]()
    first = Request(images(), 1)
    model.execute([first])
    assert gate.began.wait(LIMIT_S)

    class Ordered(Request):
        def send(self, response: Any, flags: int) -> None:
            order.append("urgent" if self.timeout() == 10**6 else "later")
            super().send(response, flags)

    requests = [Ordered(images(4), 2**40), Ordered(images(4), 10**6)]
    model.execute(requests)
    gate.open()
    for request in requests:
        request.result()
    assert order == ["urgent", "later"]


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_cannot_meet_its_deadline_is_refused_or_served_at_the_narrowest(opened: Open) -> None:
    model = opened(SLOW)
    request = Request(images(), 500_000)
    model.execute([request])
    code, message = request.refusal()
    assert code == "unavailable" and "of its 500 ms, and no width ends in the rest" in message
    served = opened(SLOW, late="serve")
    request = Request(images(), 500_000)
    served.execute([request])
    assert request.result()[0] == "0.25"


def test_more_than_may_wait_are_refused_at_once(opened: Open) -> None:
    model = opened(SLOW, queue="3", late="serve")
    gate = Gate(model)
    first = Request(images())
    model.execute([first])
    assert gate.began.wait(LIMIT_S)
    requests = [Request(images(size)) for size in (2, 2, 1)]
    model.execute(requests)
    assert requests[1].answered and not requests[0].answered
    code, message = requests[1].refusal()
    assert code == "unavailable" and "2 images wait, 3 may" in message
    gate.open()
    for request in (first, requests[0], requests[2]):
        request.result()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(np.zeros((1, 3, 5, 4), np.float32)), "float32 [1, 3, 5, 4], expected float32 [N, 3, 4, 4]"),
        (Request(np.zeros((1, *SHAPE), np.float64)), "float64 [1, 3, 4, 4], expected float32"),
        (Request(np.zeros((0, *SHAPE), np.float32)), "[0, 3, 4, 4]"),
        (Request(np.zeros((1, *SHAPE), np.float32), name="other"), "no input input"),
        (Request(np.zeros((5, *SHAPE), np.float32)), "5 images: 4 at most"),
    ],
)
def test_a_request_that_no_width_takes_is_its_own_error(opened: Open, request_: Request, said: str) -> None:
    model = opened(SLOW, late="serve")
    others = [Request(images(2, 1)), Request(images(1, 2))]
    model.execute([others[0], request_, others[1]])
    code, message = request_.refusal()
    assert code == "invalid" and said in message
    for request in others:
        request.result()


def test_a_run_that_fails_is_that_of_its_batch_alone(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, late="serve")
    working = model._widths[0]

    def failing(given: NDArray[Any]) -> Any:
        raise RuntimeError("out of order")

    model._widths[0] = Width("0.25", failing)
    requests = [Request(images()), Request(images())]
    model.execute(requests)
    for request in requests:
        code, message = request.refusal()
        assert code == "internal" and "width 0.25 failed on a batch of" in message and "out of order" in message
    model._widths[0] = working
    request = Request(images())
    model.execute([request])
    assert request.result()[0] == "0.25"


def test_a_width_that_fails_again_and_again_is_taken_out(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, slo_ms="1800000")

    def failing(given: NDArray[Any]) -> Any:
        raise RuntimeError("out of order")

    model._widths[-1] = Width("1", failing)
    for _ in range(3):
        request = Request(images())
        model.execute([request])
        assert "width 1 failed" in request.refusal()[1]
    request = Request(images())
    model.execute([request])
    assert request.result()[0] == "0.5", "the widest that is left"
    assert [line for line in backend.log if line.startswith("width 1 is taken out")]


def test_a_width_that_works_in_between_stays(opened: Open) -> None:
    model = opened(SLOW, slo_ms="1800000")
    working, fails = model._widths[-1], iter([True, True, False, True, True, False])

    def now_and_then(given: NDArray[Any]) -> Any:
        if next(fails):
            raise RuntimeError("out of order")
        return working(given)

    model._widths[-1] = Width("1", now_and_then)
    requests = [Request(images()) for _ in range(6)]
    for request in requests:
        model.execute([request])
        request.answer()
    assert [request.answer().error is None for request in requests] == [False, False, True, False, False, True]
    assert requests[-1].result()[0] == "1"


def test_an_answer_that_the_server_does_not_take_stops_nothing(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, late="serve")

    class Gone(Request):
        def send(self, response: Any, flags: int) -> None:
            raise RuntimeError("the client is gone")

    after = Request(images())
    model.execute([Gone(images()), Gone(np.zeros((1, 1), np.float32)), after])
    assert after.result()[0] == "0.25"
    assert sum("the client is gone" in line for line in backend.log) == 2


# ------------------------------------------------------------------------------------------------------ start and end


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"slo_ms": "0"}, "slo_ms is '0', expected a number of at least 0.001"),
        ({"slo_ms": "soon"}, "slo_ms is 'soon'"),
        ({"slo_ms": "nan"}, "slo_ms"),
        ({"slo_ms": "inf"}, "slo_ms"),
        ({"policy": "greedy"}, "'greedy': not known. Available: drain, slackfit, fixed:WIDTH"),
        ({"policy": "fixed:0.3"}, "Open are 0.25, 0.5, 1"),
        ({"late": "never"}, "late is 'never', expected one of refuse, serve"),
        ({"queue": "0"}, "queue is '0'"),
        ({"queue": "1.5"}, "queue is '1.5'"),
        ({"threads": "-1"}, "threads is '-1'"),
    ],
)
def test_parameters_that_cannot_be_are_named(opened: Open, parameters: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        opened(SLOW, **parameters)


def test_a_parameter_that_was_deleted_is_named(folder: Path, backend: Backend) -> None:
    given = arguments(folder)
    config = json.loads(given["model_config"])
    del config["parameters"]["slo_ms"]
    with pytest.raises(ValueError, match="parameter slo_ms is None"):
        model_module(folder).TritonPythonModel().initialize({**given, "model_config": json.dumps(config)})


@pytest.mark.parametrize("number", range(len(WIDTHS)))
def test_a_file_that_was_changed_is_not_served(opened: Open, folder: Path, number: int) -> None:
    path = sorted((folder / "1").glob("*.onnx"))[number]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{path.name}: SHA-256 is .*changed or damaged.*--overwrite"):
        opened(SLOW)


def test_what_waits_at_the_end_is_still_served(opened: Open) -> None:
    model = opened(SLOW, late="serve")
    gate = Gate(model)
    requests = [Request(images()) for _ in range(6)]
    model.execute(requests)
    assert gate.began.wait(LIMIT_S)
    ending = threading.Thread(target=model.finalize)
    ending.start()
    gate.open()
    ending.join(LIMIT_S)
    assert not ending.is_alive() and all(request.answered for request in requests)
    for request in requests:
        request.result()


def test_metrics_count_what_became_of_requests(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, policy="fixed:1")
    requests = [Request(images(2), HALF_AN_HOUR_US), Request(images(), 500), Request(np.zeros((1, 1), np.float32))]
    for request in requests:
        model.execute([request])
        request.answer()
    model.finalize()  # counts come after answers
    assert {key[1] for key in backend.metrics.counts} == {NETWORK}
    counts = {(key[0], *key[2:]): value for key, value in backend.metrics.counts.items()}
    assert {key: value for key, value in counts.items() if value} == {
        ("slimexport_images_total", "1"): 2,
        ("slimexport_requests_total", "1", "answered"): 1,
        ("slimexport_refused_total", "late"): 1,
        ("slimexport_refused_total", "invalid"): 1,
        ("slimexport_deadline_misses_total",): 1,
    }
    assert len(counts) == 3 + 3 * 2 + 3 + 1


def test_what_is_served_after_its_deadline_is_a_miss(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, late="serve")
    request = Request(images(), 1)
    model.execute([request])
    request.result()
    model.finalize()
    counts = backend.metrics.counts
    assert counts["slimexport_deadline_misses_total", NETWORK] == 1
    assert counts["slimexport_requests_total", NETWORK, "0.25", "answered"] == 1


def test_metrics_that_break_stop_nothing(opened: Open, backend: Backend) -> None:
    model = opened(SLOW, late="serve")
    backend.metrics.broken = True
    for _ in range(3):
        request = Request(images())
        model.execute([request])
        request.result()


def test_a_server_without_metrics_is_served_all_the_same(
    opened: Open, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    silent = Backend(off=True)
    monkeypatch.setitem(sys.modules, NAME, silent)
    model = opened(SLOW, slo_ms="1800000")
    request = Request(images())
    model.execute([request])
    assert request.result()[0] == "1"
    assert any("no metrics of its own" in line for line in silent.log)
