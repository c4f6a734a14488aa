"""A width that hangs, seen over HTTP: the real runtime on runners that a test holds back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slimexport.target.serving import runtime, watching
from slimexport.target.serving.errors import RunFailed
from slimexport.target.serving.runtime import Runtime
from tests.support.http_serving import running
from tests.support.serving_helpers import FOREVER_MS, PATIENCE_S, Bench, Gate, ToyRunner, bench, images, toy_bundle

pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")

__all__ = ["bench"]  # a fixture


@pytest.fixture(autouse=True)
def quick_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.Watcher.__init__, "__defaults__", (0.005,))
    monkeypatch.setattr(runtime, "HANG_FACTOR", 0.0)


@contextmanager
def hanging(served: Runtime, runner: ToyRunner) -> Iterator[None]:
    """Within the block a run of `runner`, which a request asked for, was given up."""
    runner.before = gate = Gate()
    stuck = served.submit(images(1)[0], FOREVER_MS)
    try:
        gate.wait_for_a_run()
        with pytest.raises(RunFailed, match="did not come back"):
            stuck.result(timeout=PATIENCE_S)
        yield
    finally:
        gate.open()


def test_ready_names_a_width_that_hangs_while_the_others_serve(tmp_path: Path, bench: Bench) -> None:
    with Runtime(toy_bundle(tmp_path / "b"), hang_s=1.0, policy="fixed:1") as served, running(served) as server:
        everything = server.get("/v2/health/ready")
        assert everything.status == 200 and everything.json["out"] == {}
        with hanging(served, bench.of("1")):
            rest = server.get("/v2/health/ready")
            assert rest.status == 200 and rest.json["ready"] and rest.json["widths"] == ["0.25", "0.5"]
            assert list(rest.json["out"]) == ["1"] and "did not come back within 1.0 s" in rest.json["out"]["1"]
            assert served.submit(images(1)[0], FOREVER_MS).result(timeout=PATIENCE_S).name == "0.5"


def test_ready_is_503_once_the_last_width_hangs(tmp_path: Path, bench: Bench) -> None:
    bundle = toy_bundle(tmp_path / "b")
    with (
        Runtime(bundle, widths=[0.5], hang_s=1.0) as served,
        running(served) as server,
        hanging(served, bench.of("0.5")),
    ):
        nothing = server.get("/v2/health/ready")
        assert nothing.status == 503 and list(nothing.json["out"]) == ["0.5"]
