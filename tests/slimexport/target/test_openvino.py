"""Files in OpenVINO: proven like onnxruntime's, in the numbers that are theirs, and refused in one message."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimexport import open_network
from slimexport.predict import predict
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.openvino import OpenVINORunner, compile_file, core, hint_of, layers_by_number, reason, require_openvino
from slimexport.target.precision import PRECISIONS
from slimtrain.base.files import file_sha256
from tests.support.export_helpers import edit_weight, negate_largest, python, refused, run, run_onnx, write_checkpoint

openvino = pytest.importorskip("openvino")
NAME = "s_mobilenet_v1_x0_5"
CAPABILITIES = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One width in every precision that files have; how well an untrained network bears them is not asked."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "noise.npy", np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32))
    words: list[str | Path] = [
        "--ckpt",
        write_checkpoint(folder / "small.pt"),
        "--image-size",
        "32",
        "--output-dir",
        folder / "b",
    ]
    words += ["--precision", "fp32,fp16,bf16,int8", "--calibration-data", folder / "noise.npy", "--no-verify"]
    outcome = run(*words)
    assert outcome.code == 0, outcome
    return folder / "b"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "b"))


def images(batch: int, size: int = 32) -> Any:
    return np.random.default_rng(1).normal(size=(batch, 3, size, size)).astype(np.float32)


def test_a_bundle_is_verified_file_by_file_in_every_precision(exported: Path) -> None:
    outcome = run("--bundle", exported, "--verify-only", "--backend", "openvino", "--json")
    entries = json.loads(outcome.out)
    assert {entry["precision"] for entry in entries} == {row.name for row in PRECISIONS.values() if row.weight_bytes}
    for entry in entries:
        check = entry["verification"]
        assert check["backend"] == "openvino" and check["probes"] == 2
        assert check["status"] in ("passed", "failed")  # none is skipped
        if entry["precision"] == "fp32":
            assert check["status"] == "passed" and check["max_rel_error"] < 1e-5


def test_a_wrong_file_is_told(bundle: Path) -> None:
    model = onnx.load(bundle / f"{NAME}.onnx")
    edit_weight(model, "features.0.0.weight", negate_largest)
    onnx.save(model, bundle / f"{NAME}.onnx")
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = next(entry for entry in manifest["artifacts"] if entry["file"] == f"{NAME}.onnx")
    entry["sha256"] = file_sha256(bundle / f"{NAME}.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"artifacts": [entry]}))
    outcome = run("--bundle", bundle, "--verify-only", "--backend", "openvino")
    refused(outcome, 1, f"not proven right: {NAME}.onnx")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_gives_what_onnxruntime_gives_at_any_batch(exported: Path, batch: int) -> None:
    with open_network(exported, 0.5, backend="openvino") as network:
        assert (network.backend, network.artifact.file) == ("openvino", f"{NAME}.onnx")
        given = network(images(batch))
        np.testing.assert_allclose(given, run_onnx(exported / f"{NAME}.onnx", images(batch)), rtol=1e-3, atol=1e-5)
        assert np.array_equal(network(images(batch)), given), "a second run overwrites no result of the first"
    with pytest.raises(BundleError, match="is closed"):
        network(images(batch))


@pytest.mark.parametrize(
    ("precision", "hint", "numbers"),
    [
        *(("fp32", "f32", {"f32"}), ("fp16", "f16", {"f16"}), ("bf16", "bf16", {"bf16"})),
        *(("int8-cpu", "f32", {"u8"}), ("int8", "f32", {"i8", "u8"}), ("int8-fp16", "f32", {"i8", "u8"})),
    ],
)
def test_layers_compute_in_the_numbers_that_are_the_files(
    exported: Path, precision: str, hint: str, numbers: set[str]
) -> None:
    """Without a hint, OpenVINO takes bfloat16 for fp32 files where the CPU multiplies it, and for fp16 files where it does not
    multiply float16. Whether signed int8 stays signed depends on the CPU."""
    if {"f16": "FP16", "bf16": "BF16"}.get(hint, "FP32") not in CAPABILITIES:
        hint, numbers = "f32", {"f32"}
    assert hint_of(precision) == hint
    layers = layers_by_number(compile_file(exported / f"{NAME}.{precision}.onnx".replace(".fp32", ""), precision, {}))
    assert max(layers, key=layers.__getitem__) in numbers
    assert sum(layers.values()) == 28  # MobileNet v1's convolutions and its classifier
    assert (len(layers) == 1) == (precision not in ("int8", "int8-fp16"))


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x08", "half", "ends"])
def test_a_file_that_is_damaged_is_named_in_one_line(bundle: Path, capfd: pytest.CaptureFixture[str], content: Any) -> None:
    path = bundle / f"{NAME}.onnx"
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "ends": whole[:-1]}.get(content, content))
    with pytest.raises(BundleError, match=rf"^{NAME}\.onnx: (OpenVINO does not load it|has 0 inputs)") as caught:
        OpenVINORunner(path, "fp32")
    assert "\n" not in str(caught.value) and "Exception from" not in str(caught.value)
    assert capfd.readouterr().err == ""  # what else OpenVINO tries on such a file complains there


def test_what_openvino_does_not_know_is_named(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Unheard", ["x"], ["y"], domain="of")], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("of", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "x.onnx")
    with pytest.raises(BundleError, match=r"does not load it \(No conversion rule found for operations: of\.Unheard\)"):
        OpenVINORunner(tmp_path / "x.onnx", "fp32")


def test_images_of_another_size_are_refused(exported: Path) -> None:
    with open_network(exported, 0.5, backend="openvino") as network, pytest.raises(BundleError) as caught:
        network(images(2, 16))
    assert str(caught.value).startswith(f"{NAME}.onnx: OpenVINO does not run it (") and "16" in str(caught.value)


def test_several_outputs_come_by_name(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("twice", "minus")]
    nodes = [helper.make_node("Add", ["input", "input"], ["twice"]), helper.make_node("Neg", ["input"], ["minus"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], results), opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "x.onnx")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = OpenVINORunner(tmp_path / "x.onnx", "fp32")(rows)
    assert list(given) == ["twice", "minus"]
    assert np.array_equal(given["twice"], 2 * rows) and np.array_equal(given["minus"], -rows)


def test_photographs_are_classified(exported: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    ours, theirs = (predict(exported, [tmp_path / "a.png"], backend=name) for name in ("openvino", "onnxruntime-cpu"))
    assert [one.top[0].number for one in ours] == [one.top[0].number for one in theirs]


def test_without_openvino_one_message_names_its_extra(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome = run("--bundle", exported, "--verify-only", "--backend", "openvino")
    refused(outcome, 3, "openvino is not installed: pip install 'slimmable-deploy[openvino]'")


def test_signals_are_handled_after_networks_whose_lives_overlapped(exported: Path) -> None:
    """With a core for each, the signal would end the process on a CPU with AMX."""
    code = """
