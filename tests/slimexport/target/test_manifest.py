"""Reading bundles: a manifest of this version, files that are what the manifest says, a reference that can be read."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.errors import BundleError
from slimexport.target.manifest import artifact_path, dump_manifest, read_manifest, read_reference
from slimtrain.base.files import file_sha256


def write(folder: Path, manifest: Any) -> Path:
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_a_manifest_reads_as_it_was_written_and_unknown_keys_stay(tmp_path: Path) -> None:
    manifest = {"schema_version": 1, "artifacts": [{"name": "ü"}], "later": {"addition": [1.5, None]}}
    (tmp_path / "manifest.json").write_text(dump_manifest(manifest), encoding="utf-8")
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_never_written(bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_manifest({"x": bad})


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
    "manifest",
    [
        {"schema_version": 2, "artifacts": []},
        {"schema_version": "1", "artifacts": []},
        {"artifacts": []},
        {"schema_version": 1},
        {"schema_version": 1, "artifacts": {}},
        [],
        None,
        1,
    ],
)
def test_another_schema_is_refused(tmp_path: Path, manifest: Any) -> None:
    with pytest.raises(BundleError, match=r"schema version|artifacts"):
        read_manifest(write(tmp_path, manifest))


def test_a_file_is_handed_out_only_if_it_is_the_one_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"content")
    artifact = {"file": "x.onnx", "sha256": hashlib.sha256(b"content").hexdigest()}
    assert artifact_path(tmp_path, artifact) == tmp_path / "x.onnx"
    (tmp_path / "x.onnx").write_bytes(b"contenT")
    with pytest.raises(BundleError, match=r"SHA-256 is .* says .* changed or"):
        artifact_path(tmp_path, artifact)
    (tmp_path / "x.onnx").unlink()
    with pytest.raises(BundleError, match="not there"):
        artifact_path(tmp_path, artifact)


@pytest.mark.parametrize("name", ["../x.onnx", "/etc/passwd", "sub/x.onnx", "", ".", ".."])
def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "bundle" / "sub").mkdir(parents=True)
    for path in (tmp_path / "x.onnx", tmp_path / "bundle" / "sub" / "x.onnx"):
        path.write_bytes(b"content")
    artifact = {"file": name, "sha256": hashlib.sha256(b"content").hexdigest()}
    with pytest.raises(BundleError):
        artifact_path(tmp_path / "bundle", artifact)


def test_a_reference_reads_as_it_was_written(tmp_path: Path) -> None:
    images, logits = np.zeros((2, 3, 4, 4), np.float32), np.ones((2, 5))
    np.savez(tmp_path / "reference.npz", images=images, logits_x0_5=logits)
    found = read_reference(tmp_path)
    assert sorted(found) == ["images", "logits_x0_5"]
    assert found["images"].dtype == np.float32 and found["logits_x0_5"].dtype == np.float64


def whole_reference() -> bytes:
    with io.BytesIO() as buffer:
        np.savez(buffer, images=np.arange(3000.0))
        return buffer.getvalue()


def pickled_reference() -> bytes:
    with io.BytesIO() as buffer:
        np.savez(buffer, images=np.array([{"a": 1}], object))
        return buffer.getvalue()


def flipped_reference() -> bytes:
    content = bytearray(whole_reference())
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", whole_reference()[:-50], whole_reference()[:100], flipped_reference(), pickled_reference()],
    ids=["empty", "text", "cut at the end", "cut early", "one bit changed", "pickled objects"],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "reference.npz").write_bytes(content)
    with pytest.raises(BundleError, match=r"reference\.npz"):
        read_reference(tmp_path)


def test_a_missing_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nothing can be verified"):
        read_reference(tmp_path)
