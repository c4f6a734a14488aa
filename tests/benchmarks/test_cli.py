"""`python -m benchmarks` as a user meets it: real files in a real onnxruntime, and all the ways it can be refused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from benchmarks import cli
from benchmarks.cells.records import read_records
from benchmarks.cli import main
from benchmarks.commands import exit_code
from benchmarks.layers.command import command as channels
from benchmarks.layers.sources import find_network
from slimtrain.base.folders.claim import claimed
from tests.support import ROOT
from tests.support.help_texts import silent_options

# A process that was started in the background ignores Ctrl-C, and so do its children, unless they say otherwise. Ceilings are
# not what is interrupted.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from benchmarks import cli, session
session.CEILING_S = 0.01
cli.main()
"""
Tool = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["--duration", "0.05", "--warmup", "1", "--repeats", "2", "--threads", "1", "--cache-mib", "1"]


@pytest.fixture
def bundle(two_widths: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(two_widths, tmp_path / "us_mobilenet_v1"))


@pytest.fixture
def tool(hasty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """The command in this process, in a folder of its own: starting Python takes longer than what is measured here."""

    def call(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        arguments = list(map(str, words))
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        assert ended.value.code == code, f"{ended.value.code}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, code, out, err)

    monkeypatch.chdir(tmp_path)
    return call


def run(*words: object, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_a_bundle_is_measured(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, "--batches", "1,2", "--backends", "onnxruntime-cpu,tensorrt", *QUICK, "--no-plots", cwd=tmp_path)
    expected, measured = "4 cells, 0.05 s each in 2 rounds", tmp_path / "measured" / "us_mobilenet_v1"
    assert expected in done.stderr and done.stderr.index(expected) < done.stderr.index("rounds,")
    recorded = read_records(measured / "results.jsonl")
    status = {(r.cell.backend, r.cell.batch, r.cell.label): r.status for r in recorded.results}
    assert status == {
        (backend, batch, label): kind
        for backend, kind in (("onnxruntime-cpu", "measured"), ("tensorrt", "not measured"))
        for batch in (1, 2)
        for label in ("0.25x", "0.5x")
    }
    for result in recorded.results:
        if result.status == "measured":
            assert len(result.rounds) == 2 and sum(len(round_.samples_ms["wall"]) for round_ in result.rounds) >= 10
            assert result.settings["threads"] == 1
            assert "not checked" not in " ".join(result.warnings)
        else:
            assert "no engines" in result.reason
    assert recorded.run["environment"]["cpu"] and recorded.run["settings"]["threads"]["threads"] == 1
    assert recorded.run["settings"]["inputs"]["distribution"] == "standard normal"
    assert recorded.run["ceilings"]["onnxruntime-cpu fp32"]["macs_per_s"] > 0
    assert recorded.end is not None and not recorded.end["interrupted"]
    rows = list(csv.DictReader((measured / "results.csv").open()))
    assert [float(row["median_ms"]) > 0 for row in rows if row["status"] == "measured"] == [True] * 4
    assert len(rows) == 8
    report = (measured / "report.md").read_text()
    for text in ("us_mobilenet_v1", "0.25x", "onnxruntime-cpu", "no engines", "python -m benchmarks"):
        assert text in report
    assert "0.5x" in done.stdout and "promised" in done.stdout


def test_a_second_run_moves_the_first_aside_and_is_compared_with_it(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    words = [bundle, "--batches", "1", *QUICK, "--no-plots"]
    tool(*words)
    first = (tmp_path / "measured/us_mobilenet_v1/results.jsonl").read_bytes()
    done = tool(*words, "--baseline", "measured/us_mobilenet_v1/results.jsonl")
    assert (tmp_path / "measured/us_mobilenet_v1.1/results.jsonl").read_bytes() == first
    assert "within noise" in done.stdout
    assert "within noise" in (tmp_path / "measured/us_mobilenet_v1/comparison.txt").read_text()


def test_a_folder_that_another_run_measures_into_is_left_to_it(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "measured").mkdir()
    with claimed(tmp_path / "measured/us_mobilenet_v1", ""):
        done = tool(bundle, "--batches", "1", *QUICK, "--no-plots", code=2)
    assert "is writing there. Wait for it, or choose another --output-dir." in done.stderr
    assert not list((tmp_path / "measured").iterdir())


def test_a_file_that_was_changed(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    file = next(bundle.glob("*x0_5.onnx"))
    file.write_bytes(file.read_bytes() + b"x")
    done = tool(bundle, *QUICK, code=2)
    assert file.name in done.stderr and "SHA-256" in done.stderr
    assert not (tmp_path / "measured").exists()


def test_a_network_that_computes_something_else_has_no_figure(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    narrow, wide = (next(bundle.glob(f"*{width}.onnx")) for width in ("x0_25", "x0_5"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    wide.write_bytes(narrow.read_bytes())  # with the right SHA-256, but not the network that the reference is of
    by_file = {artifact["file"]: artifact for artifact in manifest["artifacts"]}
    by_file[wide.name]["sha256"] = by_file[narrow.name]["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = tool(bundle, "--batches", "1", *QUICK, "--no-plots", code=1)
    results = {r.cell.label: r for r in read_records(tmp_path / "measured/us_mobilenet_v1").results}
    assert results["0.25x"].status == "measured"
    assert results["0.5x"].status == "not measured" and "off the bundle's reference" in results["0.5x"].reason
    assert "off the bundle's reference" in done.stdout


def test_backends_that_are_not_here(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    done = tool(bundle, "--backends", "onnxruntime-cuda", "--batches", "1", *QUICK, code=3)
    assert "onnxruntime-cuda" in done.stdout and ("driver" in done.stdout or "CUDAExecutionProvider" in done.stdout)


def test_without_torch(bundle: Path, tmp_path: Path) -> None:
    """Measuring a bundle loads neither torch nor onnx; torch backends are rows with their reason."""
    (tmp_path / "block").mkdir()
    for module in ("torch", "torchvision", "onnx", "yaml", "tqdm", "matplotlib"):
        (tmp_path / "block" / f"{module}.py").write_text(f"raise ImportError('no {module} on this machine')")
    path = f"{tmp_path / 'block'}{os.pathsep}{ROOT}"
    words = ["--backends", "onnxruntime-cpu,torch-eager", "--batches", "1"]
    done = run(bundle, *words, *QUICK, cwd=tmp_path, PYTHONPATH=path)
    results = read_records(tmp_path / "measured/us_mobilenet_v1").results
    assert {(r.cell.backend, r.status) for r in results} == {
        ("onnxruntime-cpu", "measured"),
        ("torch-eager", "not measured"),
    }
    assert "needs torch, which is not installed" in " ".join(done.stdout.split())  # its lines are wrapped
    assert "no plots" in done.stderr and "matplotlib" in done.stderr


def test_choosing(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    done = tool("choose", bundle, "--latency-ms", "10000", *QUICK)
    assert "us_mobilenet_v1_x0_5" in done.stdout.splitlines()[0] and "widest" in done.stdout
    assert done.stdout.splitlines()[1] == str(bundle / "us_mobilenet_v1_x0_5.onnx")
    done = tool("choose", bundle, "--latency-ms", "1e-6", "--percentile", "95", *QUICK, code=1)
    assert "no width meets" in done.stdout and "us_mobilenet_v1_x0_25" in done.stdout
    assert {path.name for path in (tmp_path / "measured").rglob("*.jsonl")} == {"results.jsonl"}
    assert sorted(path.name for path in (tmp_path / "measured/us_mobilenet_v1").iterdir()) == ["choose", "choose.1"]
    tool("choose", bundle, "--latency-ms", "10000", *QUICK)
    assert sorted(path.name for path in (tmp_path / "measured/us_mobilenet_v1").iterdir()) == ["choose", "choose.1"]
    recorded: Any = ["--results", "measured/us_mobilenet_v1/choose"]
    done = tool("choose", bundle, "--latency-ms", "10000", *recorded)
    assert "us_mobilenet_v1_x0_5" in done.stdout.splitlines()[0]
    done = tool("choose", bundle, "--latency-ms", "10000", "--batch", "4", *recorded, code=2)
    assert "nothing for us_mobilenet_v1 at batch 4" in done.stderr


def test_a_choice_as_json_with_its_warnings(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    words = ["choose", bundle, "--latency-ms", "10000", "--json"]
    values = json.loads(tool(*words, *QUICK).stdout)
    assert Path(values["chosen"]["path"]).is_file() and values["chosen"]["batch"] == 1
    results = tmp_path / values["results"]
    assert results.is_file() and results.parent.name == "choose"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "cell":
            line["warnings"] = ["noisy: the medians of its rounds spread over 40% (limit 10%)."]
    results.write_text("\n".join(map(json.dumps, lines)) + "\n")
    values = json.loads(tool(*words, "--results", results).stdout)
    assert (
        len(values["warnings"]) == 1 and "noisy" in values["warnings"][0] and values["warnings"][0].startswith("every width: ")
    )
    done = tool("choose", bundle, "--latency-ms", "10000", "--results", results)
    assert done.stderr.count("noisy") == 1 and "warnings:" in done.stderr


def test_choosing_from_results_keeps_to_what_is_asked_for(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    tool(bundle, "--widths", "0.25", "--batches", "1", *QUICK, "--no-plots")
    words = ["choose", bundle, "--latency-ms", "1000", "--results", "measured/us_mobilenet_v1"]
    assert "x0_25" in tool(*words, "--widths", "0.25").stdout
    assert "x0_25" in tool(*words, "--precision", "fp32,", "--backend", "all").stdout
    assert "has nothing for" in tool(*words, "--widths", "0.5", code=2).stderr
    assert "has nothing for" in tool(*words, "--precision", "fp16", code=2).stderr


def test_two_bundles_of_one_network(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    words = ["--widths", "0.25", "--batches", "1", *QUICK, "--no-plots", "--output-dir", "out"]
    tool(bundle, other, *words)
    done = tool(bundle, other, *words, "--baseline", "out")
    assert done.stdout.count("us_mobilenet_v1  0.25x") == 2
    assert f"compared with python -m benchmarks {bundle}" in done.stdout
    done = tool("choose", other, "--latency-ms", "1000", "--results", "out")
    assert "x0_25" in done.stdout


def test_results_do_not_go_where_the_bundle_is(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    for folder in (bundle, bundle.parent):
        done = tool(bundle, *QUICK, "--output-dir", folder, code=2)
        assert "which this run reads" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"us_mobilenet_v1"}
    assert not (bundle / "results.jsonl").exists()


def test_a_damaged_reference_is_a_row_with_its_reason(bundle: Path, tmp_path: Path, tool: Tool) -> None:
    with np.load(bundle / "reference.npz") as archive:
        arrays = dict(archive)
    np.savez(bundle / "reference.npz", **{**arrays, "logits_x0_5": arrays["logits_x0_5"][:1]})
    done = tool(bundle, "--batches", "1", *QUICK, "--no-plots")
    status = {r.cell.label: (r.status, r.exit_code) for r in read_records(tmp_path / "measured/us_mobilenet_v1").results}
    assert status == {"0.25x": ("measured", 0), "0.5x": ("not measured", 2)}
    assert "which does not fit" in " ".join(done.stdout.split())


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_is_kept_when_interrupted(stop: signal.Signals, bundle: Path, tmp_path: Path) -> None:
    words = [str(bundle), "--batches", "1,2", "--duration", "4", "--warmup", "1", "--repeats", "100", "--no-plots"]
    words += ["--cache-mib", "1"]
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
        deadline = time.monotonic() + 60
        while " rounds, round " not in errors.read_text() and time.monotonic() < deadline:  # a fifth of batch 1 is done
            time.sleep(0.05)
        process.send_signal(stop)
        out, _ = process.communicate(timeout=60)
    err, file = errors.read_text(), tmp_path / "measured/us_mobilenet_v1/results.jsonl"
    assert process.returncode == 130, f"{out}\n{err}"
    assert "Traceback" not in err
    recorded = read_records(file)
    status = [(r.cell.batch, r.status) for r in recorded.results]
    assert sorted(status) == [(1, "interrupted")] * 2 + [(2, "not measured")] * 2
    assert all(sum(map(len, r.latency_ms)) > 0 for r in recorded.results if r.status == "interrupted")
    assert recorded.end is not None and recorded.end["interrupted"]
    assert (file.parent / "report.md").exists()
    assert "interrupted" in err


def test_channels_of_a_bundle_with_other_classes(two_widths: Path) -> None:
    spec, size = find_network(str(two_widths), classes=7)
    assert (spec.name, spec.classes, size) == ("us_mobilenet_v1", 7, 32)


def test_the_list_names_every_script(tmp_path: Path) -> None:
    done = run("--list", cwd=tmp_path)
    for name in ("export_speed", "training", "int8", "trust", "networks", "latency_prediction", "engines"):
        assert f"python -m benchmarks.studies.{name}" in done.stdout
    assert "choose" in done.stdout and "channels" in done.stdout
    descriptions = [line for line in done.stdout.splitlines() if line.startswith("    ")]
    assert all(line.strip() for line in descriptions) and len(descriptions) >= 10


def test_help_needs_no_torch_and_no_onnxruntime(tmp_path: Path) -> None:
    (tmp_path / "block").mkdir()
    for module in ("torch", "onnxruntime", "onnx", "matplotlib"):
        (tmp_path / "block" / f"{module}.py").write_text("raise ImportError('not here')")
    path = f"{tmp_path / 'block'}{os.pathsep}{ROOT}"
    for words in (["--help"], ["choose", "--help"], ["channels", "--help"], ["load", "--help"], ["--version"], ["--list"]):
        run(*words, cwd=tmp_path, PYTHONPATH=path)


@pytest.mark.parametrize("command", [cli.measure, cli.choose, channels], ids=lambda command: command.name)
def test_help_says_every_default(command: click.Command) -> None:
    assert silent_options(command) == []


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["b", "--width", "1"], "--widths"),
        (["choose", "b", "--latency", "1"], "--latency-ms"),
        (["channels", "b", "--xyzzy", "1"], None),
        (["channels", "b", "--out", "1"], "--output-dir"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_one(words: list[str], right: str | None, tool: Tool) -> None:
    done = tool(*words, code=2)
    assert "No such option" in done.stderr
    assert (f"Did you mean {right}" in done.stderr) if right else ("Did you mean" not in done.stderr)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "Usage: slimbench [OPTIONS] BUNDLE..."),
        (["choose", "--help"], "Usage: slimbench choose"),
        (["channels", "--help"], "    slimbench channels us_mobilenet_v1"),
        (["--list"], "slimbench choose BUNDLE"),
    ],
)
def test_the_console_script_is_called_by_its_name(
    words: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/slimbench", *words])
    with contextlib.suppress(SystemExit):
        main()
    text = capsys.readouterr().out
    assert shown in text and re.search(r"python -m benchmarks(?!\.)", text) is None
    assert words != ["--list"] or "python -m benchmarks.studies.trust" in text


def test_messages_begin_with_the_name_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, begins in (("slimbench", "slimbench: "), ("__main__.py", "benchmarks: ")):
        monkeypatch.setattr(sys, "argv", [name, "none"])
        with pytest.raises(SystemExit):
            main()
        assert capsys.readouterr().err.startswith(begins)


def test_exit_codes() -> None:
    class OneResult:
        def __init__(self, status: str, code: int = 0) -> None:
            self.status, self.exit_code = status, code

    measured = OneResult("measured")
    lacking, wrong, bad = (OneResult("not measured", code) for code in (3, 1, 2))
    table: list[tuple[list[Any], int]] = [
        ([measured], 0),
        ([measured, lacking], 0),
        ([measured, wrong], 1),
        ([lacking], 3),
        ([lacking, bad], 3),
        ([OneResult("interrupted")], 0),
        ([], 0),
    ]
    for results, code in table:
        assert exit_code(results) == code
