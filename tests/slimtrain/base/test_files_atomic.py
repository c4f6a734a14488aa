"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.files import RUN, remove_partials, write_atomically
from tests.support.run_helpers import tree


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"first")
    write_atomically(tmp_path / "a" / "b" / "file", memoryview(b"second"))
    assert tree(tmp_path) == {"a/b/file": b"second"}


class Stopped(BaseException):
    """As Ctrl-C is: no Exception."""


@pytest.mark.parametrize("place", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError, "no space left on its disk.*untouched"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ResourceError, "no space left"),
        (OSError(errno.EROFS, "Read-only file system"), UserError, "cannot be written .Read-only file system"),
        (Stopped("now"), Stopped, "now"),
    ],
    ids=["full", "quota", "read-only", "interrupted"],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
    expected: type[BaseException],
    words: str,
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise error

    write_atomically(tmp_path / "last.pt", b"old")
    monkeypatch.setattr(os, place, fail)
    with pytest.raises(expected, match=words) as caught:
        write_atomically(tmp_path / "last.pt", b"new", RUN)
    assert type(caught.value) is expected
    assert tree(tmp_path) == {"last.pt": b"old"}


def test_a_disk_that_fills_up_in_the_middle_of_the_bytes(tmp_path: Path) -> None:
    """/dev/full takes no byte; a link in the partial file's place leads there."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    write_atomically(tmp_path / "last.pt", b"old")
    (tmp_path / f".last.pt.partial-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="MiB are needed"):
        write_atomically(tmp_path / "last.pt", b"n" * 2**20)
    assert tree(tmp_path) == {"last.pt": b"old"}
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("inner", ["last.pt", "deeper/last.pt"])
def test_a_folder_that_is_a_file_is_bad_input(tmp_path: Path, inner: str) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot be written") as caught:
        write_atomically(tmp_path / "runs" / inner, b"new")
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == {"runs": b"a file"}


def test_a_folder_in_the_files_place_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "last.pt", b"new", RUN)
    assert os.listdir(tmp_path) == ["last.pt"]


def test_what_a_killed_run_had_begun_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.pt.partial-17", ".best.pt.partial-4", "last.pt", ".hidden", "x.partial-1"):
        (tmp_path / name).write_text("x")
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "last.pt", "x.partial-1"]
    remove_partials(tmp_path / "nowhere")
