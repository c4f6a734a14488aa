"""The command and the GPU script on a made-up board: engines of a bundle, what is printed, and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.studies.engines as script
from slimexport.cli import main
from slimexport.target.manifest import read_manifest
from tests.support.trt_helpers import machine, write_bundle


def run(*args: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0"])
def test_a_bundles_engines(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, version)
    bundle = write_bundle(tmp_path / "b", ("fp32", "fp16"))
    options = ["--format", "trt", "--precision", "fp32,tf32,fp16", "--widths", "0.5", "--batch", "1:2:4"]
    code, out, err = run("--bundle", bundle, *options)
    assert code == 0, err
    engines = read_manifest(bundle).of_format("trt")
    assert [artifact.precision for artifact in engines] == ["fp32", "tf32", "fp16"]
    assert {artifact.width for artifact in engines} == {0.5}
    assert all((bundle / a.file).exists() and a.verification.status == "passed" for a in engines)
    half = engines[2].engine
    assert half is not None and half.batch == (1, 2, 4)
    assert half.onnx.endswith(".onnx" if version.startswith("8") else ".fp16.onnx")
    assert [line.split()[1] for line in out.splitlines()[1:4]] == ["fp32", "tf32", "fp16"]
    assert err.count("building ") == 3
    code, out, err = run("--bundle", bundle, "--verify-only", "--backend", "tensorrt", "--json")
    assert code == 0, err
    assert [entry["verification"]["status"] for entry in json.loads(out)] == ["passed"] * 3


def test_a_repository_of_files_and_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch)
    bundle = write_bundle(tmp_path / "b")
    code, out, err = run("--bundle", bundle, "--format", "trt", "--triton", tmp_path / "models")
    assert code == 0, err
    assert "4 models" in out
    assert len(list((tmp_path / "models").glob("*/1/model.plan"))) == 2


def test_without_tensorrt_the_command_for_the_target_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = write_bundle(tmp_path / "b")
    before = (bundle / "manifest.json").read_bytes()
    code, out, err = run("--bundle", bundle, "--format", "trt", "--precision", "fp16")
    assert (code, out) == (3, "")
    assert "TensorRT" in err and f"slimexport --bundle {bundle} --format trt --precision fp16" in err
    assert (bundle / "manifest.json").read_bytes() == before


def test_an_engine_that_computes_something_else_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = machine(monkeypatch)
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    board.behaviour.defect = lambda logits, batch: logits + 0.5 * logits.max() * (batch > 1)
    code, _, err = run("--bundle", bundle, "--format", "trt")
    assert code == 1
    assert "was not kept" in err
    assert not list(bundle.glob("*.plan"))


def test_the_script_for_a_gpu_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch)
    bundles = [write_bundle(tmp_path / name, ("fp32", "fp16"), widths=(0.5,)) for name in ("a", "b")]
    before = [sorted(path.name for path in bundle.iterdir()) for bundle in bundles]
    results = tmp_path / "results.json"
    arguments = ["engines", *map(str, bundles), "--precision", "fp32,fp16", "--json", str(results)]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    written = json.loads(results.read_text())
    assert written["environment"]["tensorrt"] == "10.3.0"
    assert all(len(bundle["engines"]) == 2 and not bundle["failed"] for bundle in written["bundles"].values())
    assert written["refusals"]["another GPU"] and written["refusals"]["damaged plan"]
    assert "with a warm timing cache" in capsys.readouterr().out
    assert [sorted(path.name for path in bundle.iterdir()) for bundle in bundles] == before


def test_the_script_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(sys, "argv", ["engines", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 3
