"""The page's files and figures as a server gives them: what a browser gets, and what it may send."""

from __future__ import annotations

import configparser
import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

from slimexport.target.serving.answer import Event
from slimexport.target.serving.http.demo import Demo
from slimexport.target.serving.http.page import COLUMNS, INDEX, MOST_BODY, MOST_EVENTS, REFUSED, live, routes
from slimexport.target.serving.runtime import Runtime
from tests.support import ROOT, http_serving

FOLDER = ROOT / "slimexport" / "target" / "serving" / "http" / "page"
FOREVER_MS = 3_000_000.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return http_serving.write_bundle(tmp_path_factory.mktemp("served"))


@pytest.fixture
def runtime(bundle: Path) -> Iterator[Runtime]:
    with Runtime(bundle, slo_ms=10_000, batches=(1, 2, 4)) as runtime:
        yield runtime


@pytest.fixture
def demo(runtime: Runtime) -> Demo:
    return Demo(runtime, load=0.0)


@pytest.fixture
def server(runtime: Runtime, demo: Demo) -> Iterator[http_serving.Running]:
    with http_serving.running(runtime, routes=routes(runtime, demo)) as server:
        yield server


def rows(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(given["columns"], row, strict=True)) for row in given["events"]]


# ----------------------------------------------------------------------------------------------------------- the files


def test_the_page_and_all_that_it_names_are_there_with_their_types(server: http_serving.Running) -> None:
    index = server.get("/")
    assert index.status == 200
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
    names = re.findall(r'(?:src|href)="page/([^"]+)"', index.content.decode())
    names += [name for file in FOLDER.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', file.read_text())]
    assert {Path(name).suffix for name in names} == set(types)
    for name in names:
        file = server.get(f"/page/{name}")
        assert (file.status, file.headers["content-type"]) == (200, types[Path(name).suffix])
        assert file.content == (FOLDER / name).read_bytes()
    assert {file.name for file in FOLDER.iterdir()} == {INDEX, *names}


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/icon.svg", "/live", "/page/other.js"])
def test_every_answer_forbids_what_is_not_ours(server: http_serving.Running, path: str) -> None:
    headers = server.get(path).headers
    assert headers["content-security-policy"].split(";")[0] == "default-src 'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_nothing_is_asked_for_from_elsewhere_and_nothing_is_inline() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*$|(?<=[;,{]) // .*$", "", text, flags=re.MULTILINE), file.name
    index = (FOLDER / INDEX).read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?![^>]*src)|\sstyle=|\son\w+=", index)


