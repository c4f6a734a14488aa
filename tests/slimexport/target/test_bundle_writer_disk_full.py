"""A bundle on a disk that is full: an error of the environment, and no trace of what was begun."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimexport.target.bundle_writer import BundleWriter
from slimtrain.base.errors import ResourceError, UserError
from tests.support.export_helpers import bundle, fill, tree


def full_disk(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ResourceError, match="no space left") as error, BundleWriter(tmp_path / "a" / "b") as writer:
        fill(writer, "x.onnx")
    assert error.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_replacing_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle(tmp_path / "b", "x.onnx")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ResourceError), BundleWriter(tmp_path / "b", overwrite=True) as writer:
        fill(writer, "x.onnx")
    assert tree(tmp_path / "b") == before
    assert hidden(tmp_path) == []


def test_a_disk_without_room_for_a_folder_is_full_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", full_disk)
    with pytest.raises(ResourceError), BundleWriter(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 << 20))
    with BundleWriter(tmp_path / "b") as writer:
        writer.check_space(5 << 20)  # exactly fits
        with pytest.raises(ResourceError, match="10 MiB are needed, 5 MiB are free"):
            writer.check_space(10 << 20)
    assert list(tmp_path.iterdir()) == []


def test_other_failures_of_writing_are_bad_input_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="Read-only file system") as error, BundleWriter(tmp_path / "b") as writer:
        fill(writer, "x.onnx")
    assert error.value.exit_code == 2
