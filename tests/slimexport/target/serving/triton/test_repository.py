"""The Triton model repository: config.pbtxt read by a strict parser of protobuf's text format, against the fields and types
of model_config.proto; files byte by byte; and what is refused."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest, read_manifest
from slimexport.target.records import to_json
from slimexport.target.serving.triton import repository
from slimexport.target.serving.triton.repository import write_repository
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimtrain.base.errors import ResourceError, UserError
from tests.support.bundle_helpers import artifact, with_file
from tests.support.bundle_helpers import engine as some_engine
from tests.support.bundle_helpers import manifest as some_manifest
from tests.support.export_helpers import tree
from tests.support.failing_moves import fail_at
from tests.support.onnx_outlines import outline
from tests.support.pbtxt import parse


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_batch_size", "max_batch"),
        ("max_batch_size: 32", 'max_batch_size: "32"'),
        ("max_batch_size: 32", "max_batch_size: 32 max_batch_size: 32"),
        ("max_batch_size: 32", "max_batch_size 32"),
        ("TYPE_FP32", '"TYPE_FP32"'),
        ("TYPE_FP32", "FP32"),
        ("random_data: true", "random_data: 1"),
        ("random_data: true", "random_data: true zero_data: true"),
        ('backend: "onnxruntime"', 'backend: "onnxruntime" platform: "onnxruntime_onnx"'),
        ("dims: [ 10 ]", "dims: [ 10, ]"),
        ("dims: [ 10 ]", "dims: [ 10 20 ]"),
        ("dims: [ 10 ]", ""),
        ("model_warmup {", "model_warmup {{"),
        ("model_warmup {", "model_warmup [ {"),
        ('name: "batch_1"', "name: 'batch_1"),
    ],
)
def test_the_parser_of_these_tests_refuses_what_protobuf_refuses(tmp_path: Path, old: str, new: str) -> None:
    text = written(tmp_path)["net_x0_5/config.pbtxt"].decode()
    parse(text)
    assert old in text
    with pytest.raises((ValueError, KeyError)):
        parse(text.replace(old, new, 1))


# ----------------------------------------------------------------------------------------------------------- a bundle


def entry(bundle: Path, name: str = "net_x0_5", precision: str = "fp32", **changes: Any) -> Artifact:
    """An artifact with a file of some content."""
    return with_file(bundle, artifact(name, precision=precision, **changes))


def engine(bundle: Path, precision: str = "fp32", batch: tuple[int, int, int] = (1, 4, 16)) -> Artifact:
    return entry(bundle, precision=precision, format="trt", engine=some_engine(batch=batch))


def manifest(*artifacts: Artifact) -> Manifest:
    return some_manifest(*artifacts, image_size=48, classes=10)


def written(tmp_path: Path, *artifacts: Artifact, **options: Any) -> dict[str, bytes]:
    """All files of the repository of some artifacts (one fp32 ONNX file)."""
    bundle = tmp_path / "bundle"
    write_repository(bundle, manifest(*(artifacts or [entry(bundle)])), tmp_path / "models", **options)
    return tree(tmp_path / "models")


def config(files: dict[str, bytes], model: str) -> dict[str, Any]:
    return parse(files[f"{model}/config.pbtxt"].decode("ascii"))


# -------------------------------------------------------------------------------------------------------- what is made


def test_one_model_per_width_format_and_precision_with_the_artifacts_bytes(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    artifacts = {
        "net_x0_5": entry(bundle),
        "net_x1_0": entry(bundle, name="net_x1_0"),
        "net_x0_5_fp16": entry(bundle, precision="fp16"),
        "net_x0_5_int8_cpu": entry(bundle, precision="int8-cpu"),
        "net_x0_5_trt": engine(bundle),
        "net_x0_5_tf32_trt": engine(bundle, "tf32"),
        "net_x0_5_bf16_trt": engine(bundle, "bf16"),
    }
    before = tree(bundle)
    names = write_repository(bundle, manifest(*artifacts.values()), tmp_path / "models")
    assert names == list(artifacts)
    files = tree(tmp_path / "models")
    expected = {}
    for name, served in artifacts.items():
        model = "model.onnx" if served.format == "onnx" else "model.plan"
        expected[f"{name}/1/{model}"] = before[served.file]
        assert config(files, name)["name"] == name, "Triton wants the folder's name"
    assert {name: content for name, content in files.items() if not name.endswith("config.pbtxt")} == expected
    assert len(files) == 2 * len(artifacts)
    assert tree(bundle) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


def test_the_configuration_of_an_onnx_file(tmp_path: Path) -> None:
    images = {"data_type": "TYPE_FP32", "dims": [3, 48, 48]}
    warm = {"inputs": [{"key": "input", "value": {**images, "random_data": True}}]}
    assert config(written(tmp_path), "net_x0_5") == {
        "name": "net_x0_5",
        "backend": "onnxruntime",
        "max_batch_size": 32,
        "input": [{"name": "input", **images}],
        "output": [{"name": "output", "data_type": "TYPE_FP32", "dims": [10]}],
        "dynamic_batching": {"preferred_batch_size": [8, 32]},
        "model_warmup": [{"name": f"batch_{batch}", "batch_size": batch, **warm} for batch in (1, 32)],
    }


def test_the_configuration_of_an_engine(tmp_path: Path) -> None:
    written_config = config(written(tmp_path, engine(tmp_path / "bundle", "fp16"), max_batch=64), "net_x0_5_fp16_trt")
    assert written_config["platform"] == "tensorrt_plan" and "backend" not in written_config
    assert written_config["max_batch_size"] == 16, "the profile's, whatever ONNX files get"
    assert written_config["dynamic_batching"] == {"preferred_batch_size": [4, 16]}
    assert written_config["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    assert [warm["batch_size"] for warm in written_config["model_warmup"]] == [1, 16]
    assert {tensor["data_type"] for tensor in (*written_config["input"], *written_config["output"])} == {"TYPE_FP32"}


@pytest.mark.parametrize(
    ("batch", "preferred", "warm"),
    [
        ((1, 1, 1), None, [1]),
        ((1, 8, 8), [8], [1, 8]),
        ((1, 1, 8), [8], [1, 8]),
        ((4, 4, 4), [4], [4]),
        ((2, 3, 5), [3, 5], [2, 5]),
        (BuildSettings().as_dict()["batch"], [8, 32], [1, 32]),
    ],
)
def test_the_batches_of_a_profile(tmp_path: Path, batch: Any, preferred: list[int] | None, warm: list[int]) -> None:
    written_config = config(written(tmp_path, engine(tmp_path / "bundle", batch=batch)), "net_x0_5_trt")
    assert written_config["max_batch_size"] == warm[-1]
    assert written_config.get("dynamic_batching") == (preferred and {"preferred_batch_size": preferred})
    assert [entry["batch_size"] for entry in written_config["model_warmup"]] == warm


@pytest.mark.parametrize(("max_batch", "preferred"), [(1, None), (4, [4]), (8, [8]), (100, [8, 100])])
def test_the_largest_batch_of_onnx_files_can_be_chosen(tmp_path: Path, max_batch: int, preferred: list[int] | None) -> None:
    written_config = config(written(tmp_path, max_batch=max_batch), "net_x0_5")
    assert written_config["max_batch_size"] == max_batch
    assert written_config.get("dynamic_batching") == (preferred and {"preferred_batch_size": preferred})
    assert [entry["batch_size"] for entry in written_config["model_warmup"]] == sorted({1, max_batch})


def test_files_are_links_where_links_can_be_made_and_copies_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    source = tmp_path / "bundle" / "net_x0_5.onnx"
    assert source.samefile(tmp_path / "models" / "net_x0_5" / "1" / "model.onnx")

    def no_link(*args: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    write_repository(tmp_path / "bundle", manifest(entry(tmp_path / "bundle")), tmp_path / "copied")
    copied = tmp_path / "copied" / "net_x0_5" / "1" / "model.onnx"
    assert not source.samefile(copied) and source.read_bytes() == copied.read_bytes()


def test_a_file_that_is_a_symbolic_link_is_served_as_what_it_points_to(tmp_path: Path) -> None:
    linked = entry(tmp_path / "bundle")
    file = tmp_path / "bundle" / linked.file
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    written(tmp_path, linked)
    served = tmp_path / "models" / "net_x0_5" / "1" / "model.onnx"
    assert not served.is_symlink() and served.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "int8", "int8-fp16"])
def test_what_onnxruntime_cannot_run_or_runs_wrongly_or_slower_than_fp32_is_left_out(
    precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tmp_path / "bundle"
    with caplog.at_level(logging.WARNING):
        files = written(tmp_path, entry(bundle, precision=precision), entry(bundle))
    assert {name.split("/")[0] for name in files} == {"net_x0_5"}
    assert f"net_x0_5: the {precision} file is made for TensorRT" in caplog.text
    with pytest.raises(BundleError, match="no file that Triton could serve"):
        write_repository(bundle, manifest(entry(bundle, precision=precision)), tmp_path / "other")


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(tmp_path: Path, wrong: Manifest, *parts: str, **options: Any) -> None:
    """Refused with these words, and nothing stays."""
    before = tree(tmp_path)
    with pytest.raises(BundleError) as caught:
        write_repository(tmp_path / "bundle", wrong, tmp_path / "new" / "models", **options)
    for part in parts:
        assert part in str(caught.value), caught.value
    assert tree(tmp_path) == before
    assert not list(tmp_path.glob("new/.*"))


def test_changed_and_missing_files_are_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    artifacts = [entry(bundle), engine(bundle)]
    (bundle / artifacts[1].file).write_bytes(b"another engine")
    refused(tmp_path, manifest(*artifacts), "net_x0_5.plan", "SHA-256")
    (bundle / artifacts[1].file).unlink()
    refused(tmp_path, manifest(*artifacts), "net_x0_5.plan", "not there")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("max_batch", [0, -1])
def test_an_impossible_batch_is_refused(tmp_path: Path, max_batch: int) -> None:
    refused(tmp_path, manifest(entry(tmp_path / "bundle")), f"largest batch {max_batch}", max_batch=max_batch)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"name": "../evil"}, ("'../evil_trt' cannot name a model",)),
        ({"name": 'a"b'}, ("cannot name a model",)),
        ({"name": "a\nb"}, ("cannot name a model",)),
        ({"name": ""}, ("cannot name", "export again")),
        ({"file": "../x.plan"}, ("in the bundle's own folder",)),
        ({"sha256": None}, ("no SHA-256 of net_x0_5.plan",)),
        ({"format": "torch"}, ("'torch'", "onnx, trt")),
        ({"engine": None}, ("net_x0_5_trt", "engine is null")),
        ({"engine": some_engine(batch=(0, 8, 32))}, ("0:8:32", "in order")),
        ({"engine": some_engine(batch=(1, 64, 32))}, ("1:64:32", "in order")),
    ],
)
def test_an_entry_that_cannot_be_served_is_refused(tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(tmp_path, manifest(replace(engine(tmp_path / "bundle"), **change)), *parts)


@pytest.mark.parametrize(
    ("batch", "part"),
    [
        ([1, 8], "engine.batch is [1, 8], expected a list of 3"),
        ([1, 8, "x"], 'engine.batch[2] is "x", expected a whole number'),
        ({"min": 1, "max": 2}, "expected a list of 3"),
    ],
)
def test_a_damaged_profile_is_told_when_the_manifest_is_read(tmp_path: Path, batch: Any, part: str) -> None:
    content = to_json(manifest(engine(tmp_path)))
    content["artifacts"][0]["engine"]["batch"] = batch
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert part in str(caught.value)


def test_a_manifest_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    whole = manifest(entry(tmp_path / "bundle"))
    refused(tmp_path, replace(whole, input=replace(whole.input, image_size=0)), "0 pixels")
    refused(tmp_path, replace(whole, input=replace(whole.input, name='in"put')), "no names of tensors")
    refused(tmp_path, replace(whole, output=replace(whole.output, classes=0)), "0 classes")
    refused(tmp_path, manifest(), "no file that Triton could serve")


@pytest.mark.parametrize(
    ("takes", "gives", "said"),
    [
        ("images", "output", ("takes ['images']", "says ['input']")),
        ("input", "logits", ("gives ['logits']", "and ['output']")),
    ],
)
def test_a_file_whose_tensors_are_called_otherwise_is_refused(
    tmp_path: Path, takes: str, gives: str, said: tuple[str, ...]
) -> None:
    other = with_file(tmp_path / "bundle", artifact("net_x0_5"), outline(b"content", takes, gives))
    refused(tmp_path, manifest(other), "net_x0_5.onnx", *said)


def test_two_artifacts_of_one_name_are_refused(tmp_path: Path) -> None:
    twin = entry(tmp_path / "bundle")
    refused(tmp_path, manifest(twin, twin), "'net_x0_5' cannot name a model", "no two the same")


# ------------------------------------------------------------------------------------------ folders that are there


def test_a_folder_that_exists_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    before = written(tmp_path)
    for options in ({}, {"max_batch": 4}):
        with pytest.raises(BundleError, match=r"exists\. Choose another folder, or replace its models with --overwrite"):
            written(tmp_path, **options)
    assert tree(tmp_path / "models") == before


def test_files_links_and_the_bundle_itself_are_refused_even_to_overwrite(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    described = manifest(entry(bundle))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(bundle)
    before = tree(tmp_path)
    for name, part in {"file": "no ordinary folder", "link": "no ordinary folder", "bundle": "the bundle itself"}.items():
        with pytest.raises(BundleError, match=part):
            write_repository(bundle, described, tmp_path / name, overwrite=True)
    assert tree(tmp_path) == before


def test_overwriting_replaces_what_was_written_here_and_keeps_the_models_of_others(tmp_path: Path) -> None:
    bundle, models = tmp_path / "bundle", tmp_path / "models"
    written(tmp_path, entry(bundle, name="old"), entry(bundle))
    for name in ("theirs", "net_x0_5_trt", "old_too"):
        shutil.copytree(models / "net_x0_5", models / name)
        (models / name / "config.pbtxt").write_text(f'name: "{name}"\n')
    (models / "old_too" / "config.pbtxt").unlink()
    (models / "README").write_text("mine")
    before = tree(models)
    after = written(tmp_path, entry(bundle), engine(bundle), overwrite=True, max_batch=4)
    assert {name.split("/")[0] for name in after} == {"net_x0_5", "net_x0_5_trt", "theirs", "old_too", "README"}
    for name, content in before.items():
        if name.split("/")[0] in ("theirs", "old_too", "README"):
            assert after[name] == content
    assert config(after, "net_x0_5")["max_batch_size"] == 4
    assert "net_x0_5_trt/1/model.onnx" not in after, "a model of this name is replaced as a whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs there")
def test_no_model_of_others_is_waited_for(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "models" / "theirs").mkdir()
    os.mkfifo(tmp_path / "models" / "theirs" / "config.pbtxt")
    write_repository(tmp_path / "bundle", manifest(entry(tmp_path / "bundle")), tmp_path / "models", overwrite=True)
    assert (tmp_path / "models" / "theirs" / "config.pbtxt").is_fifo()


def test_a_new_repository_may_be_made_with_overwrite(tmp_path: Path) -> None:
    assert set(written(tmp_path, overwrite=True)) == {"net_x0_5/config.pbtxt", "net_x0_5/1/model.onnx"}


@pytest.mark.parametrize(("swaps", "failing"), [*((True, i) for i in range(3)), *((False, i) for i in range(4))])
@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_an_interrupted_replacement_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, failing: int, error: BaseException
) -> None:
    bundle = tmp_path / "bundle"
    before = written(tmp_path, entry(bundle, name="old"), entry(bundle))
    artifacts = [entry(bundle), entry(bundle, name="new")]
    fail_at(monkeypatch, repository, failing, error, swaps)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
        written(tmp_path, *artifacts, overwrite=True)
    assert tree(tmp_path / "models") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


@pytest.mark.parametrize(
    ("number", "expected", "code", "part"),
    [(errno.ENOSPC, ResourceError, 3, "no space left"), (errno.EROFS, UserError, 2, "Read-only file system")],
)
def test_a_failure_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception], code: int, part: str
) -> None:
    bundle = tmp_path / "bundle"
    artifacts = [entry(bundle), entry(bundle, name="second")]

    def flush(path: Path) -> None:
        if "second" in str(path):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(repository, "_flush", flush)
    with pytest.raises(expected) as caught:
        written(tmp_path, *artifacts)
    assert part in str(caught.value) and caught.value.exit_code == code  # type: ignore[attr-defined]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_repository_made_by_another_process_meanwhile_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "theirs").write_text("theirs")

    monkeypatch.setattr(repository, "_flush", flush)
    with pytest.raises(BundleError, match="made by another process"):
        written(tmp_path)
    assert tree(tmp_path / "models") == {"theirs": b"theirs"}


def test_what_a_killed_process_left_does_not_matter(tmp_path: Path) -> None:
    left = tmp_path / f".models.partial-{os.getpid()}"
    (left / "half").mkdir(parents=True)
    assert set(written(tmp_path)) == {"net_x0_5/config.pbtxt", "net_x0_5/1/model.onnx"}
    assert not left.exists()


def test_a_refused_one_settles_what_a_killed_process_left(tmp_path: Path) -> None:
    before = written(tmp_path)
    (tmp_path / ".models.partial-1" / "half").mkdir(parents=True)
    (tmp_path / ".models.lock").write_text("1")
    with pytest.raises(BundleError, match=r"models: exists\."):
        written(tmp_path)
    assert tree(tmp_path / "models") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


def test_a_model_that_made_room_as_a_process_was_killed_comes_back(tmp_path: Path) -> None:
    """On a system that swaps no names."""
    before = written(tmp_path)
    aside = tmp_path / ".models.partial-1" / ".old"
    aside.mkdir(parents=True)
    (tmp_path / "models" / "net_x0_5").rename(aside / "net_x0_5")
    with pytest.raises(BundleError, match=r"models: exists\."):
        written(tmp_path)
    assert tree(tmp_path / "models") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]
