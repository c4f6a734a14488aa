"""Zip archives of somebody else: measured before they are inflated, held to their checksums, refused with a reason."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from slimtrain.base.untrusted import zip_members
from slimtrain.base.untrusted.zip_members import ZipError, open_zip, read_member, read_start

CONTENT = bytes(range(256)) * 20


def archive(path: Path, method: int = zipfile.ZIP_DEFLATED, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", method) as whole:
        whole.writestr("a", content)
    return path


def read(path: Path, most: int = 10**6) -> bytes:
    with open_zip(path) as whole:
        return bytes(read_member(whole, whole.infolist()[0], most))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_reads_as_it_was_written(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "a.zip", method)
    assert read(path) == CONTENT == read(path, len(CONTENT))
    with open_zip(path) as whole:
        assert read_start(whole, whole.infolist()[0], 100) == CONTENT[:100]


def test_a_member_that_is_larger_than_it_may_be_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.zip", content=bytes(1 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args: pytest.fail("was opened"))
    with pytest.raises(ZipError, match=r"'a' is of 1,048,576 bytes, expected at most 1,000"):
        read(path, 1000)


def test_a_member_that_is_larger_than_its_archive_says_is_refused(tmp_path: Path) -> None:
    """The list of members says 100 bytes; the stream has a million."""
    path = archive(tmp_path / "a.zip", content=bytes(1 << 20))
    content = path.read_bytes()
    path.write_bytes(content.replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(ZipError, match="CRC"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_flipped_byte_of_a_member_is_read(tmp_path: Path, method: int) -> None:
    whole = archive(tmp_path / "a.zip", method).read_bytes()
    begin = whole.index(CONTENT[:16]) if method == zipfile.ZIP_STORED else 40
    for place in range(begin, begin + 200, 7):
        path = tmp_path / "b.zip"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ZipError):
            read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_cannot_be_inflated_byte_by_byte_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(ZipError, match="compressed in a way"):
        read(archive(tmp_path / "a.zip", method))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + b"\xff" * 18, b"PK\x03\x04" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ZipError):
        read(tmp_path / "a.zip")


def test_a_list_of_members_is_read_only_as_far_as_it_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as whole:
        for number in range(300):
            whole.writestr(f"{number}", b"")
    with open_zip(tmp_path / "a.zip") as whole:
        assert len(whole.namelist()) == 300
    monkeypatch.setattr(zip_members, "MOST_DIRECTORY", 10_000)
    with pytest.raises(ZipError, match="list of members is too long"):
        read(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as whole:
        whole.writestr("a", b"1")
        whole.writestr("a", b"2")
    with pytest.raises(ZipError, match="one name"):
        read(tmp_path / "a.zip")
