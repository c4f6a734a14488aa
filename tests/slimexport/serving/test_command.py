"""`slimexport --serve` as a process: where it says it listens, how it ends, and what it says where it cannot begin."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from slimexport.target.manifest import read_manifest
from tests.support import ROOT
from tests.support.export_helpers import python, refused, run
from tests.support.exported_detectors import assert_alike, given_by, noise
from tests.support.http_serving import LIMIT_S, NETWORK, Reply, Running, images, logits, write_bundle

server = pytest.importorskip("slimexport.target.serving.http.server", reason="pip install '.[serve]'")
pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")

# The command, where a run takes 1 ms an image, and a file holds every one up as long as it is there; a run that waits for long
# is not one that hangs.
HELD = """
import os, sys, time
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.serving.runtime import Runtime

gate, compute = sys.argv.pop(), OnnxRuntimeRunner.__call__
Runtime.__init__.__kwdefaults__["hang_s"] = 600.0

def held(self, images):
    while os.path.exists(gate):
        time.sleep(0.005)
    time.sleep(0.001 * len(images))
    return compute(self, images)

OnnxRuntimeRunner.__call__ = held
from slimexport.cli import main
main(prog_name="slimexport")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@contextlib.contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Running, str]]:
    """The process, once it listens, and the line that says where."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port = re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip())
        assert port, (line, process.stderr.read() if process.stderr else "")
        yield process, Running(None, int(port[1])), line
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def came_and_wait(server: Running) -> tuple[int, int]:
    """Requests that came, and images that wait."""
    live = server.get("/live").json
    return live["counts"]["submitted"], live["waiting"]


def refuses_connections(server: Running) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_says_where_it_listens_and_what_widths_take_and_serves(bundle: Path) -> None:
    arguments = ("-m", "slimexport", "--bundle", bundle, "--serve", "--port", "0", "--slo-ms", "60000", "--widths", "0.5")
    with started(*arguments) as (process, server, line):
        assert line.startswith(f"serving {NETWORK} (onnxruntime-cpu, drain, 60000 ms; one image: 0.5 ")
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 4, 4], "data": images(1).ravel().tolist()}
        reply = server.infer({"inputs": [tensor]})
        assert reply.json["parameters"]["width"] == 0.5
        given = np.array(reply.json["outputs"][0]["data"])
        np.testing.assert_allclose(given, logits(images(1), 0.5).ravel(), rtol=1e-4, atol=1e-4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[-1] == "stopped: 1 request answered, 0 refused, 0 failed"


def test_a_detector_is_served_with_all_that_it_gives(detector_bundle: Path) -> None:
    array = noise(1)
    manifest = read_manifest(detector_bundle)
    arguments = ("-m", "slimexport", "--bundle", detector_bundle, "--serve", "--port", "0", "--slo-ms", "60000")
    with started(*arguments, "--widths", "0.5") as (_, server, line):
        assert line.startswith(f"serving {manifest.source.network} (onnxruntime-cpu, drain, 60000 ms; one image: 0.5 ")
        tensor = {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]})
        reply = server.ask("POST", f"/v2/models/{manifest.source.network}/infer", body)
    expected = given_by(detector_bundle / manifest.artifacts[0].file, array)
    given = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in reply.json["outputs"]}
    assert_alike(given, expected)


def test_sigterm_takes_no_more_and_answers_what_waits(bundle: Path, tmp_path: Path) -> None:
    """Requests that were there are answered, one in a run and others behind it; then the process ends with 0."""
    gate = tmp_path / "gate"
    arguments = ("-c", HELD, "--bundle", bundle, "--serve", "--port", "0", "--widths", "0.5", "--slo-ms", "600000", gate)
    replies: dict[int, Reply] = {}
    with started(*arguments) as (process, server, _):
        gate.touch()

        def ask(seed: int) -> None:
            data = images(1, seed).ravel().tolist()
            tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 4, 4], "data": data}
            replies[seed] = server.infer({"inputs": [tensor]})

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
        threads[0].start()
        wait_for(lambda: came_and_wait(server) == (1, 0))  # it is in a run, alone
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: came_and_wait(server) == (5, 4))
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses_connections(server))
        assert not replies and process.poll() is None
        gate.unlink()
        _, err = process.communicate(timeout=LIMIT_S)
        for thread in threads:
            thread.join(LIMIT_S)
    assert process.returncode == 0 and "stopped: 5 requests answered, 0 refused, 0 failed" in err
    for seed in range(5):
        reply = replies[seed].json
        own = logits(images(1, seed), reply["parameters"]["width"])
        np.testing.assert_allclose(np.array(reply["outputs"][0]["data"]), own.ravel(), rtol=1e-4, atol=1e-4)


def test_its_page_is_there_and_a_demonstration_loads_it(bundle: Path, tmp_path: Path) -> None:
    command = ("-c", HELD, "--bundle", bundle, "--serve", "--port", "0", "--widths", "0.5", "--slo-ms", "60000")
    no_gate = tmp_path / "gate"
    with started(*command, no_gate) as (_, server, _):
        page = server.get("/")
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        assert server.ask("POST", "/demo", "{}").status == 404
        assert server.get("/live").json["counts"]["submitted"] == 0
    with started(*command, "--demo", no_gate) as (process, server, _):
        wait_for(lambda: server.get("/live").json["counts"]["answered"] > 10)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0


def test_a_file_that_was_changed_is_not_served(bundle: Path, tmp_path: Path) -> None:
    changed = write_bundle(tmp_path / "changed")
    file = changed / "tiny_x0_5.onnx"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(run("--bundle", changed, "--serve", "--port", "0"), 2, "tiny_x0_5.onnx: SHA-256 is")


def test_a_port_that_is_taken_is_one_message(bundle: Path) -> None:
    with contextlib.closing(server.bind("127.0.0.1", 0)) as listener:
        server.listen(listener)
        port = listener.getsockname()[1]
        refused(run("--bundle", bundle, "--serve", "--port", str(port)), 3, f"127.0.0.1, port {port}", "another --port")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("--host", "no.such.host.invalid"), 2, "host 'no.such.host.invalid': not known"),
        (("--policy", "fixed:0.3"), 2, "width '0.3' is not open. Open are 0.25, 0.5, 1"),
        (("--policy", "best"), 2, "policy 'best': not known. Available: drain"),
        (("--widths", "0.3"), 2, "holds no width 0.3"),
        (("--precision", "fp16"), 2, "holds no fp16 file"),
        (("--slo-ms", "99999999"), 2, "up to an hour"),
    ],
)
def test_what_cannot_be_served_is_one_message(bundle: Path, arguments: tuple[str, ...], code: int, part: str) -> None:
    refused(run("--bundle", bundle, "--serve", "--port", "0", *arguments), code, part)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_says_how_to_get_it(bundle: Path, missing: str) -> None:
    code = "from slimexport.cli import main\nmain(prog_name='slimexport')"
    done = python(code, "--bundle", bundle, "--serve", "--port", "0", without=(missing,))
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert f"the package {missing}" in done.stderr and "is not installed" in done.stderr and "[serve]'" in done.stderr


def test_neither_torch_nor_onnx_is_needed(bundle: Path) -> None:
    """The command gets as far as its server, which is ended at once."""
    code = (
        "import uvicorn\n"
        "uvicorn.Server.run = lambda self, sockets: print('RUNS')\n"
        "from slimexport.cli import main\nmain(prog_name='slimexport')"
    )
    done = python(code, "--bundle", bundle, "--serve", "--port", "0", without=("torch", "onnx", "torchvision"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "RUNS"), done.stderr


@pytest.mark.parametrize(
    ("given", "least", "most"), [((), 1, 5), (("--widths", "all"), 7, 7), (("--widths", "0.3,1.0"), 2, 2)]
)
def test_a_few_widths_are_open_or_all_or_those_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], least: int, most: int
) -> None:
    """How few are worth it is for latencies to say."""
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    many = write_bundle(tmp_path / "many", widths=[0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0])
    outcome = run("--bundle", many, "--serve", "--port", "0", *given)
    assert outcome.code == 0 and least <= outcome.out.count(" ms") - 1 <= most, outcome  # the deadline is one


def test_a_signal_before_the_server_catches_them_ends_it_as_well(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, sockets: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server.Server, "run", interrupted)
    outcome = run("--bundle", bundle, "--serve", "--port", "0")
    assert outcome.code == 0 and "stopped: 0 requests answered" in outcome.err


def test_an_address_that_others_reach_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    opened = run("--bundle", bundle, "--serve", "--port", "0", "--host", "0.0.0.0")
    assert opened.code == 0 and "no authentication" in opened.err and "http://0.0.0.0:" in opened.out
    assert "no authentication" not in run("--bundle", bundle, "--serve", "--port", "0").err
