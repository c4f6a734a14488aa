"""Zip archives that somebody else wrote: what is in them is measured before it is inflated, and held to its checksum."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from slimtrain.base.untrusted.opening import open_file
from slimtrain.base.untrusted.quoting import quoted

MOST_DIRECTORY = 4 << 20  # bytes of the list of members: of 90,000 members at the most
CHUNK_BYTES = 1 << 20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those whose inflating can be stopped at any byte
ENCRYPTED = 1
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class ZipError(ValueError):
    """An archive is damaged, or not of the plain kind that is read here; the message says how."""


class _ShortReads(io.RawIOBase):
    """A file whose reads are short: `zipfile` reads the whole list of members at once, as long as the file says that it is."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int | None = -1) -> bytes:
        content = self.file.read(MOST_DIRECTORY + 1 if size is None or size < 0 else min(size, MOST_DIRECTORY + 1))
        if len(content) > MOST_DIRECTORY:
            raise zipfile.BadZipFile("its list of members is too long")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


@contextmanager
def open_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """The archive at `path`, no two members of which share a name. OSError as `open_file`, ZipError."""
    with open_file(path) as file:
        try:
            archive = zipfile.ZipFile(_ShortReads(file))
        except DAMAGE as error:
            raise ZipError(str(error) or type(error).__name__) from error
        with archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise ZipError("two of its members have one name")
            yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytearray:
    """A member's bytes, `most` at the most, once its CRC is seen to be right. ZipError."""
    name = quoted(member.filename)
    if member.file_size > most:
        raise ZipError(f"{name} is of {member.file_size:,} bytes, expected at most {most:,}")
    with _opened(archive, member) as file:
        content = _read(file, name, member.file_size)
        if len(content) < member.file_size or _read(file, name, 1):
            raise ZipError(f"{name} is not of {member.file_size:,} bytes, as its archive says")
    return content


def read_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> bytes:
    """The first `size` bytes of a member, or fewer where it has fewer. ZipError."""
    with _opened(archive, member) as file:
        return bytes(_read(file, quoted(member.filename), size))


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> zipfile.ZipExtFile:
    name = quoted(member.filename)
    if member.compress_type not in METHODS or member.flag_bits & ENCRYPTED:
        raise ZipError(f"{name} is encrypted, or compressed in a way that is not read here")
    try:
        return archive.open(member)  # type: ignore[return-value]
    except DAMAGE as error:
        raise ZipError(f"{name}: {error}") from error


def _read(file: zipfile.ZipExtFile, name: str, size: int) -> bytearray:
    content = bytearray()
    try:
        while len(content) < size and (chunk := file.read(min(CHUNK_BYTES, size - len(content)))):
            content += chunk
    except DAMAGE as error:
        raise ZipError(f"{name}: {error}") from error
    return content
