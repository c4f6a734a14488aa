"""Reading bundles: a manifest of this version, files that are what the manifest says, a reference that can be read."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.errors import BundleError
from slimexport.target.manifest import Accuracy, Int8, Rounding, artifact_path, dump_manifest, read_manifest
from slimexport.target.records import to_json
from slimexport.target.tensors import CHOSEN, ITS_CHOSEN
from slimtrain.base.files import file_sha256
from slimtrain.base.image_size import ImageSize
from tests.support.bundle_helpers import artifact, as_json, engine, manifest, stored_text, write_manifest
from tests.support.onnx_outlines import outline

INT8 = Int8(method="max", images=1, held_back=1, tried={"max": None})


def write(folder: Path, content: Any) -> Path:
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_a_manifest_reads_as_it_was_written(tmp_path: Path) -> None:
    whole = manifest(
        artifact("ü", None, precision="int8", int8=INT8, rounding=Rounding(weights=3, underflow_to_zero=1, subnormal=0)),
        artifact("autoslim_s1", 1, format="trt", engine=engine(), accuracy=Accuracy(top1=1.0, images=3, data="d")),
        rejected=(artifact().rejected(),),
    )
    write_manifest(tmp_path, whole)
    assert read_manifest(tmp_path) == whole
    assert isinstance(read_manifest(tmp_path).artifacts[1].width, int), "a switch's number"


@pytest.mark.parametrize("name", ["exported", "engines"])
def test_what_earlier_versions_wrote_is_written_again_to_the_byte(tmp_path: Path, name: str) -> None:
    """With every kind of entry: skipped, proven by difference and by cosine, rejected, engines, int8."""
    text = stored_text(name)
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    assert dump_manifest(read_manifest(tmp_path)) == text


def test_keys_that_are_not_known_stay_wherever_they_are(tmp_path: Path) -> None:
    content = as_json(artifact(engine=engine()))
    places = [content, content["source"], content["input"], content["output"], content["artifacts"][0]]
    places += [content["artifacts"][0]["verification"], content["artifacts"][0]["engine"]]
    for i, place in enumerate(places):
        place["later"] = {"addition": [i, None]}
    read = read_manifest(write(tmp_path, content))
    assert json.loads(dump_manifest(read)) == content
    changed = read.with_artifact(replace(read.artifacts[0], macs=5))
    assert json.loads(dump_manifest(changed))["artifacts"][0]["later"] == {"addition": [4, None]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_never_written(bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_manifest(manifest(artifact(width=bad)))


def every_key(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key and place in a JSON value."""
    for key, part in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from every_key(part, (*path, key))


def test_a_wrong_type_is_told_with_its_key_wherever_it_is(tmp_path: Path) -> None:
    """Every key of a manifest in turn, as something that no key may be."""
    content = json.loads(stored_text("exported"))
    content["artifacts"][0]["engine"] = to_json(engine())
    places = [path for path in every_key(content) if path[0] != "schema_version"]
    assert len(places) > 150
    for *parents, last in places:
        spoiled = copy.deepcopy(content)
        place = functools.reduce(lambda part, key: part[key], parents, spoiled)
        place[last] = [{}]
        with pytest.raises(BundleError) as caught:
            read_manifest(write(tmp_path, spoiled))
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*parents, last)).lstrip(".")
        assert re.search(rf"manifest\.json: {re.escape(name)}(\[0\])?(\.\w+)* is ", str(caught.value)), str(caught.value)
        assert ", expected " in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("macs", "1", 'artifacts[0].macs is "1", expected a whole number'),
        ("macs", True, "artifacts[0].macs is true, expected a whole number"),
        ("macs", 1.5, "artifacts[0].macs is 1.5, expected a whole number"),
        ("width", "wide", 'artifacts[0].width is "wide", expected a number or null'),
        ("width", float("nan"), "NaN is no number of JSON"),
        ("file", None, "artifacts[0].file is null, expected text"),
        ("channels", {"stem": "8"}, 'artifacts[0].channels.stem is "8", expected a whole number'),
        ("channels", [8], "artifacts[0].channels is [8], expected an object"),
        ("verification", None, "artifacts[0].verification is null, expected an object"),
        ("accuracy", {"top1": 1}, "artifacts[0].accuracy.images is missing, expected a whole number"),
        ("accuracy", {"images": 3, "data": "d"}, "the accuracy of 'net_x0_5.onnx' has no figure, expected top1 or ap"),
        ("name", "x" * 3, ""),
        ("name", ["x" * 300], "expected text"),
    ],
)
def test_what_was_found_and_what_was_expected_is_told(tmp_path: Path, key: str, value: Any, message: str) -> None:
    content = as_json(artifact())
    content["artifacts"][0][key] = value
    write(tmp_path, content)
    if not message:
        assert read_manifest(tmp_path).artifacts[0].name == value
        return
    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mean", [0.5, 0.5], "input.mean has 2 numbers, expected one for each of 3 channels"),
        ("std", [], "input.std has 0 numbers, expected one for each of 3 channels"),
        ("std", [0.2, 0.0, 0.2], "input.std is [0.2, 0.0, 0.2], expected numbers above 0"),
        ("std", [-0.2, 0.2, 0.2], "expected numbers above 0"),
    ],
)
def test_a_normalization_that_no_image_can_have_is_told(tmp_path: Path, key: str, values: list[float], message: str) -> None:
    """Images would be normalized wrongly, and the accuracy measured on them would be another network's."""
    content = as_json(artifact())
    content["input"][key] = values
    write(tmp_path, content)
    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value) and caught.value.exit_code == 2


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    required = [*as_json(), *as_json(artifact())["artifacts"][0]]
    for key in required:
        content = as_json(artifact())
        place = content if key in content else content["artifacts"][0]
        del place[key]
        with pytest.raises(BundleError, match=rf"{key} is missing, expected|schema version None"):
            read_manifest(write(tmp_path, content))


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BundleError, match=r"holds no manifest\.json") as error:
            read_manifest(folder)
        assert error.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"nonsense"])