import pathlib, signal
from slimexport.target.openvino import OpenVINORunner
path = pathlib.Path(sys.argv[1])
first = OpenVINORunner(path, "fp32")
second = OpenVINORunner(path, "fp32")
first.close()
second.close()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    done = python(code, exported / f"{NAME}.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled\n", "")


def test_an_openvino_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so: cannot open')")
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingBackend, match=r"does not load \(libtbb.so: cannot open\)\. Reinstall openvino"):
        require_openvino()


def test_an_error_without_words_is_its_type() -> None:
    assert reason(KeyError()) == "KeyError"
    assert reason(RuntimeError("Exception from src/a.cpp:1:\nCheck 'x' failed at b.cpp:2:\nit is so\n\n")) == "it is so"


def test_it_opens_other_networks_as_it_opened_its_file(exported: Path) -> None:
    path = exported / f"{NAME}.fp16.onnx"
    runner = OpenVINORunner(path, "fp16")
    assert (runner.input, runner.content, runner.stands_in) == ("input", path.read_bytes(), False)
    other = runner.opened((exported / f"{NAME}.onnx").read_bytes())
    expected = OpenVINORunner(exported / f"{NAME}.onnx", "fp16")
    rows = images(2)
    np.testing.assert_array_equal(other(rows), expected(rows))
    assert other.name == path.name, "what is wrong with a piece is wrong with its file"
