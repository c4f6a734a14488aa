"""The model of a Triton repository that holds several widths: its files byte by byte, its configuration by the strict parser,
which widths it holds, what it replaces, and what is refused."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.target.errors import BundleError
from slimexport.target.manifest import Manifest
from slimexport.target.serving.triton import repository
from slimexport.target.serving.triton.adaptive import copies, write_adaptive
from slimexport.target.serving.triton.repository import write_repository
from slimexport.target.tensors import Result
from slimtrain.base.errors import ResourceError
from tests.support import ROOT
from tests.support.bundle_helpers import artifact, engine, manifest, with_file
from tests.support.export_helpers import tree
from tests.support.failing_moves import fail_at
from tests.support.onnx_outlines import outline
from tests.support.pbtxt import parse
from tests.support.served_widths import CLASSES, NETWORK, SHAPE, bundle_of, onnx_file

THREE = dict.fromkeys((0.25, 0.5, 1.0))
PYTHON = {"model.py", "policy.py", "correcting.py", "requests.py", "scheduling.py", "measuring.py", "widths.py"}
FOR_ENGINES = {"engine.py", "cuda_library.py", "cuda_runtime.py", "errors.py", "base_errors.py"}


def written(tmp_path: Path, manifest: Manifest | None = None, **options: Any) -> dict[str, bytes]:
    """All files of a repository with the model of a bundle (of three widths)."""
    described = manifest or bundle_of(tmp_path / "bundle", THREE)
    assert write_adaptive(tmp_path / "bundle", described, tmp_path / "models", **options) == [NETWORK]
    return tree(tmp_path / "models")


def widths_of(files: dict[str, bytes]) -> list[str]:
    return [entry["label"] for entry in json.loads(files[f"{NETWORK}/1/widths.json"])["widths"]]


# -------------------------------------------------------------------------------------------------------- what is made


def test_a_model_holds_the_files_of_its_widths_and_the_code_that_serves_them(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", {0.25: 0.5, 0.5: 0.75, 1.0: 0.875})
    before = tree(tmp_path / "bundle")
    files = written(tmp_path, manifest, slo_ms=20, policy="slackfit")
    onnx = {f"net_x{name}.onnx": onnx_file(width) for name, width in (("0_25", 0.25), ("0_5", 0.5), ("1", 1.0))}
    assert {name.removeprefix("net/1/"): files[name] for name in files if name.endswith(".onnx")} == onnx
    rest = {name for name in files if not name.endswith(".onnx")}
    assert rest == {"net/config.pbtxt", "net/1/widths.json", *(f"net/1/{name}" for name in PYTHON)}
    stored = json.loads(files["net/1/widths.json"])
    assert stored == {
        "network": "net",
        "slo_ms": 20,
        "policy": "slackfit",
        "widths": [
            {
                "label": label,
                "file": name,
                "sha256": hashlib.sha256(onnx[name]).hexdigest(),
                "macs": macs,
                "accuracy": accuracy,
            }
            for (label, macs, accuracy), name in zip(
                (("0.25", 250, 0.5), ("0.5", 500, 0.75), ("1", 1000, 0.875)), onnx, strict=True
            )
        ],
    }
    assert tree(tmp_path / "bundle") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]
    for name in onnx:
        assert (tmp_path / "bundle" / name).samefile(tmp_path / "models" / "net" / "1" / name), "a hard link"


def test_the_configuration(tmp_path: Path) -> None:
    text = written(tmp_path, slo_ms=12.5, policy="fixed:0.5", max_batch=16)["net/config.pbtxt"].decode("ascii")
    parameters = {"slo_ms": "12.5", "policy": "fixed:0.5", "late": "refuse", "queue": "1000", "threads": "0"}
    assert parse(text) == {
        "name": "net",
        "backend": "python",
        "max_batch_size": 16,
        "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": list(SHAPE)}],
        "output": [
            {"name": "output", "data_type": "TYPE_FP32", "dims": [CLASSES]},
            {"name": "width", "data_type": "TYPE_STRING", "dims": [1]},
        ],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
    }
    assert text.startswith("# written by slimexport")


def test_names_of_classes_are_labels(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    named = replace(manifest, output=replace(manifest.output, class_names=tuple("abcde")))
    files = written(tmp_path, named)
    assert files["net/labels.txt"] == b"a\nb\nc\nd\ne\n"
    assert b'label_filename: "labels.txt"' in files["net/config.pbtxt"]


@pytest.mark.parametrize(("backend", "names"), [("onnxruntime-cpu", PYTHON), ("tensorrt", PYTHON | FOR_ENGINES)])
def test_the_code_is_this_packages_and_needs_none_of_it(backend: str, names: set[str]) -> None:
    """By the syntax trees: what runs when they are imported, or called. Of what stays away from a model on the CPU, the
    engine's part alone is imported, where there is one."""
    serving = ROOT / "slimexport" / "target" / "serving"
    texts = copies(backend)
    assert set(texts) == names
    assert texts["policy.py"] == (serving / "policy.py").read_text(encoding="utf-8")
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "triton_python_backend_utils"}
    for name, text in texts.items():
        tree_ = ast.parse(text)
        for_types = {
            inner
            for node in ast.walk(tree_)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in set(ast.walk(tree_)) - for_types:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and f"{node.module}.py" in texts, f"{name}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom) and node.module == "slimexport.target.serving.triton.engine":
                assert backend == "onnxruntime-cpu" and name == "widths.py", f"{name}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None and node.module.split(".")[0] in allowed, f"{name}:{node.lineno}"
            elif isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, f"{name}:{node.lineno}"


# ------------------------------------------------------------------------------------------------------- which widths


def test_by_default_five_that_are_worth_it_are_held(tmp_path: Path) -> None:
    accuracies = {0.25: 0.5, 0.3: 0.45, 0.35: 0.55, 0.4: 0.6, 0.5: 0.65, 0.6: 0.64, 0.7: 0.7, 0.8: 0.75, 1.0: 0.8}
    labels = widths_of(written(tmp_path, bundle_of(tmp_path / "bundle", accuracies)))
    assert len(labels) == 5 and labels[0] == "0.25" and labels[-1] == "1"
    assert not {"0.3", "0.6"} & set(labels), "one that costs less is better"
    assert labels == sorted(labels, key=float)


def test_without_accuracies_what_costs_more_is_taken_to_be_better(tmp_path: Path) -> None:
    assert widths_of(written(tmp_path)) == ["0.25", "0.5", "1"]


@pytest.mark.parametrize("widths", [[1.0, 0.25], ["0.25", "1"], [0.25, 1.0, 1.0]])
def test_widths_can_be_chosen(tmp_path: Path, widths: list[float | str]) -> None:
    files = written(tmp_path, widths=widths)
    assert widths_of(files) == ["0.25", "1"]
    assert sum(name.endswith(".onnx") for name in files) == 2


def test_files_of_another_precision_can_be_chosen(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    half = with_file(tmp_path / "bundle", artifact("net_x0_5", 0.5, "fp16"), onnx_file(0.5))
    files = written(tmp_path, replace(manifest, artifacts=(*manifest.artifacts, half)), precision="fp16")
    assert widths_of(files) == ["0.5"]


# ----------------------------------------------------------------------------------------------------- beside others


def test_it_is_added_to_a_repository_that_is_there(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    write_repository(tmp_path / "bundle", manifest, tmp_path / "models")
    (tmp_path / "models" / "README").write_text("mine")
    before = tree(tmp_path / "models")
    files = written(tmp_path, manifest)
    assert {name: content for name, content in files.items() if not name.startswith("net/")} == before
    assert "net/config.pbtxt" in files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


def test_one_that_is_there_is_replaced_only_where_asked_for_and_only_our_own(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    before = written(tmp_path, manifest)
    with pytest.raises(
        BundleError, match=r"models/net: exists\. Choose another folder, or replace the model with --overwrite"
    ):
        written(tmp_path, manifest, slo_ms=5)
    assert tree(tmp_path / "models") == before
    after = written(tmp_path, manifest, slo_ms=5, widths=[0.5, 1.0], overwrite=True)
    assert widths_of(after) == ["0.5", "1"] and "net/1/net_x0_25.onnx" not in after
    config = tmp_path / "models" / "net" / "config.pbtxt"
    config.write_text('name: "net"\n')
    before = tree(tmp_path / "models")
    with pytest.raises(BundleError, match="was not written by slimexport"):
        written(tmp_path, manifest, overwrite=True)
    assert tree(tmp_path / "models") == before


def test_one_that_another_process_wrote_meanwhile_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)

    def flush(path: Path) -> None:
        (tmp_path / "models" / "net").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / "net" / "theirs").write_text("theirs")

    monkeypatch.setattr(repository, "_flush", flush)
    with pytest.raises(BundleError, match="models/net: exists"):
        written(tmp_path, manifest)
    assert tree(tmp_path / "models") == {"net/theirs": b"theirs"}


@pytest.mark.parametrize(("swaps", "failing"), [(True, 0), (False, 0), (False, 1)])
@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_an_interrupted_replacement_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, failing: int, error: BaseException
) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    before = written(tmp_path, manifest)
    fail_at(monkeypatch, repository, failing, error, swaps)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError):
        written(tmp_path, manifest, slo_ms=5, overwrite=True)
    assert tree(tmp_path / "models") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flush(path: Path) -> None:
        if path.name == "policy.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    manifest = bundle_of(tmp_path / "bundle", THREE)
    monkeypatch.setattr(repository, "_flush", flush)
    with pytest.raises(ResourceError, match="no space left"):
        written(tmp_path, manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slo_ms": 0.0}, "slo_ms is '0', expected a number of at least 0.001"),
        ({"slo_ms": float("nan")}, "slo_ms is 'nan'"),
        ({"policy": "greedy"}, "policy 'greedy': not known"),
        ({"policy": "fixed:0.5", "widths": [0.25, 1.0]}, "width '0.5' is not open. Open are 0.25, 1"),
        ({"widths": [0.3]}, "holds no width 0.3 in fp32. It has 0.25, 0.5"),
        ({"precision": "fp16"}, "holds no fp16 ONNX file"),
        ({"precision": "int8"}, "int8 files are made for TensorRT"),
        ({"max_batch": 0}, "largest batch 0"),
        ({"backend": "tensorrt"}, "holds no fp32 TensorRT engine"),
        ({"backend": "openvino"}, "backend 'openvino': a model that chooses widths runs on onnxruntime-cpu or tensorrt"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    before = tree(tmp_path)
    with pytest.raises(BundleError) as caught:
        write_adaptive(tmp_path / "bundle", manifest, tmp_path / "new" / "models", **options)
    assert said in str(caught.value) and caught.value.exit_code == 2
    assert tree(tmp_path) == before and not (tmp_path / "new").exists()


def spoiled(bundle: Path, manifest: Manifest, how: str) -> Manifest:
    """A manifest, or a bundle's files, that cannot be served."""
    first, *rest = manifest.artifacts
    if how == "changed":
        (bundle / first.file).write_bytes(onnx_file(0.7))
    elif how == "tensors":
        first = with_file(bundle, first, outline(b"x", gives="logits"))
    elif how == "network":
        return replace(manifest, source=replace(manifest.source, network="../evil"))
    elif how == "name":
        first = replace(first, name='net_a"b')
    elif how == "twins":
        first = replace(first, width=0.5)
    elif how == "width":
        tensor = Result(name="width", shape=("batch", 5), dtype="float32")
        first = with_file(bundle, first, outline(b"x", gives="width"))
        return replace(manifest, outputs=(tensor,), artifacts=(first,))
    elif how == "rows":
        return replace(manifest, outputs=(Result(name="output", shape=("4*batch", 5), dtype="float32"),))
    return replace(manifest, artifacts=(first, *rest))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("changed", "SHA-256"),
        ("tensors", "gives ['logits']"),
        ("network", "'../evil' cannot name a model"),
        ("name", "expected letters, digits and underscores"),
        ("twins", "no width twice"),
        ("width", "has a tensor called 'width'"),
        ("rows", "a row for each image alone"),
    ],
)
def test_a_bundle_that_cannot_be_served_is_refused(tmp_path: Path, how: str, said: str) -> None:
    wrong = spoiled(tmp_path / "bundle", bundle_of(tmp_path / "bundle", THREE), how)
    before = tree(tmp_path)
    with pytest.raises(BundleError) as caught:
        write_adaptive(tmp_path / "bundle", wrong, tmp_path / "models")
    assert said in str(caught.value)
    assert tree(tmp_path) == before and not (tmp_path / "models").exists()


