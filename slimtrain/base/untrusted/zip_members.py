"""Zip archives that somebody else wrote: what is in them is measured before it is inflated, and held to its checksum."""

from __future__ import annotations

import copy
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slimtrain.base.untrusted.opening import open_file
from slimtrain.base.untrusted.quoting import quoted

MOST_DIRECTORY = 4 << 20  # bytes of the list of members: of 90,000 members at the most
CHUNK_BYTES = 1 << 20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those whose inflating can be stopped at any byte
PIECE_BYTES = 4096  # that are inflated at once by other methods: what becomes of them is less than 200 MB
ENCRYPTED = 1
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class ZipError(ValueError):
    """An archive is damaged, or not of the plain kind that is read here; the message says how."""


class OtherMethod(ZipError):
    """A member is encrypted, or compressed by a method that is not read here."""


class _ShortReads(io.RawIOBase):
    """A file whose reads are short: `zipfile` reads the whole list of members at once, as long as the file says that it is."""

    def __init__(self, file: IO[bytes]) -> None:
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
    with open_file(path) as file, archive_of(file) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise ZipError("two of its members have one name")
        yield archive


def archive_of(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive in an open file. ZipError."""
    try:
        return zipfile.ZipFile(_ShortReads(file))
    except DAMAGE as error:
        raise ZipError(str(error) or type(error).__name__) from error


def read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, checked: bool = True, any_method: bool = False
) -> bytearray:
    """A member's bytes, `most` at the most, once its CRC is seen to be right, unless none was `checked`: its writer left them
    out. `any_method`: by whichever Python inflates, not only those of METHODS. ZipError."""
    name = quoted(member.filename)
    if member.file_size > most:
        raise ZipError(f"{name} is of {member.file_size:,} bytes, expected at most {most:,}")
    piece = CHUNK_BYTES if member.compress_type in METHODS else PIECE_BYTES
    with _opened(archive, member, checked, any_method) as file:
        content = _read(file, name, member.file_size, piece)
        if len(content) < member.file_size or _read(file, name, 1, piece):
            raise ZipError(f"{name} is not of {member.file_size:,} bytes, as its archive says")
    return content


def read_into(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: memoryview, checked: bool = True) -> None:
    """Fill `place`, which has the member's size, as `read_member` reads it. ZipError."""
    name = quoted(member.filename)
    with _opened(archive, member, checked) as file:
        try:
            whole = filled(file, place) and not file.read(1)
        except DAMAGE as error:
            raise ZipError(f"{name}: {error}") from error
    if not whole:
        raise ZipError(f"{name} is not of {len(place):,} bytes, as its archive says")


def filled(file: IO[bytes], place: memoryview) -> bool:
    """Fill `place` from a file; False where that has fewer bytes."""
    done = 0
    while done < len(place):
        chunk = file.read(min(CHUNK_BYTES, len(place) - done))
        if not chunk:
            return False
        place[done : done + len(chunk)] = chunk
        done += len(chunk)
    return True


def read_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> bytes:
    """The first `size` bytes of a member, or fewer where it has fewer. ZipError."""
    with _opened(archive, member) as file:
        return bytes(_read(file, quoted(member.filename), size, CHUNK_BYTES))


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo, checked: bool = True, any_method: bool = False) -> IO[bytes]:
    name = quoted(member.filename)
    if not (any_method or member.compress_type in METHODS) or member.flag_bits & ENCRYPTED:
        raise OtherMethod(f"{name} is encrypted, or compressed in a way that is not read here")
    if not checked:
        member = copy.copy(member)
        member.CRC = None  # type: ignore[assignment]  # of zipfile: then it compares nothing
    try:
        return archive.open(member)
    except NotImplementedError as error:
        raise OtherMethod(f"{name}: {error}") from error
    except DAMAGE as error:
        raise ZipError(f"{name}: {error}") from error


def _read(file: IO[bytes], name: str, size: int, piece: int) -> bytearray:
    content = bytearray()
    try:
        while len(content) < size and (chunk := file.read(min(piece, size - len(content)))):
            content += chunk
    except DAMAGE as error:
        raise ZipError(f"{name}: {error}") from error
    return content
