"""What is beside the network's own time, by answers that say what that was."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.studies.serving import overhead
from benchmarks.studies.serving.overhead import WARM_UP, http_ms, in_process_ms, server, widest_of
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import CommandError
from tests.support.load_fakes import FakeRuntime, answer_of, protocol_server, start_quickly


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "PAUSE_S", 0.0)


def test_the_network_s_own_time_is_taken_off() -> None:
    runtime = cast(Any, FakeRuntime(lambda number, deadline_ms: answer_of(computed_ms=60_000.0)))
    runtime.manifest = type("M", (), {"input": type("I", (), {"input_shape": (1, 2, 2)})})
    taken, bare = in_process_ms(cast(Runtime, runtime), lambda images: 3600.0 * len(images), seconds=0.0)
    assert len(bare) == 1 and bare[0] < -3.5e6, "an hour that it did not take"
    assert len(taken) == 1 and len(runtime.seen) == WARM_UP + 1, "those that warm up are not counted"
    assert taken[0] < 0, "a minute that it did not take"


def test_a_runtime_is_asked_one_by_one(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_quickly(monkeypatch, tmp_path)
    with Runtime(two_widths, widths=[0.25]) as runtime, widest_of(runtime) as run:
        taken, bare = in_process_ms(runtime, run, 0.1)
        assert len(bare) == len(taken) and (bare > 0).all()
        assert runtime.stats().answered == len(taken) + WARM_UP and (taken > 0).all() and np.isfinite(taken).all()


def test_a_server_is_asked_one_by_one() -> None:
    pytest.importorskip("tritonclient.http.aio")
    with protocol_server(lambda number, header, content: (200, {"queued_ms": 1e6, "computed_ms": 2e6})) as url:
        taken = http_ms(url, 0.1)
    assert len(taken) >= 1 and (taken < -2.9e6).all(), "what the server says it took is taken off"


def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """`python -m slimexport` is a script."""
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\nimport signal, sys, time\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))


def test_the_address_is_what_the_server_prints(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    serving(
        tmp_path,
        monkeypatch,
        f"print('a note', flush=True)\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(said)!r}, 'w').write(' '.join(sys.argv[1:])), sys.exit()))\n"
        "print('serving net at http://127.0.0.1:4321', flush=True)\n"
        "print('more than a pipe holds' * 10_000, flush=True)\ntime.sleep(60)",
    )
    with server(two_widths) as url:
        assert url == "http://127.0.0.1:4321/v2/models/us_mobilenet_v1"
    assert said.read_text() == f"-m slimexport --bundle {two_widths} --serve --port 0", "it was told to end, and did"


def test_a_server_that_does_not_begin_says_why(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(tmp_path, monkeypatch, "print('no such option')\nsys.exit(2)")
    with pytest.raises(CommandError, match="did not begin:\nno such option") as raised, server(two_widths):
        pass
    assert raised.value.exit_code == 2
