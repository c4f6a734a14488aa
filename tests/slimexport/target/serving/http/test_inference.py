"""A request for inference as an ASGI application answers it, without a server."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from slimexport.target.serving.answer import Answer
from slimexport.target.serving.requests import Pending
from tests.support.http_serving import NETWORK, images
from tests.support.serving_fakes import FakeRuntime, answer

inference = pytest.importorskip("slimexport.target.serving.http.inference", reason="pip install '.[serve]'")
metrics = pytest.importorskip("slimexport.target.serving.http.metrics")


class Client:
    """One that sends a request and goes away when `leave` is set. `asked` counts how often the application asked for more of
    it; `sent` are the messages that came back."""

    def __init__(self) -> None:
        array = images(1)
        tensor = {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        self.body = json.dumps({"inputs": [tensor]}).encode()
        self.scope = {"type": "http", "method": "POST", "path": f"/v2/models/{NETWORK}/infer", "headers": []}
        self.asked, self.sent, self.leave = 0, list[Any](), asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            return {"type": "http.request", "body": self.body}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def test_who_is_answered_soon_is_not_asked_whether_he_is_there() -> None:
    """It would take a task for every request."""
    client, runtime = Client(), FakeRuntime()
    infer = inference.Inference(runtime, metrics.Metrics(runtime))
    asyncio.run(infer(client.scope, client.receive, client.send))
    assert (client.asked, [message.get("status") for message in client.sent]) == (1, [200, None])


def test_a_client_that_goes_while_it_waits_takes_its_request_with_it() -> None:
    future: Future[Answer] = Future()
    client, runtime = Client(), FakeRuntime(answers=lambda array: future)
    counts = metrics.Metrics(runtime)

    async def go() -> None:
        asking = asyncio.ensure_future(inference.Inference(runtime, counts)(client.scope, client.receive, client.send))
        while client.asked < 2:
            await asyncio.sleep(0.001)
        assert not future.done()
        client.leave.set()
        await asyncio.wait_for(asking, 60)

    asyncio.run(go())
    assert future.cancelled() and counts.responded == {499: 1}


def test_an_answer_that_takes_long_comes_though_the_client_was_asked_for() -> None:
    """And nothing is left on the loop."""
    future: Future[Answer] = Future()
    client, runtime = Client(), FakeRuntime(answers=lambda array: future)

    async def wait() -> None:
        before = asyncio.all_tasks()
        infer = inference.Inference(runtime, metrics.Metrics(runtime))
        asking = asyncio.ensure_future(infer(client.scope, client.receive, client.send))
        while client.asked < 2:
            await asyncio.sleep(0.001)
        threading.Thread(target=future.set_result, args=(answer(images(1)),)).start()
        await asyncio.wait_for(asking, 60)
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(wait(), 60))
    assert client.sent[0]["status"] == 200


def test_the_time_that_reading_took_is_of_the_deadline() -> None:
    assert inference.left_ms(20.0, 0.004) == pytest.approx(16.0)
    assert 0 < inference.left_ms(20.0, 0.5) < 0.01, "the runtime refuses it, and counts it"


def test_the_loop_is_woken_before_the_answer_and_not_once_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    future = Pending()

    async def wait() -> Answer:
        loop = asyncio.get_running_loop()
        woken: list[object] = []
        call = loop.call_soon_threadsafe

        def note(*asked: Any) -> Any:
            woken.append(asked)
            return call(*asked)

        monkeypatch.setattr(loop, "call_soon_threadsafe", note)
        asking = asyncio.ensure_future(inference.answer_of(future, asyncio.Event().wait))
        await asyncio.sleep(0)
        assert future.on_ran is not None and not woken
        future.on_ran()
        assert len(woken) == 1 and not future.done()
        future.answer(answer(images(1)))
        return await asking

    assert asyncio.run(wait()).batch == 1
    assert future.on_ran is not None
    future.on_ran()


def test_an_answer_that_comes_when_the_server_has_ended_is_nobody_s(caplog: pytest.LogCaptureFixture) -> None:
    """Of a request that was computed already: nothing takes it back."""
    future: Future[Answer] = Future()
    assert future.set_running_or_notify_cancel()

    async def end() -> None:
        waiting = asyncio.ensure_future(inference.answer_of(future, asyncio.Event().wait))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(end())
    future.set_result(answer(images(1)))
    assert not caplog.records
