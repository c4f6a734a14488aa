"""A lock on an open file is one holder's at a time, and tells where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimtrain.base.process.locks import lock, stands_at


def test_a_lock_is_one_open_files_until_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    first, second = (os.open(tmp_path / "a", os.O_WRONLY) for _ in range(2))
    try:
        assert lock(first) is True and lock(first) is True and lock(second) is False
        copy = os.dup(first)
        os.close(first)
        assert lock(second) is False, "a copy holds it still"
        os.close(copy)
        assert lock(second) is True
    finally:
        os.close(second)


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(*_: Any) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    with (tmp_path / "a").open("wb") as file:
        assert lock(file.fileno()) is None


def test_an_open_file_stands_where_it_was_until_it_is_moved_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        assert stands_at(file.fileno(), path)
        path.rename(tmp_path / "b")
        assert not stands_at(file.fileno(), path) and stands_at(file.fileno(), tmp_path / "b")
        path.write_bytes(b"another")
        assert not stands_at(file.fileno(), path)
        path.unlink()
        path.symlink_to(tmp_path / "b")
        assert not stands_at(file.fileno(), path), "a link to it is not the file"
