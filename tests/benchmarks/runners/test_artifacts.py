"""A cell's file is the manifest's, or it is not loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.runners import ort
from slimexport.target import manifest
from slimexport.target.errors import BundleError
from slimtrain.base.files import file_sha256
from tests.support.bench_exports import cpu_cell, opened


def test_a_file_that_is_not_the_manifests_is_never_loaded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cpu_cell(bundle)
    opened(cell, bundle).close()
    (bundle / cell.file).write_bytes((bundle / cell.file).read_bytes() + b"x")
    monkeypatch.setattr(ort, "open_session", lambda *_: pytest.fail("was loaded"))
    with pytest.raises(BundleError, match="SHA-256") as caught:
        opened(cell, bundle)
    assert caught.value.exit_code == 2


def test_a_file_is_read_for_its_sha256_once_until_it_changes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(manifest, "file_sha256", counted)
    cell = cpu_cell(bundle)
    for _ in range(3):
        opened(cell, bundle).close()
    assert len(read) == 1
    changed = (bundle / cell.file).stat().st_mtime_ns + 10**9
    os.utime(bundle / cell.file, ns=(changed, changed))
    opened(cell, bundle).close()
    assert len(read) == 2
    opened(cpu_cell(bundle, "fp16"), bundle).close()
    assert len(read) == 3


def test_a_missing_file_and_an_unknown_one_are_errors_of_the_bundle(bundle: Path) -> None:
    cell = cpu_cell(bundle)
    (bundle / cell.file).unlink()
    with pytest.raises(BundleError, match="not there"):
        opened(cell, bundle)
    with pytest.raises(BundleError, match=r"has no entry for other\.onnx"):
        opened(replace(cell, file="other.onnx"), bundle)
