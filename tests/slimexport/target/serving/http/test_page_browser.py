"""The page in a real browser, a headless Chromium: what it shows of a running runtime, in light and dark, on a phone, to those
who cannot see it, and when the server goes away."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

from slimexport.target.serving.http.app import make_app
from slimexport.target.serving.http.demo import Demo
from slimexport.target.serving.http.page import routes
from slimexport.target.serving.http.server import bind, listen, make_server
from slimexport.target.serving.runtime import Runtime
from tests.support import chromium, http_serving
from tests.support.serving_helpers import wait_until

FOREVER_MS = 3_000_000.0
BINARY = chromium.installed()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine (Debian: apt install chromium)")
CHARTS = ("shares", "latency", "accuracies", "requests", "waited")
# Texts with their color and what is behind them, as the browser computed both.
COLORS = """
[...document.querySelectorAll('body *')].filter((element) => {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return own && element.getClientRects().length && getComputedStyle(element).visibility === 'visible';
}).map((element) => {
  const style = getComputedStyle(element);
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const ground = behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)';
  return [element.textContent.trim().slice(0, 40), element instanceof SVGElement ? style.fill : style.color, ground];
})
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return http_serving.write_bundle(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    assert BINARY is not None
    with chromium.Chromium(BINARY) as browser:
        yield browser


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Iterator[Runtime]:
    with Runtime(bundle, slo_ms=1000, batches=(1, 2, 4)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def demo(runtime: Runtime) -> Demo:
    """One that stands still: its sliders can be moved, and what is sent is the test's to say."""
    return Demo(runtime, load=0.0)


@pytest.fixture(scope="module")
def url(runtime: Runtime, demo: Demo) -> Iterator[str]:
    with http_serving.running(runtime, routes=routes(runtime, demo)) as server:
        yield f"http://{server.address}/"


def serve_some(runtime: Runtime, count: int) -> None:
    for future in [runtime.submit(image, FOREVER_MS) for image in http_serving.images(count)]:
        future.result(http_serving.LIMIT_S)


def shows(page: chromium.Page, id_: str, text: str) -> None:
    """Wait until an element holds a text."""
    page.until(f"document.getElementById({json.dumps(id_)}).textContent.includes({json.dumps(text)})")


def shows_while(page: chromium.Page, feed: Callable[[], object], condition: str) -> None:
    """Feed the runtime until a JavaScript expression is true: what is about the last seconds is soon over."""
    look = (
        f"new Promise((done) => {{ const look = (left) => ({condition}) ? done(true) : left ? setTimeout(look, 50, left - 1)"
    )
    look += " : done(false); look(40); })"
    for _ in range(int(http_serving.LIMIT_S)):
        feed()
        if page.evaluate(look):
            return
    raise AssertionError(f"{condition} did not come true")


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two opaque colors."""

    def luminance(color: str) -> float:
        assert color.startswith("rgb("), color
        parts = np.array([float(part) for part in color[4:-1].split(",")]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ----------------------------------------------------------------------------------------------------- what it shows


def test_it_shows_the_figures_of_a_running_runtime(browser: chromium.Chromium, url: str, runtime: Runtime) -> None:
    before = runtime.stats().answered
    page = browser.page(url)
    serve_some(runtime, 12)
    shows(page, "totals", f"{before + 12} answered")
    assert page.text("state") == "● Serving"
    assert page.text("network") == http_serving.NETWORK
    assert page.text("facts") == "onnxruntime-cpu · policy drain · 3 widths"
    assert page.text("in-time") == "100.0 %"
    table = page.evaluate(
        "[...document.querySelectorAll('#widths tr')].map((row) => [...row.children].map((x) => x.innerText))"
    )
    now = runtime.stats()
    assert [row[0] for row in table] == ["0.25", "0.5", "1"]
    assert [row[1] for row in table] == ["56.3 %", "62.5 %", "75.0 %"]
    assert [int(row[4]) for row in table] == [state.answered for state in now.widths]
    assert {row[5] for row in table} == {"● serves"}
    used = [state.label for state in now.widths if state.answered]
    feed = partial(serve_some, runtime, 4)
    shows_while(page, feed, "Number(document.getElementById('rate').textContent) > 0")
    shows_while(page, feed, f"{json.dumps(used)}.includes(document.getElementById('width').textContent)")
    shows_while(page, feed, "document.querySelectorAll('#shares .name').length > 0")
    shows_while(page, feed, "document.querySelector('#shares').getAttribute('aria-label').includes(': width ')")
    assert page.evaluate("document.querySelectorAll('#latency .line.deadline').length") == 1


def test_what_cannot_be_met_is_shown_as_missed(browser: chromium.Chromium, url: str, runtime: Runtime) -> None:
    page = browser.page(url)
    shows(page, "state", "Serving")

    def feed() -> None:
        for image in http_serving.images(20):
            assert runtime.submit(image, 1e-3).exception(http_serving.LIMIT_S) is not None

    missed = "[...document.querySelectorAll('#requests .name')].some((name) => name.textContent === 'missed')"
    shows_while(page, feed, missed)
    assert page.text("in-time") != "100.0 %"


def test_nothing_goes_wrong_in_it_and_it_asks_this_server_alone(browser: chromium.Chromium, url: str) -> None:
    page = browser.page(url)
    shows(page, "state", "Serving")
    asked = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    assert len(asked) >= 6
    assert all(address.startswith(url) for address in asked), asked
    assert page.events("Runtime.exceptionThrown") == []
    assert page.events("Log.entryAdded") == []  # what a content security policy refuses is there
    refused = page.evaluate("fetch('http://127.0.0.1:1/').then(() => 'sent', (error) => 'not sent')")
    assert refused == "not sent"
    assert any("Content Security Policy" in event["entry"]["text"] for event in page.events("Log.entryAdded"))


# ------------------------------------------------------------------------------------------------- that all can read it


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_its_texts_stand_out_in_light_and_dark(
    browser: chromium.Chromium, url: str, runtime: Runtime, dark: bool, tmp_path: Path
) -> None:
    serve_some(runtime, 4)
    page = browser.page(url, dark=dark)
    page.until("document.querySelectorAll('#latency .name').length > 2")
    texts = page.evaluate(COLORS)
    assert len(texts) > 40
    weak = [(text, contrast(color, ground)) for text, color, ground in texts if contrast(color, ground) < 4.5]
    assert not weak
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (contrast(ground, "rgb(0, 0, 0)") < 1.5) == dark
    assert page.picture(tmp_path / "page.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colors_of_widths_go_from_light_to_dark_in_their_order(browser: chromium.Chromium, url: str, dark: bool) -> None:
    """So that an eye without color sees which is wider; each stands out from the panel."""
    page = browser.page(url, dark=dark)
    page.until("document.querySelectorAll('#legend .swatch').length === 3")
    draw = """
    [...document.querySelectorAll('#legend .swatch')].map((swatch) => {
      const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
      pen.fillStyle = getComputedStyle(swatch).backgroundColor;
      pen.fillRect(0, 0, 1, 1);
      return 'rgb(' + [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).join(', ') + ')';
    })
    """
    colors = page.evaluate(draw)
    against_black = [contrast(color, "rgb(0, 0, 0)") for color in colors]
    assert against_black == sorted(against_black, reverse=True)
    assert all(one > 1.25 * other for one, other in itertools.pairwise(against_black))
    assert page.evaluate("[...document.querySelectorAll('#legend li')].map((item) => item.textContent)") == [
        "0.25",
        "0.5",
        "1",
    ]


def test_charts_and_sliders_have_names_and_values_for_those_who_hear_it(browser: chromium.Chromium, url: str) -> None:
    page = browser.page(url)
    page.until("document.querySelector('#waited').getAttribute('aria-label')")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        role: [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == role]
        for role in ("image", "slider", "heading", "columnheader", "rowheader")
    }
    assert len(named["image"]) == len(CHARTS)
    assert all(name.endswith(".") for name in named["image"])
    assert named["slider"] == ["Load", "Deadline"]
    assert named["rowheader"] == ["0.25", "0.5", "1"]
    assert "Latency against the deadline" in named["heading"]
    assert page.evaluate("document.documentElement.lang") == "en"


def test_it_fits_a_phone(browser: chromium.Chromium, url: str) -> None:
    page = browser.page(url, size=(320, 700))
    shows(page, "state", "Serving")
    page.until("document.querySelectorAll('#waited .name').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    beyond = """
    [...document.querySelectorAll('.chart text')].filter((text) => text.getBoundingClientRect().right > innerWidth)
      .map((text) => text.textContent)
    """
    assert page.evaluate(beyond) == []


# ------------------------------------------------------------------------------------------------------------- sliders


def slide(page: chromium.Page, id_: str, value: float) -> None:
    page.evaluate(
        f"(() => {{ const slider = document.getElementById({json.dumps(id_)}); slider.value = {value};"
        " slider.dispatchEvent(new Event('input')); })()"
    )


def test_sliders_move_load_and_deadline(browser: chromium.Chromium, url: str, demo: Demo, runtime: Runtime) -> None:
    page = browser.page(url)
    page.until("!document.getElementById('demo').hidden")
    slide(page, "load", 1.5)
    slide(page, "deadline", 700)
    page.until("document.getElementById('slo').textContent === '700 ms'")
    shows(page, "load-value", " what width 1 can")
    shows(page, "load-value", f": {round(demo.rate):,} a second")
    assert (demo.load, runtime.slo_ms) == (1.5, 700.0)
    page.evaluate("document.getElementById('load').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    page.until("document.getElementById('load-value').textContent.startsWith('1.6')")
    wait_until(lambda: demo.load == 1.6)  # the page shows it when it moves, and sends it then
    shows(page, "load-value", f": {round(demo.rate):,} a second")


def test_without_a_demonstration_no_slider_is_shown(browser: chromium.Chromium, runtime: Runtime) -> None:
    with http_serving.running(runtime, routes=routes(runtime)) as server:
        page = browser.page(f"http://{server.address}/")
        shows(page, "state", "Serving")
        assert page.evaluate("document.getElementById('demo').getClientRects().length") == 0


# --------------------------------------------------------------------------------------------------- a server that goes


@contextlib.contextmanager
def serving(runtime: Runtime, port: int) -> Iterator[int]:
    """The page at a port; 0 is any."""
    server = make_server(make_app(runtime, routes=routes(runtime)))
    with contextlib.closing(bind("127.0.0.1", port)) as listener:
        listen(listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(http_serving.LIMIT_S)


def test_it_says_that_the_server_went_and_goes_on_when_it_is_back(
    browser: chromium.Chromium, bundle: Path, runtime: Runtime
) -> None:
    serve_some(runtime, 3)
    with serving(runtime, 0) as port:
        page = browser.page(f"http://127.0.0.1:{port}/")
        shows(page, "totals", f"{runtime.stats().answered} answered")
    shows(page, "state", "No answer since")
    assert page.evaluate("document.body.dataset.state") == "gone"
    with Runtime(bundle, slo_ms=1000, batches=(1,)) as other:
        serve_some(other, 2)
        with serving(other, port):
            shows(page, "state", "● Serving")
            shows(page, "totals", "2 requests taken, 2 answered")
            assert page.evaluate("document.body.dataset.state") == "good"


def test_it_says_when_nothing_is_taken_any_more(browser: chromium.Chromium, bundle: Path) -> None:
    runtime = Runtime(bundle, slo_ms=1000, batches=(1,))
    with serving(runtime, 0) as port:
        page = browser.page(f"http://127.0.0.1:{port}/")
        shows(page, "state", "● Serving")
        runtime.close()
        shows(page, "state", "■ Takes no requests")


# --------------------------------------------------------------------------------------------- the last minute, counted


COUNTED = """
import('/page/history.js').then(({ History }) => {
  const history = new History();
  history.add(COLUMNS, ROWS, 1);
  history.addTurnedAway(59.5, 7);
  const widths = 3;
  return { bins: history.bins(60, widths), last: history.last(5, 60, widths) };
})
"""


def test_the_last_minute_is_counted_right(browser: chromium.Chromium, url: str) -> None:
    """Held against numpy, and waiting against every instant at which it changes."""
    random = np.random.default_rng(5)
    ended = np.sort(random.uniform(0, 60, 500))
    latency = random.uniform(5, 900, 500).round(2)
    computed = (latency * random.uniform(0.1, 0.9, 500)).round(2)
    slack = random.uniform(-100, 400, 500).round(2)
    width = random.integers(0, 3, 500)
    size = random.integers(1, 4, 500)
    outcome = random.choice(["answered", "answered", "answered", "late", "failed"], 500)
    columns = ["at_s", "width", "images", "latency_ms", "computed_ms", "slack_ms", "outcome"]
    table = zip(*(values.tolist() for values in (ended, width, size, latency, computed, slack, outcome)), strict=True)
    page = browser.page(url)
    page.until("document.readyState === 'complete'")
    script = COUNTED.replace("COLUMNS", json.dumps(columns)).replace("ROWS", json.dumps([list(row) for row in table]))
    given: dict[str, Any] = page.evaluate(script)
    answered = outcome == "answered"
    came, began = ended - latency / 1e3, ended - computed / 1e3
    assert len(given["bins"]) == 60
    for second, counted in enumerate(given["bins"]):
        here = (ended >= second) & (ended < second + 1)
        good = here & answered & (slack >= 0)
        assert counted["inTime"] == good.sum()
        assert counted["missed"] == (here & ~good).sum() + (7 if second == 59 else 0)
        assert counted["images"] == [size[here & answered & (width == number)].sum() for number in range(3)]
        if (here & answered).any():
            for key, share in (("p50", 0.5), ("p99", 0.99)):
                expected = np.quantile(latency[here & answered], share, method="inverted_cdf")
                assert counted[key] == pytest.approx(expected)
        changes = np.array([time for time in (*came, *began, second) if second <= time < second + 1])
        waited = max(int(size[(came <= time) & (began > time)].sum()) for time in changes)
        assert counted["waited"] == waited
    recent = (ended > 55) & answered
    assert given["last"]["images"] == [size[recent & (width == number)].sum() for number in range(3)]


def test_a_row_that_stands_for_several_counts_as_several(browser: chromium.Chromium, url: str) -> None:
    page = browser.page(url)
    page.until("document.readyState === 'complete'")
    summed = page.evaluate(
        """import('/page/history.js').then(({ History }) => {
          const history = new History();
          history.add(['at_s', 'width', 'images', 'latency_ms', 'computed_ms', 'slack_ms', 'outcome'],
            [[9, 0, 1, 10, 5, 1, 'answered']], 3);
          history.add(['at_s', 'width', 'images', 'latency_ms', 'computed_ms', 'slack_ms', 'outcome'],
            [[9, 1, 2, 90, 5, 1, 'answered']], 1);
          return history.last(5, 10, 2);
        })"""
    )
    assert (summed["inTime"], summed["images"], summed["p50"], summed["p99"]) == (4, [3, 2], 10, 90)
