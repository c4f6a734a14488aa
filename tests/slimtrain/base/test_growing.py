"""Files that grow while something is measured, on disks with and without room."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.growing import GrowingFile


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file that this process writes in the block gets larger than that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_is_there_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with GrowingFile(path) as file:
        file.write("caf\u00e9\n")
        assert path.read_text(encoding="utf-8") == "caf\u00e9\n"
        file.write("2\n")
    assert path.read_text(encoding="utf-8") == "caf\u00e9\n2\n"


def test_what_does_not_fit_is_told_once_and_closing_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with pytest.raises(UserError, match="cannot be written"), little_room(10), GrowingFile(path) as file:
        file.write("12345678\n" * 2)
    assert path.read_text()[:9] == "12345678\n" and len(path.read_text()) == 10


@pytest.mark.parametrize("bytes_before", [0, 3, 9])
def test_a_line_that_ctrl_c_comes_into_is_whole_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_before: int
) -> None:
    class Interrupted:
        """Ctrl-C once so many bytes are the system's, which the caller is never told."""

        def __init__(self, file: FileIO) -> None:
            self.file, self.fileno, self.close, self.calls = file, file.fileno, file.close, 0

        def write(self, content: memoryview) -> int:
            self.calls += 1
            if self.calls > 1:
                return self.file.write(content)
            self.file.write(content[:bytes_before])
            raise KeyboardInterrupt

    with GrowingFile(tmp_path / "lines") as file:
        file.write("before\n")
        monkeypatch.setattr(file, "_file", Interrupted(file._file))
        with pytest.raises(KeyboardInterrupt):
            file.write("12345678\n")
        file.write("after\n")
    assert (tmp_path / "lines").read_text() == "before\n12345678\nafter\n"


def test_ctrl_c_ends_a_line_on_a_pipe_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(left: memoryview) -> None:
        raise KeyboardInterrupt

    with GrowingFile(Path(os.devnull)) as file:  # how far it came cannot be told
        monkeypatch.setattr(file, "_write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.write("1\n")


def test_a_file_that_is_there_is_replaced_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("before")
    with pytest.raises(UserError, match="File exists"):
        GrowingFile(path, fresh=True)
    GrowingFile(path).close()
    assert path.read_text() == ""


class Failing:
    """A file whose closing fails, as a disk tells of what it could not keep; it is closed then."""

    def __init__(self, path: Path) -> None:
        self.file, self.write = path.open("wb", buffering=0), len
        self.fileno = self.file.fileno

    def close(self) -> None:
        self.file.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_tells_of_lost_lines_at_closing_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GrowingFile(tmp_path / "lines")
    file.close()
    monkeypatch.setattr(file, "_file", Failing(tmp_path / "lines"))
    with pytest.raises(ResourceError, match="lines: no space left"), file:
        file.write("1")


def test_an_error_of_the_block_is_not_hidden_by_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GrowingFile(tmp_path / "lines")
    file.close()
    for error in (UserError("the first"), KeyboardInterrupt("now")):
        monkeypatch.setattr(file, "_file", Failing(tmp_path / "lines"))
        with pytest.raises(type(error), match=str(error)), file:
            raise error
