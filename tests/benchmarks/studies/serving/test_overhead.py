"""What is beside the network's own time, by answers that say what that was."""

from __future__ import annotations

import stat
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.load.over_http import model_of
from benchmarks.studies.serving import overhead
from benchmarks.studies.serving.overhead import WARM_UP, bare_server, http_ms, in_process_ms, server, widest_of
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import CommandError
from tests.support.load_fakes import FakeRuntime, answer_of, protocol_server, start_quickly


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "PAUSE_S", 0.0)


def test_the_network_s_own_time_is_taken_off() -> None:
    runtime = cast(Any, FakeRuntime(lambda number, deadline_ms: answer_of(computed_ms=60_000.0)))
    runtime.manifest = type("M", (), {"input": type("I", (), {"input_shape": (1, 2, 2)})})
    taken = in_process_ms(cast(Runtime, runtime), lambda images: 3600.0 * len(images), seconds=0.0)
    assert {way: len(ms) for way, ms in taken.items()} == {"in_process": 1, "infer": 1, "executor": 1}
    assert taken["executor"][0] < -3.5e6, "an hour that it did not take"
    assert taken["in_process"][0] < 0 and taken["infer"][0] < 0, "a minute that it did not take"
    assert len(runtime.seen) == 2 * (WARM_UP + 1), "those that warm up are not counted"


def test_a_runtime_is_asked_one_by_one(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_quickly(monkeypatch, tmp_path)
    with Runtime(two_widths, widths=[0.25]) as runtime, widest_of(runtime) as run:
        taken = in_process_ms(runtime, run, 0.1)
        (count,) = {len(ms) for ms in taken.values()}
        assert all((ms > 0).all() and np.isfinite(ms).all() for ms in taken.values())
        assert runtime.stats().answered == 2 * (count + WARM_UP)


def test_figures_are_those_of_the_samples_that_are_kept(
    two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The executor's beside the runtime's, in the same time."""
    start_quickly(monkeypatch, tmp_path)
    monkeypatch.setattr(overhead, "server", lambda bundle: nullcontext(f"http://{bundle.name}"))
    monkeypatch.setattr(overhead, "bare_server", lambda bundle: nullcontext("http://bare"))
    asked: list[Any] = []

    def http_ms(urls: dict[str, str], seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
        asked.append(urls)
        beside = {"http": np.array([1.0, 2.0, 4.0]), "bare_http": np.array([0.5, 0.5, 1.0])}
        return beside, {"http": np.array([0.5, 0.25, 0.5]), "bare_http": np.zeros(3)}

    monkeypatch.setattr(overhead, "http_ms", http_ms)
    result = overhead.overhead(two_widths, 0.2)
    samples, figures = result["samples_ms"], result["figures"]
    assert set(samples) == {"in_process", "infer", "executor", "http", "bare_http"}
    assert len(samples["executor"]) == len(samples["in_process"]) >= 1
    assert set(figures) - {"http_adds_p50_ms"} == {f"{way}_p{share}_ms" for way in samples for share in (50, 99)}
    assert figures["http_adds_p50_ms"] == pytest.approx(2.25 - figures["in_process_p50_ms"])
    for way, taken in samples.items():
        assert figures[f"{way}_p50_ms"] == pytest.approx(statistics.median(taken), abs=1e-4)
        assert figures[f"{way}_p50_ms"] <= figures[f"{way}_p99_ms"] <= max(taken) + 1e-4
    assert asked == [{"http": f"http://{two_widths.name}", "bare_http": "http://bare"}]
    assert figures["http_p50_ms"] == 2.0 and result["holds"]["http_p50_ms"] is False
    assert f"executor_p50_ms: {figures['executor_p50_ms']:.3f}\n" in capsys.readouterr().out, "no limit is set for it"


def test_the_widest_file_is_what_runs_beside_it(two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_quickly(monkeypatch, tmp_path)
    ran: list[str] = []
    call = OpenFile.__call__

    def note(file: OpenFile, *images: Any) -> Any:
        ran.append(file.label)
        return call(file, *images)

    with Runtime(two_widths) as runtime, widest_of(runtime) as run:
        image = np.zeros((1, *runtime.manifest.input.input_shape), np.float32)
        monkeypatch.setattr(OpenFile, "__call__", note)
        assert run(image) > 0 and ran == [runtime.widths[-1].label]


def test_servers_are_asked_one_by_one_in_turn() -> None:
    pytest.importorskip("tritonclient.http.aio")
    order: list[str] = []

    def takes(name: str, queued_ms: float) -> Any:
        def respond(number: int, header: Any, content: bytes) -> tuple[int, dict[str, float]]:
            order.append(name)
            return 200, {"queued_ms": queued_ms, "computed_ms": 2e6}

        return respond

    with protocol_server(takes("a", 1e6)) as one, protocol_server(takes("b", 2e6)) as other:
        taken, queued = http_ms({"a": one, "b": other}, 0.1)
    assert set(queued["a"]) == {1e6} and set(queued["b"]) == {2e6}
    assert len(taken["a"]) == len(taken["b"]) >= 1
    assert (taken["a"] < -2.9e6).all() and (taken["b"] < -3.9e6).all(), "what the server says it took is taken off"
    assert order[::2] == ["a"] * (len(order) // 2) and order[1::2] == ["b"] * (len(order) // 2)


def test_a_server_that_does_nothing_answers_as_a_model_does(two_widths: Path) -> None:
    pytest.importorskip("tritonclient.http.aio")
    with bare_server(two_widths) as url:
        model = model_of(url)
        taken, _ = http_ms({"bare": url}, 0.05)
    manifest = read_manifest(two_widths)
    assert (model.name, model.shape) == (manifest.source.network, tuple(manifest.input.input_shape))
    assert model.classes == manifest.results[0].own_shape[0]
    assert len(taken["bare"]) >= 1 and (taken["bare"] > 0).all()


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
    with (
        pytest.raises(CommandError, match="slimexport did not begin to listen:\nno such") as raised,
        server(two_widths),
    ):
        pass
    assert raised.value.exit_code == 2
