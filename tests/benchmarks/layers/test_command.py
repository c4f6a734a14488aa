"""`python -m benchmarks channels`, with a timer that runs nothing: files, words, pictures, Ctrl-C and wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.layers import command as channels
from benchmarks.layers.command import command, require_onnx
from benchmarks.layers.run import TimedDevice
from benchmarks.layers.sources import find_network
from slimexport.target.records import to_json
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.latency_table import read_latency_table
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support import ROOT
from tests.support.bundle_helpers import artifact, as_json
from tests.support.channel_fakes import FormulaTimer

FEW = ["--image-size", "32", "--stem-stride", "1", "--classes", "10", "--range", "0.25:0.5", "--points", "2", "--line", "12"]
HALF = dict(published_spec("us_mobilenet_v1").plan(0.5).channels)
Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command with a FormulaTimer; `timer` is another one."""

    def run(*words: str, timer: FormulaTimer | None = None) -> Result:
        monkeypatch.setattr(channels, "ModelTimer", lambda backend, batch, threads: timer or FormulaTimer())
        monkeypatch.setattr(
            channels, "this_device", lambda backend, batch, threads: TimedDevice("a formula", backend, batch, threads, {})
        )
        return CliRunner().invoke(command, list(words))

    return run


def manifest_of(folder: Path, stem_stride: int = 2, **changed: Any) -> Path:
    """A bundle's folder with nothing but a manifest."""
    spec = replace(published_spec("us_mobilenet_v1", 10), stem_stride=stem_stride)
    plan = spec.plan(0.5)
    macs = CostCounter(spec, 32)(plan).macs
    described = artifact("a", channels=dict(plan.channels), macs=macs)
    content = {**as_json(described, network="us_mobilenet_v1", image_size=32, classes=10), **changed}
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_files_and_words_of_a_run(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(out), "--threads", "1", "--batch", "2", "--no-plots")
    assert done.exit_code == 0, done.output
    spec, size = find_network("us_mobilenet_v1", image_size=32, classes=10, stem_stride=1, widths=(0.25, 0.5))
    table = read_latency_table(out / "latency_table.json", spec, size, "a formula")
    assert (table.batch, table.threads, table.backend) == (2, 1, "onnxruntime-cpu")
    assert "python -m benchmarks" in table.settings["command"]
    assert table.cost_ms(spec.plan(0.25)) < table.cost_ms(spec.plan(0.5))
    assert "steps of 16 input channels: +" in done.stdout
    assert "1x1 at " in done.stdout and "depthwise 3x3 at " in done.stdout and "classifier.0, linear:" in done.stdout
    assert "a network takes" in done.stdout and " min" in done.stderr
    with (out / "channels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["purpose"] for row in rows} == {"table", "staircase"}
    for row in rows:
        apart = (float(row["with_ms"]) - float(row["without_ms"])) / int(row["copies"])
        assert float(row["ms"]) == pytest.approx(apart)
    assert sorted(path.name for path in out.iterdir()) == ["channels.csv", "latency_table.json"]


def test_pictures_are_written(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    pictures = sorted((tmp_path / "out").glob("staircase_*.png"))
    assert len(pictures) >= 3 and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert all(path.name in done.stderr for path in pictures)


def test_without_matplotlib_everything_else_is_written(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path))
    assert done.exit_code == 0 and "no plots: plots need matplotlib" in done.stderr
    assert (tmp_path / "latency_table.json").exists()


def test_the_lines_at_steps_are_in_the_legend(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    figures: list[Any] = []

    def keep(figure: object, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr("benchmarks.layers.plots.save", keep)
    assert call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path)).exit_code == 0
    seen = set()
    for figure in figures:
        dotted = any(line.get_linestyle() == ":" for axes in figure.axes for line in axes.lines)
        assert ("where a step of time lies" in [text.get_text() for text in figure.legends[0].get_texts()]) is dotted
        seen.add(dotted)
    assert True in seen


@pytest.mark.parametrize("calls", [1, 5])
def test_ctrl_c_keeps_what_was_measured(call: Call, tmp_path: Path, calls: int) -> None:
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path), timer=FormulaTimer(stop_after=calls))
    assert done.exit_code == 130 and not (tmp_path / "latency_table.json").exists()
    with (tmp_path / "channels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (len(rows) > 0) == (calls > 1)
    assert f"the {len(rows)} layer times that were measured are in {tmp_path / 'channels.csv'}" in done.stderr


def test_a_table_that_is_there_is_not_replaced_unasked(call: Call, tmp_path: Path) -> None:
    (tmp_path / "latency_table.json").write_text("mine")
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path))
    assert done.exit_code == 2 and "is there already" in done.stderr
    assert (tmp_path / "latency_table.json").read_text() == "mine"
    assert call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path), "--overwrite", "--no-plots").exit_code == 0
    assert (tmp_path / "latency_table.json").read_text() != "mine"


def test_a_killed_run_leaves_the_table_that_was_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "latency_table.json").write_text("mine")
    call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path), "--overwrite", timer=FormulaTimer(stop_after=4))
    assert (tmp_path / "latency_table.json").read_text() == "mine"