@pytest.mark.parametrize(
    "path", ["/page/../page.py", "/page/%2e%2e/page.py", "/page/..%2fpage.py", "/page/index.html", "/page/"]
)
def test_no_other_file_is_given(server: http_serving.Running, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 404
    assert list(reply.json) == ["error"]


def test_the_package_brings_the_page_along() -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    patterns = [pattern.strip() for pattern in settings["options.package_data"]["slimexport"].split(",")]
    for file in FOLDER.iterdir():
        path = file.relative_to(ROOT / "slimexport").as_posix()
        assert any(fnmatch.fnmatch(path, pattern) for pattern in patterns), path


# --------------------------------------------------------------------------------------------------------- the figures


def test_live_tells_of_every_request_once(server: http_serving.Running, runtime: Runtime) -> None:
    answers = [runtime.submit(image, FOREVER_MS).result(http_serving.LIMIT_S) for image in http_serving.images(5)]
    first = server.get("/live?since=0").json
    assert first["columns"] == list(COLUMNS)
    assert (first["every"], first["number"]) == (1, 5)
    labels = [width["label"] for width in first["widths"]]
    assert [labels[row["width"]] for row in rows(first)] == [answer.name for answer in answers]
    for row, answer in zip(rows(first), answers, strict=True):
        assert row["computed_ms"] == pytest.approx(answer.computed_ms, abs=0.02)
        assert row["latency_ms"] == pytest.approx(answer.queued_ms + answer.computed_ms, abs=0.02)
        assert row["latency_ms"] + row["slack_ms"] == pytest.approx(FOREVER_MS, abs=0.1)
        assert (row["images"], row["outcome"]) == (1, "answered")
    runtime.submit(http_serving.images(2), FOREVER_MS).result(http_serving.LIMIT_S)
    second = server.get(f"/live?since={first['number']}").json
    assert [row["images"] for row in rows(second)] == [2]
    assert second["number"] == 6
    assert second["counts"]["answered"] == 6
    third = server.get(f"/live?since={second['number']}").json
    assert (third["events"], third["number"]) == ([], 6)
    assert first["server"] == third["server"]


def test_live_says_what_is_served(server: http_serving.Running, runtime: Runtime) -> None:
    given = server.get("/live").json
    assert (given["network"], given["backend"], given["policy"]) == (http_serving.NETWORK, "onnxruntime-cpu", "drain")
    assert given["accuracy_kind"] == "top-1"
    assert (given["slo_ms"], given["ready"], given["queue"], given["waiting"]) == (10_000, True, 1000, 0)
    assert [width["label"] for width in given["widths"]] == ["0.25", "0.5", "1"]
    assert [width["accuracy"] for width in given["widths"]] == [0.5625, 0.625, 0.75]
    table = runtime.latencies
    for number, width in enumerate(given["widths"]):
        speeds = [1e3 * batch / ms for batch, ms in zip(table.batches, table.ms[number], strict=True)]
        assert width["capacity"] == pytest.approx(max(speeds), abs=0.1)
        assert width["image_ms"] == pytest.approx(table.of(number, 1), abs=0.001)


def test_of_more_events_every_so_manieth_is_given(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 7 * MOST_EVENTS + 3
    events = [Event(number, number / 100, "0.5", 1, 4, 1.0, 2.0, 3.0, 47.0, "answered") for number in range(1, count + 1)]
    monkeypatch.setattr(runtime, "recent", lambda since: [event for event in events if event.number > since])
    given = live(runtime, 0)
    assert given["every"] == 8
    assert len(given["events"]) <= MOST_EVENTS
    assert given["every"] * len(given["events"]) == pytest.approx(count, abs=8)
    steps = np.diff([row["at_s"] for row in rows(given)])
    assert np.allclose(steps, 0.08)
    assert given["number"] == count


def test_a_refused_request_has_no_width(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    event = Event(1, 1.0, "", 1, 0, 50.0, 0.0, 50.0, -0.1, "late")
    monkeypatch.setattr(runtime, "recent", lambda since: [event])
    (row,) = rows(live(runtime))
    assert (row["width"], row["outcome"]) == (REFUSED, "late")


def test_a_policy_of_the_user_s_own_has_its_function_s_name(bundle: Path) -> None:
    def narrowest(waiting: int, slack_ms: float, latencies: Any) -> Any:
        return 0, 1

    with Runtime(bundle, policy=narrowest, batches=(1,)) as runtime:
        assert live(runtime)["policy"] == "narrowest"


def test_a_closed_runtime_is_shown_as_such(bundle: Path) -> None:
    runtime = Runtime(bundle, batches=(1,))
    runtime.close()
    assert live(runtime)["ready"] is False


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "9" * 30, "%C2%B2"])
def test_a_since_that_is_no_number_is_one_message(server: http_serving.Running, since: str) -> None:
    reply = server.get(f"/live?since={since}")
    assert reply.status == 400
    assert re.fullmatch(r"since '.*': expected the number of an event, 0 or more\.", reply.json["error"])


# --------------------------------------------------------------------------------------------------------- the sliders


def move(server: http_serving.Running, body: Any, kind: str = "application/json") -> http_serving.Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.ask("POST", "/demo", content, {"Content-Type": kind})


def test_sliders_change_load_and_deadline(server: http_serving.Running, demo: Demo, runtime: Runtime) -> None:
    reply = move(server, {"load": 1.5, "slo_ms": 2000})
    assert reply.status == 200
    assert (demo.load, runtime.slo_ms) == (1.5, 2000.0)
    assert (reply.json["load"], reply.json["slo_ms"], reply.json["capacity"]) == (1.5, 2000.0, demo.capacity)
    assert move(server, {"load": 0.5}, "application/json; charset=utf-8").status == 200
    given = server.get("/live").json
    assert (given["demo"]["load"], given["demo"]["slo_ms"], given["slo_ms"]) == (0.5, 2000.0, 2000.0)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"load": 99}, "load 99: expected a number from 0 to 4"),
        ({"slo_ms": "soon"}, "slo_ms 'soon': expected a number"),
        ({"load": None}, "expected"),
        ({"load": 1, "speed": 2}, "expected"),
        ({}, "expected"),
        ([1], "expected"),
        (b"{", "no JSON"),
        (b"\xff", "utf-8"),
        (b'{"load": NaN}', "NaN"),
        (b" " * (MOST_BODY + 1), "more than"),
    ],
)
def test_what_is_no_wish_is_one_message_and_changes_nothing(
    server: http_serving.Running, demo: Demo, body: Any, part: str
) -> None:
    reply = move(server, body)
    assert reply.status == 400
    assert part in reply.json["error"]
    assert "\n" not in reply.json["error"]
    assert (demo.load, demo.runtime.slo_ms) == (0.0, 10_000.0)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_site_s_page_moves_no_slider(server: http_serving.Running, demo: Demo, kind: str) -> None:
    """These types a browser sends anywhere; `application/json` it sends where it was allowed to, which is nowhere here."""
    assert move(server, {"load": 1.0}, kind).status == 400
    assert demo.load == 0.0
    asked = server.ask("OPTIONS", "/demo", headers={"Origin": "http://other", "Access-Control-Request-Method": "POST"})
    assert asked.status == 405
    assert "access-control-allow-origin" not in asked.headers


def test_without_a_demonstration_there_are_no_sliders(runtime: Runtime) -> None:
    with http_serving.running(runtime, routes=routes(runtime)) as server:
        assert server.get("/live").json["demo"] is None
        assert move(server, {"load": 1.0}).status == 404
