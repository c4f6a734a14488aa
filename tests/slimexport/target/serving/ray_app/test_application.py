"""The application on a real Ray of one node: HTTP, handles, a burst, an end that drains, the command that starts it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from slimexport.target.errors import BundleError
from slimexport.target.serving.errors import RequestError
from slimexport.target.serving.policy import Choice, Latencies
from slimexport.target.serving.ray_app import app, build
from slimexport.target.serving.ray_app import application as application_module
from slimtrain.base.errors import ResourceError, UserError
from tests.support import ROOT, http_serving

FOREVER_MS = 3_000_000.0
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = "import sys; from ray.serve.scripts import cli; cli(prog_name='serve')"
BUILDER = "slimexport.target.serving.ray_app:build"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return http_serving.write_bundle(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of HTTP, of a Ray that has two CPUs and keeps nothing; it is gone afterwards, whatever happened."""
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # read when ray is imported
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    pytest.importorskip("prometheus_client", reason="needs the extra ray")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets are in it: their paths must be short
    token = Path(folder, "token")  # of this Ray alone; without one it writes one into the user's home
    token.write_text(secrets.token_hex(32))
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        undo.callback(ray.shutdown)
        ray.init(
            num_cpus=2,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
        from ray import serve

        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            number: int = free.getsockname()[1]
        undo.callback(end_handles)  # when Serve is gone, while Ray is still there
        undo.callback(serve.shutdown)
        serve.start(http_options={"host": "127.0.0.1", "port": number})
        yield number


def end_handles() -> None:
    """Handles report from a thread of their own, also to a Ray that is gone: then Ray 2.60 starts another one for them."""
    from ray.serve._private.router import SingletonThreadRouter

    if (loop := SingletonThreadRouter._asyncio_loop) is not None:
        loop.call_soon_threadsafe(loop.stop)


@pytest.fixture(scope="module")
def documented(port: int, bundle: Path) -> dict[str, Any]:
    """What the lines of docs/serving.md leave, with this bundle, a deadline that is always met, and a small machine."""
    (lines,) = (block for block in BLOCK.findall((ROOT / "docs" / "serving.md").read_text("utf-8")) if "from ray" in block)
    for before, after in (
        ("exports/us_mobilenet_v1", str(bundle)),
        ("slo_ms=50", f"slo_ms={FOREVER_MS}"),
        ("cpus=2", "cpus=0.5"),
    ):
        assert before in lines
        lines = lines.replace(before, after)
    names: dict[str, Any] = {"image": http_serving.images(1)[0]}
    exec(lines.replace("max_replicas=8", "max_replicas=1").replace("deadline_ms=20", f"deadline_ms={FOREVER_MS}"), names)
    return names


@pytest.fixture(scope="module")
def handle(documented: dict[str, Any]) -> Any:
    """Of one replica."""
    return documented["handle"]


# --------------------------------------------------------------------------------------------------------- what it does


def test_the_document_s_lines_get_an_answer(documented: dict[str, Any]) -> None:
    answer = documented["answer"]
    expected = http_serving.logits(http_serving.images(1), answer.width)[0]
    np.testing.assert_allclose(answer.output, expected, rtol=1e-4, atol=1e-4)
    assert answer.queued_ms >= 0 and answer.computed_ms > 0


def test_http_speaks_the_protocol(handle: Any, port: int) -> None:
    server = http_serving.Running(None, port)
    assert server.get("/v2/health/ready").json["ready"] is True
    images = http_serving.images(2)
    tensor = {"name": "input", "shape": [2, *http_serving.SHAPE], "datatype": "FP32", "data": images.ravel().tolist()}
    reply = server.infer({"inputs": [tensor]})
    assert reply.status == 200
    output = np.array(reply.json["outputs"][0]["data"]).reshape(2, -1)
    width = float(reply.json["parameters"]["width"])
    np.testing.assert_allclose(output, http_serving.logits(images, width), rtol=1e-4, atol=1e-5)
    assert server.infer({"inputs": []}).status == 400
    assert server.get("/v2/models/other").status == 404


def test_a_handle_gives_answers_and_errors(handle: Any) -> None:
    images = http_serving.images(3)
    answer = handle.infer.remote(images).result(timeout_s=http_serving.LIMIT_S)
    np.testing.assert_allclose(answer.output, http_serving.logits(images, answer.width), rtol=1e-4, atol=1e-4)
    with pytest.raises(RequestError, match="expected float32"):
        handle.infer.remote(images.astype(np.float64)).result(timeout_s=http_serving.LIMIT_S)


def test_every_request_of_a_burst_is_answered_once_and_right(handle: Any) -> None:
    before = handle.stats.remote().result(timeout_s=http_serving.LIMIT_S)
    images = http_serving.images(100, seed=7)
    calls = [handle.infer.remote(image) for image in images]
    for image, call in zip(images, calls, strict=True):
        answer = call.result(timeout_s=http_serving.LIMIT_S)
        np.testing.assert_allclose(answer.output, http_serving.logits(image[None], answer.width)[0], rtol=1e-4, atol=1e-4)
    after = handle.stats.remote().result(timeout_s=http_serving.LIMIT_S)
    assert (after.answered - before.answered, after.waiting, after.failed) == (100, 0, 0)


def test_an_application_that_is_deleted_answers_what_it_took(port: int, bundle: Path, tmp_path: Path) -> None:
    from ray import serve

    began, go = tmp_path / "began", tmp_path / "go"

    def patient(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
        began.touch()
        while not go.exists():
            pause.wait(0.01)
        return Choice(0, 1)

    pause = _Pause()
    slow = app(bundle, FOREVER_MS, policy=patient, batches=(1,), max_replicas=1, cpus=0.5)
    call = serve.run(slow, name="slow", route_prefix="/slow").infer.remote(http_serving.images(1)[0])
    _until(began.exists)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        deleted = pool.submit(serve.delete, "slow")
        _until(lambda: serve.status().applications["slow"].status == "DELETING")
        go.touch()
        answer = call.result(timeout_s=http_serving.LIMIT_S)
        deleted.result(http_serving.LIMIT_S)
    np.testing.assert_allclose(answer.output, http_serving.logits(http_serving.images(1), 0.25)[0], rtol=1e-4, atol=1e-4)
    assert "slow" not in serve.status().applications


def test_more_requests_at_once_bring_more_replicas(port: int, bundle: Path) -> None:
    from ray import serve

    def slow(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
        pause.wait(0.1)
        return Choice(2, 1)

    pause, enough = _Pause(), threading.Event()
    quick = {"upscale_delay_s": 0.0, "metrics_interval_s": 0.2, "look_back_period_s": 1.0}
    options = {"policy": slow, "batches": (1,), "cpus": 0.25}
    scaled = app(bundle, FOREVER_MS, ongoing=1.0, max_replicas=2, scaling=quick, **options)  # type: ignore[arg-type]
    handle = serve.run(scaled, name="scaled", route_prefix="/scaled")
    images = http_serving.images(6)

    def running(name: str) -> int:
        states = serve.status().applications[name].deployments[http_serving.NETWORK].replica_states
        return sum(count for state, count in states.items() if state == "RUNNING")

    def ask(number: int) -> int:
        count = 0
        while not enough.is_set():
            answer = handle.infer.remote(images[number]).result(timeout_s=http_serving.LIMIT_S)
            expected = http_serving.logits(images[number : number + 1], 1.0)[0]
            np.testing.assert_allclose(answer.output, expected, rtol=1e-4, atol=1e-4)
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(len(images)) as pool:
        asked = [pool.submit(ask, number) for number in range(len(images))]
        try:
            _until(lambda: running("scaled") == 2)
        finally:
            enough.set()
        assert all(calls.result(http_serving.LIMIT_S) > 0 for calls in asked)
    serve.delete("scaled")


class _Pause:
    """A pause that travels to a replica."""

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)


def _until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(int(http_serving.LIMIT_S / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("what was waited for did not come true")


# ---------------------------------------------------------------------------------------------------------- the command


def serve_run(*arguments: str, address: str = "") -> subprocess.CompletedProcess[str]:
    more = {"RAY_ADDRESS": address} if address else {}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "run", *arguments],
        env={**os.environ, **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_one_command_starts_it(handle: Any, port: int, bundle: Path) -> None:
    import ray
    from ray import serve

    address = ray.get_runtime_context().gcs_address
    options = ("--non-blocking", "--name", "commanded", "--route-prefix", "/commanded")
    arguments = (f"bundle={bundle}", "slo_ms=50000", "batches=1", "cpus=0.5", "max_replicas=1")
    ran = serve_run(*options, BUILDER, *arguments, address=address)
    assert ran.returncode == 0, ran.stderr
    server = http_serving.Running(None, port)
    assert server.get("/commanded/v2/health/ready").status == 200
    serve.delete("commanded")


def test_what_is_wrong_with_its_arguments_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    ran = serve_run(BUILDER, f"bundle={tmp_path}")
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
    assert "holds no manifest.json" in ran.stderr


# ------------------------------------------------------------------------------------------------------ what is refused


def test_build_ends_a_command_with_the_error_s_exit_code() -> None:
    with pytest.raises(click.ClickException, match="no bundle") as caught:
        build({})
    assert caught.value.exit_code == 2


def test_numbers_that_cannot_be_are_refused(bundle: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    for replicas in ({"min_replicas": 0}, {"min_replicas": 3, "max_replicas": 2}):
        with pytest.raises(UserError, match="replicas"):
            app(bundle, **replicas)  # type: ignore[arg-type]
    for numbers in ({"cpus": 0.0}, {"gpus": -1.0}, {"ongoing": 0.0}):
        with pytest.raises(UserError, match="expected numbers above 0"):
            app(bundle, **numbers)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="no bundle"):
        app(bundle / "elsewhere")


def test_without_ray_it_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_module, "is_installed", lambda module: module != "ray")
    with pytest.raises(ResourceError, match=r"ray is not installed.*slimmable-deploy\[ray\]"):
        app(bundle)