WRONG = {
    "a mistyped network": (["us_mobilnet_v1"], "did you mean 'us_mobilenet_v1'"),
    "no bundle": (["nowhere/at/all"], "neither a network nor a bundle's folder"),
    "a range of an S network": (["s_mobilenet_v1", "--range", "0.1:1.0"], "has no range of widths"),
    "a range that falls": (["us_mobilenet_v1", "--range", "1.0:0.5"], "expected LOW below HIGH"),
    "no range": (["us_mobilenet_v1", "--range", "wide"], "expected LOW:HIGH"),
    "a NaN": (["us_mobilenet_v1", "--range", "nan:1"], "expected LOW below HIGH"),
    "a small image": (["us_mobilenet_v1", "--image-size", "16"], "image size 16"),
    "no duration": (["us_mobilenet_v1", "--duration", "0"], "--duration"),
    "one point": (["us_mobilenet_v1", "--points", "1"], "--points"),
    "TensorRT": (["us_mobilenet_v1", "--backend", "tensorrt"], "--backend"),
    "an unpublished list": (["autoslim_resnet101"], "no channel lists were published"),
    "too many threads": (["us_mobilenet_v1", "--threads", "10000"], "10000 threads"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_message_and_code_2(call: Call, tmp_path: Path, words: str) -> None:
    given, message = WRONG[words]
    done = call(*given, "--output-dir", str(tmp_path / "out"))
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("us_mobilenet_v1", *FEW, "--output-dir", str(tmp_path / "file" / "out"))
    assert done.exit_code == 2 and "cannot be written" in done.stderr


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_a_bundle_says_what_it_is(tmp_path: Path, stem_stride: int) -> None:
    spec, size = find_network(str(manifest_of(tmp_path / "b", stem_stride)))
    assert isinstance(spec, NetworkSpec)
    assert (spec.name, spec.classes, spec.stem_stride, size) == ("us_mobilenet_v1", 10, stem_stride, 32)
    spec, size = find_network(str(tmp_path / "b"), image_size=64, widths=(0.1, 1.2))
    assert isinstance(spec, NetworkSpec) and size == 64 and spec.range == (0.1, 1.2) and spec.stem_stride == stem_stride
    assert spec.switches[0] == 0.1 and spec.switches[-1] == 1.2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"artifacts": []}, "damaged"),
        ({"source": {"file": "a.pt", "sha256": None}}, r"source\.network is missing"),
        ({"schema_version": 9}, "schema version 9"),
        ({"artifacts": [to_json(artifact(channels={"features.0": 16}, macs=5))]}, "is not the published one"),
        ({"artifacts": [to_json(artifact(channels=HALF, macs=5))]}, "another network"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_network(str(manifest_of(tmp_path / "b", **changed)))
    assert caught.value.exit_code == 2


def test_ranges_are_of_universally_slimmable_networks() -> None:
    with pytest.raises(UserError, match="it has switches 1, 2, 3"):
        find_network("autoslim_mobilenet_v2", widths=(0.15, 1.5))


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ResourceError, match="pip install onnx") as caught:
        require_onnx()
    assert caught.value.exit_code == 3


def test_help_and_usage_errors_load_nothing_heavy() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxruntime', 'matplotlib', 'tensorrt')))\n"
        "from benchmarks.layers.command import command; command(sys.argv[1:])"
    )
    for words, exit_code in ((["--help"], 0), (["us_mobilnet_v1"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == exit_code and "Traceback" not in done.stderr, done.stderr


def test_a_network_of_other_images_is_measured(call: Call, tmp_path: Path) -> None:
    words = [word for word in FEW if word not in ("--image-size", "32")]
    out = tmp_path / "out"
    done = call(
        "us_mobilenet_v1", *words, "--image-size", "48x32", "--in-channels", "1", "--output-dir", str(out), "--no-plots"
    )
    assert done.exit_code == 0, done.output
    assert "at 48x32 px" in done.stderr and " at 48x32:" in done.stdout
    options: Any = {"image_size": (48, 32), "in_channels": 1, "classes": 10, "stem_stride": 1, "widths": (0.25, 0.5)}
    spec, size = find_network("us_mobilenet_v1", **options)
    assert read_latency_table(out / "latency_table.json", spec, size).network.in_channels == spec.in_channels == 1
    with (out / "channels.csv").open() as file:
        assert {row["side"] for row in csv.DictReader(file)} >= {"48x32", "24x16", "3x2"}


@pytest.mark.parametrize("size", ["0", "48x", "x", "48x32x1", "big"])
def test_a_size_that_is_none(call: Call, size: str) -> None:
    done = call("us_mobilenet_v1", "--image-size", size)
    assert done.exit_code == 2 and "expected pixels of a square, as in 224, or HEIGHTxWIDTH" in done.output


def test_a_module_s_layers_are_measured(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ["tests.support.traced_search:build", "--image-size", "16", "--points", "2", "--unit", "4", "--line", "4"]
    done = call(*words, "--output-dir", str(out))
    assert done.exit_code == 0, done.output
    spec, size = find_network(words[0], image_size=16)
    table = read_latency_table(out / "latency_table.json", spec, size, "a formula")
    assert table.cost_ms(spec.plan(0.25)) < table.cost_ms(spec.widest)
    assert "us_build at 16 px" in done.stderr and "conv2d 3x3 of Nx32x8x8: " in done.stdout
    with (out / "channels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows if row["purpose"] == "table"} >= {"stem.0", "fc1", "fc2", "cat", "head"}
    pictures = sorted(path.stem for path in out.glob("*.png"))
    assert pictures and set(pictures) <= {f"staircase_{layer.name.replace('.', '_')}" for layer in table.layers}
