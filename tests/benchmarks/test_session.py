"""A run from request to records, with stand-ins for the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import session
from benchmarks.ceilings import measuring as ceilings
from benchmarks.cells.cell import Options
from benchmarks.cells.inputs import assumed_cache, cache_bytes
from benchmarks.cells.plan_cells import Bundle, Wanted, open_bundle
from benchmarks.cells.records import read_records
from benchmarks.cli import exit_code, main
from benchmarks.listing import scripts
from benchmarks.measure.progress import Progress
from benchmarks.measure.turns import Method
from slimexport import export
from slimexport.target.errors import BundleError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("exports") / "net"
    export("random:us_mobilenet_v1", widths=[0.25], image_size=32, output_dir=folder)
    return open_bundle(folder)


def request_for(bundle: Bundle, **more: Any) -> session.Request:
    wanted = Wanted(("onnxruntime-cpu", "tensorrt"), (1,))
    return session.Request((bundle,), wanted, Method(0.02, 1, 0.0), Options(), **more)


def start(request: session.Request, path: Path, said: list[str]) -> Any:
    with assumed_cache(1 << 16):
        plan = session.prepare(request)
        return session.run(request, {"threads": 1, "pinned": False}, plan, path, "the command", said.append, Progress())


def test_ctrl_c_while_ceilings_are_measured(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ceilings, "measure_ceilings", interrupted)
    recorded, stopped = start(request_for(bundle), tmp_path / "results.jsonl", [])
    assert stopped and recorded.end is not None and recorded.end["interrupted"]
    assert [(r.cell.backend, r.status) for r in recorded.results] == [
        ("tensorrt", "not measured"),
        ("onnxruntime-cpu", "not measured"),
    ]
    assert "interrupted" in recorded.results[1].reason
    assert read_records(tmp_path / "results.jsonl").results == recorded.results


def test_what_is_returned_is_what_is_written(bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    recorded, stopped = start(request_for(bundle), tmp_path / "results.jsonl", said)
    assert not stopped
    written = read_records(tmp_path / "results.jsonl")
    assert [r.as_dict() for r in written.results] == [
        r.as_dict() | {"rounds": w.as_dict()["rounds"], "settings": w.settings, "warnings": w.warnings}
        for r, w in zip(recorded.results, written.results, strict=True)
    ]
    assert said[0].startswith("1 cells, 0.02 s each in 1 rounds: about")
    assert written.run["command"] == "the command"
    assert written.run["settings"]["options"]["threads"] == 1
    assert written.run["settings"]["method"]["duration_s"] == 0.02


def test_two_bundles_of_one_name(bundle: Bundle) -> None:
    request = session.Request((bundle, bundle), Wanted(("onnxruntime-cpu",), (1,)), Method(), Options())
    with pytest.raises(BundleError, match="two bundles are called net"):
        session.prepare(request)


def test_a_checkpoint_that_is_not_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"weights")
    source = replace(bundle.manifest.source, sha256="0" * 64, file="mine.pt")
    request = session.Request(
        (Bundle(bundle.folder, replace(bundle.manifest, source=source)),),
        Wanted(("slimmable",), (1,)),
        Method(),
        Options(checkpoint=tmp_path / "other.pt"),
    )
    told = r"other\.pt: SHA-256 is .* was exported from one with 000000000000\.\.\. \(mine\.pt\)"
    with pytest.raises(BundleError, match=told):
        session.prepare(request)
    other = session.Request(request.bundles, Wanted(("onnxruntime-cpu",), (1,)), Method(), request.options)
    assert len(session.prepare(other).cells) == 1  # not asked for, so not looked at


def test_exit_codes() -> None:
    class Each:
        def __init__(self, status: str, code: int = 0) -> None:
            self.status, self.exit_code = status, code

    measured, lacking, wrong, bad = Each("measured"), Each("not measured", 3), Each("not measured", 1), Each("not measured", 2)
    table: list[tuple[list[Any], int]] = [
        ([measured], 0),
        ([measured, lacking], 0),
        ([measured, wrong], 1),
        ([lacking], 3),
        ([lacking, bad], 3),
        ([Each("interrupted")], 0),
        ([], 0),
    ]
    for results, code in table:
        assert exit_code(results) == code


def test_an_assumed_cache_ends_with_its_block() -> None:
    own = cache_bytes()
    with assumed_cache(123):
        with assumed_cache(None):
            assert cache_bytes() == 123
        with assumed_cache(4):
            assert cache_bytes() == 4
        assert cache_bytes() == 123
    assert cache_bytes() == own


def test_progress_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        for done in range(101):
            progress("a cell", done, 100)
    assert capsys.readouterr().err.splitlines() == [f"{done} of 100 rounds, a cell" for done in range(10, 101, 10)]


def test_the_list_is_read_off_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    told = capsys.readouterr().out
    assert all(command in told and what and what in told for command, what in scripts().items())
    assert "python -m benchmarks.studies.trust" in scripts() and "python -m benchmarks.cells.cell" not in scripts()
