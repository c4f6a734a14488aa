"""Only files are read, and only as far as their kind may be large."""

import os
import socket
import threading
import tracemalloc
from pathlib import Path

import pytest

from slimtrain.base.untrusted.opening import NotAFile, TooLarge, open_file, read_file, read_text


def test_a_file_is_read_whole_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10) == b"0123456789"
    with pytest.raises(TooLarge, match="is 10 bytes, expected at most 9 bytes"):
        read_file(path, 9)


def test_the_size_that_the_system_says_is_not_trusted() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    assert read_file("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(TooLarge):
        read_file("/proc/self/status", 5)


def test_no_more_memory_is_asked_for_than_a_file_says_it_has(tmp_path: Path) -> None:
    """A kind of files may be of gigabytes, this one is not."""
    (tmp_path / "file").write_bytes(b"0123456789")
    tracemalloc.start()
    try:
        assert read_file(tmp_path / "file", 1 << 34) == b"0123456789"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_a_file_has_grown_by_is_read_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    before = path.stat()
    path.write_bytes(bytes(range(250)) * 10_000)
    monkeypatch.setattr(os, "fstat", lambda descriptor: before)
    assert read_file(path, 2_500_000) == path.read_bytes()
    with pytest.raises(TooLarge, match=r"expected at most 2\.4 MiB"):
        read_file(path, 2_499_999)


def _special(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path, errors = _special(kind, tmp_path), []

    def read() -> None:
        try:
            read_file(path, 100)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert errors and errors[0].strerror
    if kind != "socket":  # which cannot even be opened
        assert isinstance(errors[0], NotAFile) and "expected a file" in errors[0].strerror


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(NotAFile):
            open_file(tmp_path / "fifo")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_zero_byte_in_a_name_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="zero byte"):
        open_file("a\0b")


def test_texts_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read_text(path, 100) == "one\ntwo"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        read_text(path, 100)
