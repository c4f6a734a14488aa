"""The command and the GPU script on a made-up board: engines of a bundle, what is printed, and exit codes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import benchmarks.studies.engines as script
from slimexport.cli import main
from slimexport.target.manifest import read_manifest
from slimtrain.data.noise import noise_images
from tests.support.rtx import SIZE, require_rtx
from tests.support.trt_helpers import machine, names, without_gpu, without_modules, write_bundle


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
    code, out, err = run("--bundle", bundle, "--format", "trt", "--precision", "fp16", "--widths", "0.5", "--batch", "1:2:4")
    assert (code, out) == (3, "")
    advice = f"slimexport --bundle {bundle} --format trt --precision fp16 --widths 0.5 --batch 1:2:4"
    assert "TensorRT" in err and err.endswith(f": {advice}\n")
    assert (bundle / "manifest.json").read_bytes() == before


def test_an_engine_that_computes_something_else_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = machine(monkeypatch)
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    board.behaviour.defect = lambda logits, batch: logits + 0.5 * logits.max() * (batch > 1)
    code, _, err = run("--bundle", bundle, "--format", "trt")
    assert code == 1
    assert re.search(r"^failed, a difference of .* of the logits' scale, expected at most 1e-04, \d+\.\d s$", err, re.M)
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


# ------------------------------------------------------------------------------------------------------- TensorRT-RTX


@pytest.fixture(scope="module")
def exported(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two widths in every precision."""
    folder = tmp_path_factory.mktemp("rtx") / "b"
    images = folder.with_name("images.npy")
    np.save(images, noise_images(8, SIZE, 0))
    options = ["--image-size", str(SIZE), "--precision", "fp32,fp16,bf16,int8", "--no-verify"]
    code, _, err = run("--ckpt", good, *options, "--calibration-data", images, "--output-dir", folder)
    assert code == 0, err
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, on a machine that has the real TensorRT-RTX and no GPU."""
    require_rtx()
    without_gpu(monkeypatch)
    return Path(shutil.copytree(exported, tmp_path / "b"))


def test_engines_are_built_where_no_gpu_is(bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["--format", "trt-rtx", "--precision", "fp32,tf32,fp16,bf16,int8", "--batch", "1:2:4"]
    code, out, err = run("--bundle", bundle, *options)
    assert code == 0, err
    engines = read_manifest(bundle).of_format("trt-rtx")
    infixes = ("", ".tf32", ".fp16", ".bf16", ".int8")
    assert {a.file.removeprefix(a.name) for a in engines} == {f"{infix}.rtx.plan" for infix in infixes}
    assert {a.verification.status for a in engines} == {"built"} and not read_manifest(bundle).rejected
    assert all((bundle / a.file).stat().st_size == a.size_bytes and a.engine and a.engine.batch == (1, 2, 4) for a in engines)
    assert out.partition("\nbuilt: ")[0].split().count("built") == len(engines)
    command = f"slimexport --bundle {bundle} --verify-only --backend tensorrt-rtx"
    assert out.splitlines()[-1] == f"built: not proven yet, nothing has run them; on a machine with their GPU: {command}"
    warnings = [record.getMessage() for record in caplog.records if " warns: " in record.getMessage()]
    assert 1 <= len(warnings) <= 2 and all(re.search(r"scales to fp32\. \(\d+ times\)$", line) for line in warnings)
    code, out, err = run(*command.split()[1:])
    assert (code, out) == (3, "") and err.count("\n") == 1 and "cannot run here" in err
    code, out, err = run("--bundle", bundle, "--triton", tmp_path / "models")
    assert code == 0 and not list((tmp_path / "models").glob("**/*.plan"))
    assert "Triton's TensorRT does not load trt-rtx engines" in caplog.text


def test_what_a_gpu_lacks_is_told_once_for_all_widths(bundle: Path) -> None:
    options = ["--format", "trt-rtx", "--precision", "fp32,fp16", "--targets", "7.5,12.0"]
    code, _, err = run("--bundle", bundle, *options)
    assert code == 1
    (message,) = [line for line in err.splitlines() if line.startswith("slimexport: ")]
    assert "for compute capability 7.5, 12.0." in message and "FP32 GEMM is not supported" in message
    assert re.search(r"The same for \d other", message)
    engines = read_manifest(bundle).of_format("trt-rtx")
    assert {a.precision for a in engines} == {"fp16"} and all(
        a.engine and a.engine.targets == ("7.5", "12.0") for a in engines
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--format", "trt-rtx", "--targets", "9.0"], 2, r"compute capability 9\.0: TensorRT-RTX \S+ builds for 7\.5, "),
        (["--format", "trt-rtx", "--targets", "ampere"], 2, "target 'ampere': expected a GPU's compute capability"),
        (["--format", "trt", "--targets", "8.6"], 2, "--targets goes with --format trt-rtx alone"),
        (["--verify-only", "--targets", "8.6"], 2, "--targets goes with --format trt-rtx alone"),
        (["--format", "trt-rtx", "--version-compatible"], 2, "--version-compatible and .* are for --format trt"),
        (["--format", "trt-rtx", "--workspace", "1"], 1, "built no fp32 engine of it.*workspace limit"),
        (["--format", "rtx"], 2, "format 'rtx': not known.*Available: onnx, trt, trt-rtx"),
    ],
)
def test_what_cannot_be_built_is_one_message(bundle: Path, options: list[str], code: int, words: str) -> None:
    before = names(bundle)
    got, _, err = run("--bundle", bundle, *options)
    assert got == code and re.search(words, err), err
    assert names(bundle) == before and "Traceback" not in err


def test_without_rtx_the_command_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_modules(monkeypatch, "tensorrt_rtx", "tensorrt_rtx_bindings")
    bundle = write_bundle(tmp_path / "b")
    command = f"--bundle {bundle} --format trt-rtx --precision fp16 --batch 1:8:8 --targets 8.6"
    code, out, err = run(*command.split(), "--workspace", "64")
    assert (code, out) == (3, "")
    assert "TensorRT-RTX is not installed" in err and "[trt-rtx]" in err
    assert f"Where it is installed: slimexport {command} --workspace 64" in err