# ------------------------------------------------------------------------------------------------ engines of several builds


def with_engines(folder: Path, *built: dict[str, Any], **changes: Any) -> Manifest:
    """A bundle of an engine of each of these."""
    files = []
    for number, by in enumerate(built, 1):
        described = artifact(f"net_x{number}", number / 4, macs=number, file=f"net_x{number}.plan", format="trt")
        files.append(with_file(folder, replace(described, engine=engine(batch=(1, 8, 16), **by)), b"plan %d" % number))
    return manifest(*files, network=NETWORK, classes=CLASSES, **changes)


OLD, NEW = {"tensorrt": "8.6.1"}, {"tensorrt": "10.3.0"}
COMPATIBLE = {"flags": ("VERSION_COMPATIBLE",)}
INDICES = (Result(name="labels", shape=("batch", 5), dtype="int64"),)


@pytest.mark.parametrize(
    ("built", "outputs", "served"),
    [
        ((NEW, NEW), None, True),
        ((NEW, {"tensorrt": "10.3.0.26"}), None, True),
        ((OLD, NEW), None, False),
        ((OLD | COMPATIBLE, NEW), None, True),  # whose TensorRT runs both
        ((OLD, NEW | COMPATIBLE), None, False),
        ((OLD | COMPATIBLE, NEW), INDICES, False),  # one gives int32, the other int64
        ((OLD, OLD), INDICES, True),
        ((NEW, {"compute_capability": "8.6"}), None, False),
        ((NEW, {"compute_capability": "8.6", "flags": ("AMPERE_PLUS",)}), None, True),
        ((NEW, {"compute_capability": None}), None, True),
    ],
)
def test_engines_are_one_model_where_one_server_runs_them_all(
    tmp_path: Path, built: tuple[dict[str, Any], ...], outputs: tuple[Result, ...] | None, served: bool
) -> None:
    described = with_engines(tmp_path / "bundle", *built, outputs=outputs)
    if served:
        files = written(tmp_path, described, backend="tensorrt")
        kind = b"TYPE_INT32" if built[0]["tensorrt"].startswith("8") else b"TYPE_INT64"
        assert widths_of(files) == ["0.25", "0.5"] and (not outputs or kind in files["net/config.pbtxt"])
        return
    with pytest.raises(BundleError) as caught:
        written(tmp_path, described, backend="tensorrt")
    assert "A model is one server's, which has one TensorRT and one GPU. Name widths of one with" in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_widths_of_one_build_are_served_as_the_message_says(tmp_path: Path) -> None:
    described = with_engines(tmp_path / "bundle", OLD, NEW, NEW, outputs=INDICES)
    with pytest.raises(BundleError) as caught:
        written(tmp_path, described, backend="tensorrt")
    message = "its engines were built by TensorRT 8.6.1 for sm_90: 0.25; TensorRT 10.3.0 for sm_90: 0.5, 0.75."
    assert message in str(caught.value) and caught.value.exit_code == 2
    for widths, kind in ((["0.25"], b"TYPE_INT32"), (["0.5", "0.75"], b"TYPE_INT64")):
        files = written(tmp_path, described, backend="tensorrt", widths=widths, overwrite=True)
        assert widths_of(files) == widths and kind in files["net/config.pbtxt"]


# ------------------------------------------------------------------------------------------------------------- folders


def test_folders_that_can_be_no_repository_are_refused(tmp_path: Path) -> None:
    manifest = bundle_of(tmp_path / "bundle", THREE)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    before = tree(tmp_path)
    for name, part in {"file": "no ordinary folder", "link": "no ordinary folder", "bundle": "the bundle itself"}.items():
        with pytest.raises(BundleError, match=part):
            write_adaptive(tmp_path / "bundle", manifest, tmp_path / name, overwrite=True)
    assert tree(tmp_path) == before
