"""A run from request to records, with stand-ins for the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import session
from benchmarks.cells.cell import Options, Result
from benchmarks.cells.inputs import assumed_cache
from benchmarks.cells.plan_cells import Bundle, Wanted, open_bundle
from benchmarks.cells.records import Records, read_records
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.turns import Method
from benchmarks.request import Request
from slimexport.target.errors import BundleError


@pytest.fixture
def bundle(two_widths: Path, hasty: None) -> Bundle:
    return open_bundle(two_widths)


def request_for(bundle: Bundle, **more: Any) -> Request:
    wanted = Wanted(("onnxruntime-cpu", "tensorrt"), (1,), widths=(0.25,))
    return Request((bundle,), wanted, Method(0.02, 1, 0.0), Options(), **more)


def start(request: Request, path: Path, said: list[str]) -> Any:
    with assumed_cache(1 << 16):
        plan = session.prepare(request)
        return session.run(request, {"threads": 1, "pinned": False}, plan, path, "the command", said.append, RoundProgress())


def test_ctrl_c_while_ceilings_are_measured(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "measure_ceilings", interrupted)
    recorded, stopped = start(request_for(bundle), tmp_path / "results.jsonl", [])
    assert stopped and recorded.end is not None and recorded.end["interrupted"]
    assert [(r.cell.backend, r.status) for r in recorded.results] == [
        ("tensorrt", "not measured"),
        ("onnxruntime-cpu", "not measured"),
    ]
    assert "interrupted" in recorded.results[1].reason
    assert read_records(tmp_path / "results.jsonl").results == recorded.results


def test_ctrl_c_while_a_result_is_written(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Records):
        def add(self, result: Result) -> None:
            super().add(result)
            if result.cell.backend == "onnxruntime-cpu":
                raise KeyboardInterrupt

    monkeypatch.setattr(session, "Records", Interrupted)
    recorded, stopped = start(request_for(bundle), tmp_path / "results.jsonl", [])
    assert stopped and [(r.cell.backend, r.status) for r in recorded.results][1:] == [("onnxruntime-cpu", "measured")]
    written = read_records(tmp_path / "results.jsonl").results
    assert [(r.cell, r.status) for r in written] == [(r.cell, r.status) for r in recorded.results], "the report has it too"


def test_what_is_returned_is_what_is_written(bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    recorded, stopped = start(request_for(bundle), tmp_path / "results.jsonl", said)
    assert not stopped
    written = read_records(tmp_path / "results.jsonl")
    assert [r.as_dict() for r in written.results] == [
        r.as_dict() | {"rounds": w.as_dict()["rounds"], "settings": w.settings, "warnings": w.warnings}
        for r, w in zip(recorded.results, written.results, strict=True)
    ]
    assert said[0].startswith("1 cell, 0.02 s each in 1 round: about")
    assert written.run["command"] == "the command"
    assert written.run["settings"]["options"]["threads"] == 1
    assert written.run["settings"]["method"]["duration_s"] == 0.02


def test_two_bundles_of_one_name(bundle: Bundle) -> None:
    request = Request((bundle, bundle), Wanted(("onnxruntime-cpu",), (1,)), Method(), Options())
    with pytest.raises(BundleError, match="two bundles are called us_mobilenet_v1"):
        session.prepare(request)


def test_a_checkpoint_that_is_not_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"weights")
    source = replace(bundle.manifest.source, sha256="0" * 64, file="mine.pt")
    request = Request(
        (Bundle(bundle.folder, replace(bundle.manifest, source=source)),),
        Wanted(("slimmable",), (1,)),
        Method(),
        Options(checkpoint=tmp_path / "other.pt"),
    )
    message = r"other\.pt: SHA-256 is .* was exported from one with 000000000000\.\.\. \(mine\.pt\)"
    with pytest.raises(BundleError, match=message):
        session.prepare(request)
    other = Request(request.bundles, Wanted(("onnxruntime-cpu",), (1,)), Method(), request.options)
    assert len(session.prepare(other).cells) == 2  # not asked for, so not looked at