def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"schema_version": 2, "artifacts": []},
        {"schema_version": "1", "artifacts": []},
        {"artifacts": []},
        {**as_json(), "artifacts": {}},
        {**as_json(), "schema_version": True},
        [],
        None,
        1,
    ],
)
def test_another_schema_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BundleError, match=r"schema version|artifacts"):
        read_manifest(write(tmp_path, content))


def test_a_file_is_handed_out_only_if_it_is_the_one_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(outline(b"content"))
    described = artifact(file="x.onnx", sha256=hashlib.sha256(outline(b"content")).hexdigest())
    assert artifact_path(tmp_path, described) == tmp_path / "x.onnx"
    (tmp_path / "x.onnx").write_bytes(outline(b"contenT"))
    with pytest.raises(BundleError, match=r"SHA-256 is .* says .* changed or"):
        artifact_path(tmp_path, described)
    with pytest.raises(BundleError, match=r"has no SHA-256 of x\.onnx"):
        artifact_path(tmp_path, replace(described, sha256=None))
    (tmp_path / "x.onnx").unlink()
    for name in ("x.onnx", "\u00e9" * 150):  # which no file can be called
        with pytest.raises(BundleError, match="not there"):
            artifact_path(tmp_path, replace(described, file=name))


def test_a_file_that_is_larger_by_far_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.onnx").open("wb") as file:
        file.truncate(3 << 30)
    monkeypatch.setattr("slimexport.target.manifest.file_sha256", lambda path: pytest.fail("was read"))
    with pytest.raises(BundleError, match=r"is of 3,221,225,472 bytes, manifest\.json says 10"):
        artifact_path(tmp_path, artifact(file="x.onnx"))


@pytest.mark.parametrize("name", ["../x.onnx", "/etc/passwd", "sub/x.onnx", "", ".", ".."])
def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "bundle" / "sub").mkdir(parents=True)
    for path in (tmp_path / "x.onnx", tmp_path / "bundle" / "sub" / "x.onnx"):
        path.write_bytes(b"content")
    described = artifact(file=name, sha256=hashlib.sha256(b"content").hexdigest())
    with pytest.raises(BundleError):
        artifact_path(tmp_path / "bundle", described)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (("artifacts", 0, "macs"), -1, "macs is -1, expected a number from 0 to"),
        (
            ("artifacts", 0, "params"),
            10**18,
            "params is 1000000000000000000, expected a number from 0 to 1,000,000,000,000,000",
        ),
        (("artifacts", 0, "width"), 1e308, "width is 1e+308, expected a number from 0 to 1,000,000"),
        (("artifacts", 0, "name"), "n" * 100_000, "of 100,000 letters, expected from 1 to 200"),
        (("artifacts", 0, "verification", "reason"), "n" * 100_000, "of 100,000 letters, expected from 0 to 10,000"),
        (("artifacts", 0, "channels"), {"c" * 100_000: 1}, "channels has a key of 100,000 letters"),
        (("input", "image_size"), 10**9, "expected at most 67,108,864"),
        (("input", "image_size"), [10**9, 1], "expected at most 67,108,864"),
        (("output", "classes"), 10**12, "classes is 1000000000000, expected a number from 0 to"),
        (
            ("outputs",),
            [{"name": "output", "shape": ["batch", 10**9, 10**9], "dtype": "float32"}],
            "expected at most 268,435,456",
        ),
        (
            ("outputs",),
            [{"name": "output", "shape": ["batch", *[1] * 64], "dtype": "float32"}],
            "expected [batch, sizes above 0]",
        ),
        (("artifacts", 1), None, "'net_x0_5.onnx' is there twice among the artifacts"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, at: tuple[Any, ...], value: Any, said: str) -> None:
    content = as_json(artifact())
    if at == ("artifacts", 1):
        content["artifacts"].append(content["artifacts"][0])
    else:
        part = functools.reduce(lambda inner, key: inner[key], at[:-1], content)
        part[at[-1]] = value
    with pytest.raises(BundleError) as caught:
        read_manifest(write(tmp_path, content))
    assert said in str(caught.value) and len(str(caught.value)) < 350


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9" * 5000, "out of range"),
        ("[" * 200_000, "nested deeper"),
        ("[" * 3000 + "]" * 3000, "nested deeper"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested deeper"),
        ('"\\ud800"', "half a letter"),
        ("1e999", "out of range"),
    ],
)
def test_json_that_no_version_wrote_is_refused(tmp_path: Path, value: str, said: str) -> None:
    text = json.dumps({**as_json(artifact()), "extra": "HERE"}).replace('"HERE"', value)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=said) as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 350


