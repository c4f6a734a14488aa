"""A real tritonserver: nvidia-pytriton's wheel holds one, with the Python backend and no other. It is installed in a virtual
environment of its own, as it needs another numpy, and started on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

PACKAGES = ("nvidia-pytriton==0.7.0", "numpy<2", f"onnxruntime=={onnxruntime.__version__}", "tritonclient[grpc]==2.73.0")
CACHE = "TRITON_ENVIRONMENT"  # a folder in which the environment stays from one run of the tests to the next
INSTALL_S, START_S, STOP_S = 300, 120, 60
# Ends what it started once its standard input is closed, as it is when the process that holds the other end is gone, and takes
# the processes of the Python backend, which are of its group, with it.
KEEPER = f"""
import os, signal, subprocess, sys, threading

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

def end():
    sys.stdin.read()
    server.terminate()

    try:
        server.wait({STOP_S})
    except subprocess.TimeoutExpired:
        server.kill()

threading.Thread(target=end, daemon=True).start()
server.wait()
os.killpg(0, signal.SIGKILL)
"""


@dataclass(frozen=True)
class TritonEnvironment:
    """Where tritonserver, onnxruntime and tritonclient are installed."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    @property
    def server(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"


def triton_environment(folder: Path) -> TritonEnvironment:
    """The environment, made in `folder`, or in the one that the variable TRITON_ENVIRONMENT names, where it may be already.
    The test skips, with the reason, where it cannot be made: no network, no wheel for this system or Python."""
    if sys.platform != "linux":
        pytest.skip("nvidia-pytriton is made for Linux")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("Triton's Python backend needs a Python that is a shared library")
    place = Path(os.environ.get(CACHE) or folder / "triton")
    environment, ready = TritonEnvironment(place), place / "ready"
    if not ready.exists():
        install = (str(environment.python), "-m", "pip", "install", "-q", "--only-binary=:all:", *PACKAGES)
        for command in ((sys.executable, "-m", "venv", "--clear", str(place)), install):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip(f"installing tritonserver took longer than {INSTALL_S} s")
            if done.returncode:
                pytest.skip(f"tritonserver cannot be installed here: {(done.stderr.strip() or '?').splitlines()[-1]}")
        ready.touch()
    if not (environment.server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}").is_dir():
        pytest.skip("nvidia-pytriton holds no Python backend for this Python")
    return environment


@dataclass(frozen=True)
class Server:
    """One that runs: its addresses, and the file of what it says."""

    http: str
    grpc: str
    metrics_address: str
    log: Path

    def models(self) -> dict[str, tuple[str, str]]:
        """State and reason of every model of its repositories."""
        request = urllib.request.Request(f"http://{self.http}/v2/repository/index", method="POST", data=b"{}")
        with urllib.request.urlopen(request, timeout=START_S) as response:
            return {entry["name"]: (entry.get("state", ""), entry.get("reason", "")) for entry in json.load(response)}

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as the server read it."""
        with urllib.request.urlopen(f"http://{self.http}/v2/models/{model}/config", timeout=START_S) as response:
            config: dict[str, Any] = json.load(response)
            return config

    def metrics(self) -> dict[str, float]:
        """Its metrics: `name{labels}` to value."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=START_S) as response:
            lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def triton_server(environment: TritonEnvironment, folder: Path, repositories: Sequence[Path]) -> Iterator[Server]:
    """A server of these repositories that has loaded what it can load. It ends with the block, or with this process."""
    folder.mkdir()
    backends = folder / "backends" / "python"
    shutil.copytree(environment.server / "backends" / "python", backends)
    stubs = environment.server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(stubs / "triton_python_backend_stub", backends)
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in _free_ports(3))
    options = {
        "backend-directory": backends.parent,
        **{"http-address": "127.0.0.1", "http-port": http.partition(":")[2]},
        **{"grpc-address": "127.0.0.1", "grpc-port": grpc.partition(":")[2]},
        **{"metrics-address": "127.0.0.1", "metrics-port": metrics.partition(":")[2]},
        **{"allow-gpu-metrics": "false", "exit-on-error": "false", "exit-timeout-secs": "20"},
    }
    words = [f"--model-repository={repository}" for repository in repositories]
    words += [f"--{name}={value}" for name, value in options.items()]
    variables = {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(environment.packages),
        "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}{os.pathsep}{environment.packages / 'nvidia_pytriton.libs'}",
    }
    log = folder / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, environment.server / "bin" / "tritonserver", *words],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(process, (f"http://{http}/v2/health/live", f"http://{metrics}/metrics"), log)
        yield Server(http, grpc, metrics, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(2 * STOP_S)


def _wait_for(process: subprocess.Popen[bytes], addresses: Sequence[str], log: Path) -> None:
    """Until it answers at all of them, of which metrics come last: it has loaded what it can."""
    end, left = time.monotonic() + START_S, list(addresses)
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            urllib.request.urlopen(left[0], timeout=START_S).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            del left[0]
            if not left:
                return
    raise AssertionError(log.read_text(errors="replace"))


def _free_ports(count: int) -> list[int]:
    """Which nothing listens on now: tritonserver does not let the system choose."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
