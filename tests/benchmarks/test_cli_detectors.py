"""`python -m benchmarks` and its `choose` on a detector: files that detect what they should are measured, and compared by
average precision."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.cells.records import read_records
from benchmarks.cli import main
from benchmarks.layers.command import command as channels
from slimtrain.base.packages import is_installed
from tests.support.exported_detectors import with_precisions
from tests.support.outcomes import outcome_of

QUICK = ("--duration", "0.05", "--warmup", "1", "--repeats", "2", "--threads", "1", "--cache-mib", "1", "--batches", "1")
CHOOSING = ("--latency-ms", "100000", *QUICK[:-2])
Tool = Callable[..., tuple[str, str]]


@pytest.fixture
def bundle(detector_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, which tells average precisions."""
    folder = Path(shutil.copytree(detector_bundle, tmp_path / "s_detector"))
    with_precisions(folder, {0.5: 0.314, 1.0: 0.5})
    return folder


@pytest.fixture
def tool(hasty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """The command in this process, in a folder of its own; what it printed, and what it said beside that."""

    def call(*words: object, code: int = 0) -> tuple[str, str]:
        arguments = list(map(str, words))
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        assert ended.value.code == code, f"{ended.value.code}\n{out}\n{err}"
        return out, err

    monkeypatch.chdir(tmp_path)
    return call


def test_a_detector_is_measured_with_its_precision_beside(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    out, _ = tool(bundle, "--backends", "onnxruntime-cpu", *QUICK)
    folder = tmp_path / "measured" / "s_detector"
    results = read_records(folder).results
    assert {(r.cell.label, r.status, (r.cell.accuracy or {})["ap"]) for r in results} == {
        ("0.5x", "measured", 0.314),
        ("1.0x", "measured", 0.5),
    }
    assert not any("not proven" in warning or "not checked" in warning for r in results for warning in r.warnings)
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["accuracy_ap"], row["accuracy_top1"]) for row in rows] == [("0.314", ""), ("0.5", "")]
    report = (folder / "report.md").read_text()
    assert "| width | MACs | params | AP % |" in report and "31.40" in report
    assert "AP" in out and "50.00" in out
    if is_installed("matplotlib"):
        pictures = {path.name.partition("_")[0]: path for path in folder.glob("*.png")}
        assert pictures.keys() == {"latency", "throughput", "pareto"}
        assert f"({pictures['pareto'].name})" in report


def test_a_file_that_detects_something_else_has_no_figure(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    narrow, wide = manifest["artifacts"]
    shutil.copyfile(bundle / narrow["file"], bundle / wide["file"])  # not the network that the reference is of
    wide["sha256"] = narrow["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    out, _ = tool(bundle, "--backends", "onnxruntime-cpu", *QUICK, "--no-plots", code=1)
    results = {r.cell.label: r for r in read_records(tmp_path / "measured" / "s_detector").results}
    assert results["0.5x"].status == "measured" and results["1.0x"].status == "not measured"
    assert "its detections are not the bundle's reference's" in results["1.0x"].reason
    assert "its detections are not" in " ".join(out.split())


def test_the_slimmable_detector_is_measured_beside_its_files(detector_bundle: Path, tmp_path: Path, tool: Tool) -> None:
    """torch runs no file of a detector, and says which operator it lacks."""
    words = ("--backends", "slimmable,torch-eager", "--ckpt", detector_bundle.parent / "faster_rcnn.pt", "--no-plots")
    tool(detector_bundle, *words, *QUICK)
    results = read_records(tmp_path / "measured" / "s_detector").results
    outcomes = {(r.cell.backend, r.cell.label, r.status) for r in results}
    assert outcomes == {
        (backend, label, status)
        for backend, status in (("slimmable", "measured"), ("torch-eager", "not measured"))
        for label in ("0.5x", "1.0x")
    }
    assert all("has no torch form here" in r.reason for r in results if r.cell.backend == "torch-eager")
    assert not any("not proven" in warning for r in results for warning in r.warnings)


def test_layers_of_detectors_are_measured_by_part(detector_bundle: Path, tool: Tool) -> None:
    for network in (detector_bundle, detector_bundle.parent / "faster_rcnn.pt"):
        outcome = outcome_of(channels, "benchmarks channels", network)
        assert outcome.code == 2 and "python -m benchmarks.studies.detection.parts" in outcome.err


@pytest.mark.parametrize(("narrow", "wide", "chosen"), [(0.314, 0.5, "x1_0"), (0.6, 0.5, "x0_5")])
def test_the_width_of_the_best_precision_is_chosen(bundle: Path, tool: Tool, narrow: float, wide: float, chosen: str) -> None:
    with_precisions(bundle, {0.5: narrow, 1.0: wide})
    out, _ = tool("choose", bundle, *CHOOSING)
    first, path, *_ = out.splitlines()
    assert chosen in first and f"AP {max(narrow, wide):.3f}" in first and "most accurate width within" in first
    assert path.endswith(f"_{chosen}.onnx")


def test_without_precisions_the_widest_is_chosen(detector_bundle: Path, tool: Tool) -> None:
    out, _ = tool("choose", detector_bundle, *CHOOSING)
    assert "x1_0" in out.splitlines()[0] and "widest" in out.splitlines()[0]


def test_precision_is_measured_where_a_detector_is_exported(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    _, err = tool(bundle, *QUICK, "--accuracy-data", "scenes", code=2)
    assert "--accuracy-data" in err and "slimexport" in err
    assert not (tmp_path / "measured").exists()
