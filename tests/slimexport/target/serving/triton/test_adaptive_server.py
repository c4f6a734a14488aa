"""Model repositories in a real tritonserver, on loopback: the model that chooses widths answers a burst, through the dynamic
batcher and the real protocol; the configurations of the models of every file are read by the server's own parser."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.exporter import export
from slimexport.request import Proof
from slimexport.target.manifest import Manifest
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.serving.opening import label_of
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.serving.triton.repository import write_repository
from tests.support import ROOT
from tests.support.bundle_helpers import artifact, engine, with_file
from tests.support.triton_server import Server, TritonEnvironment, triton_environment, triton_server

NETWORK, REFUSING = "us_mobilenet_v1", "refusing"
BURST = 48
MOST_BURSTS = 12
LIMIT_S = 180
LONG_US = 600_000_000  # no burst takes ten minutes


@dataclass(frozen=True)
class Burst:
    """What came of requests that were sent at once."""

    outputs: NDArray[np.float32]
    widths: NDArray[np.str_]
    errors: NDArray[np.str_]


@dataclass(frozen=True)
class Running:
    """A server with a bundle's repositories, and its client."""

    server: Server
    environment: TritonEnvironment
    bundle: Path
    manifest: Manifest
    folder: Path
    images: NDArray[np.float32]

    def send(self, model: str, bursts: Sequence[tuple[int, int]]) -> list[Burst]:
        """(size, timeout in microseconds) of every burst, one after the other."""
        asked = {f"size_{number}": size for number, (size, _) in enumerate(bursts)}
        asked |= {f"timeout_{number}": timeout for number, (_, timeout) in enumerate(bursts)}
        requests, answers = self.folder / "requests.npz", self.folder / "answers.npz"
        arrays: dict[str, Any] = {"model": np.array(model), "images": self.images, **asked}
        np.savez(requests, **arrays)
        client = ROOT / "tests" / "support" / "triton_client.py"
        done = subprocess.run(
            [self.environment.python, client, self.server.grpc, requests, answers],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.server.log.read_text(errors="replace")
        with np.load(answers) as given:
            return [Burst(*(given[f"{key}_{n}"] for key in ("outputs", "widths", "errors"))) for n in range(len(bursts))]

    def expected(self) -> dict[str, NDArray[np.float32]]:
        """What the bundle's files give of the images, by width."""
        files = {label_of(a, self.manifest): OnnxRuntimeRunner(self.bundle / a.file) for a in self.manifest.artifacts}
        return {label: runner(self.images) for label, runner in files.items()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("triton")
    environment = triton_environment(folder)
    bundle = folder / "bundle"
    manifest = export(
        f"random:{NETWORK}", widths=[0.25, 0.5, 1.0], image_size=64, output_dir=bundle, proof=Proof(verify=False)
    )
    write_adaptive(bundle, manifest, folder / "adaptive", max_batch=8)
    config = folder / "adaptive" / NETWORK / "config.pbtxt"
    text = config.read_text()
    config.write_text(re.sub(r'(key: "late"\n.*)"refuse"', r'\1"serve"', text))  # as an operator may: nothing is refused
    assert config.read_text() != text
    other = replace(manifest, source=replace(manifest.source, network=REFUSING))
    write_adaptive(bundle, other, folder / "adaptive", widths=[0.25], max_batch=2)
    plan = with_file(bundle, artifact("engine", format="trt", engine=engine()))
    write_repository(bundle, replace(manifest, artifacts=(*manifest.artifacts, plan)), folder / "single")
    broken = folder / "broken" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.pbtxt").write_text('name: "broken"\nbackend: "onnxruntime"\nmax_batch_size: "many"\n')
    images = np.random.default_rng(0).standard_normal((BURST, 3, 64, 64), dtype=np.float32)
    repositories = [folder / name for name in ("adaptive", "single", "broken")]
    with triton_server(environment, folder / "server", repositories) as server:
        yield Running(server, environment, bundle, manifest, folder, images)


def test_widths_change_under_load_and_every_answer_is_its_files(running: Running) -> None:
    """Deadlines shrink until the widest does not serve a burst any more, which depends on the machine."""
    before = running.server.metrics()
    alone = running.send(NETWORK, [(1, LONG_US)] * 3 + [(BURST, LONG_US)])
    bursts = list(alone)
    assert {label for one in alone for label in one.widths} == {"1"}, "there is time for the widest"
    timeout_us = 2_000_000
    for _ in range(MOST_BURSTS):
        bursts += running.send(NETWORK, [(BURST, timeout_us)])
        if set(bursts[-1].widths) - {"1"}:
            break
        timeout_us //= 2
    assert set(bursts[-1].widths) - {"1"}, "no narrower width was used"
    bursts += running.send(NETWORK, [(1, LONG_US)])
    assert list(bursts[-1].widths) == ["1"], "accuracy comes back when load falls"

    expected = running.expected()
    counts: Counter[str] = Counter()
    for one in bursts:
        assert not one.errors.any(), one.errors
        for number, (label, output) in enumerate(zip(one.widths, one.outputs, strict=True)):
            counts[str(label)] += 1
            right = expected[str(label)][number]
            assert np.abs(output - right).max() <= 1e-5 * np.abs(right).max()

    after = running.server.metrics()
    own = {key: value - before[key] for key, value in after.items() if f'model="{NETWORK}"' in key}
    for label in expected:
        assert own[f'slimexport_images_total{{model="{NETWORK}",width="{label}"}}'] == counts[label]
        key = f'slimexport_requests_total{{model="{NETWORK}",outcome="answered",width="{label}"}}'
        assert own[key] == counts[label]
    assert not [key for key, value in own.items() if value and re.match("slimexport_refused|.*failed", key)]
    assert own[f'nv_inference_request_success{{model="{NETWORK}",version="1"}}'] == counts.total()


def test_what_cannot_be_in_time_is_refused_by_the_protocols_code(running: Running) -> None:
    in_time, late = running.send(REFUSING, [(1, LONG_US), (4, 1)])
    assert not in_time.errors.any()
    assert all("UNAVAILABLE" in error and "no width ends in the rest" in error for error in late.errors), late.errors


def test_the_servers_own_parser_reads_every_configuration(running: Running) -> None:
    """It has no onnxruntime and no TensorRT, and says so of these models: after it has read their configurations."""
    models = running.server.models()
    assert models.pop(NETWORK)[0] == models.pop(REFUSING)[0] == "READY"
    config = running.server.config(NETWORK)
    assert config["backend"] == "python" and config["parameters"]["slo_ms"] == {"string_value": "50"}
    log = running.server.log.read_text(errors="replace")
    names = {f"{a.name}" for a in running.manifest.artifacts}
    assert len(names) == 3
    for name in names:
        assert re.search(
            rf"failed to load '{name}' version 1: .*unable to find backend library for backend 'onnxruntime'", log
        )
    assert re.search(r"failed to load 'engine_trt' version 1: .*unable to find .*backend", log), log
    assert re.search(r"(?i)error parsing text-format inference.ModelConfig: 3:", log), "which it says of one that is none"