def test_names_of_classes_are_one_for_each(tmp_path: Path) -> None:
    whole = manifest(artifact(), classes=2)
    assert whole.output.class_names is None and "class_names" not in dump_manifest(whole)  # as earlier versions wrote it
    named = replace(whole, output=replace(whole.output, class_names=("cat", "dog")))
    write_manifest(tmp_path, named)
    assert read_manifest(tmp_path).output.class_names == ("cat", "dog")
    write_manifest(tmp_path, replace(whole, output=replace(whole.output, class_names=("cat",))))
    with pytest.raises(BundleError, match=r"output\.class_names has 1 names, expected one for each of 2"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("stored", "size"), [([48, 32], (48, 32)), (48, 48), ([48, 48], 48)])
def test_the_size_of_images_is_a_number_or_two(tmp_path: Path, stored: object, size: ImageSize) -> None:
    content = as_json(artifact())
    content["input"]["image_size"] = stored
    entry = read_manifest(write(tmp_path, content)).input
    assert entry.image_size == size and to_json(entry)["image_size"] == (list(size) if isinstance(size, tuple) else size)


@pytest.mark.parametrize("stored", ["48x32", [48], [48, 32, 3], [48, "32"], [48, 32.0], None, True, {"height": 48}])
def test_other_sizes_are_damage(tmp_path: Path, stored: object) -> None:
    content = as_json(artifact())
    content["input"]["image_size"] = stored
    with pytest.raises(BundleError, match=r"input\.image_size(\[\d\])? is .*, expected a (whole number|list of 2)"):
        read_manifest(write(tmp_path, content))


@pytest.mark.parametrize("names", [["output", "output"], ["other"], ["output", "input"]])
def test_outputs_have_names_of_their_own(tmp_path: Path, names: list[str]) -> None:
    content = as_json(artifact())
    outputs = [{"name": name, "shape": ["batch", 5], "dtype": "float32"} for name in ("output", "edges")]
    write(tmp_path, {**content, "outputs": outputs})
    assert [result.name for result in read_manifest(tmp_path).results] == ["output", "edges"]
    wrong = [{**outputs[0], "name": name} for name in names]
    with pytest.raises(BundleError, match="outputs are called"):
        read_manifest(write(tmp_path, {**content, "outputs": wrong}))


@pytest.mark.parametrize(("nms", "names"), [("fixed", CHOSEN), ("onnx", CHOSEN), ("trt", ITS_CHOSEN)])
def test_a_detectors_outputs_are_what_its_suppression_gives(tmp_path: Path, nms: str, names: tuple[str, ...]) -> None:
    box = {"score": 0.05, "nms": 0.5, "detections": 3}
    detector = {"kind": "faster_rcnn", "classes": 2, "box": box, "nms": nms, "slim": "all"}
    outputs = [{"name": name, "shape": ["batch", 3], "dtype": "float32"} for name in names]
    content = as_json(artifact())
    content |= {"detector": detector, "outputs": outputs, "output": {**content["output"], "name": names[0]}}
    assert read_manifest(write(tmp_path, content)).detector is not None
    for place, name in enumerate(names[1:], start=1):
        renamed = [*outputs[:place], {**outputs[place], "name": "other"}, *outputs[place + 1 :]]
        with pytest.raises(BundleError, match=f"expected {name} of a detector, too"):
            read_manifest(write(tmp_path, {**content, "outputs": renamed}))
    raw = {**detector, "nms": "none"}
    other = [outputs[0], {**outputs[1], "name": "numbers"}]
    assert len(read_manifest(write(tmp_path, {**content, "detector": raw, "outputs": other})).results) == 2
