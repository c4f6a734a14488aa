"""Members of zip archives: measured before they are inflated, and compared with their CRC as they are read. No torch."""

from __future__ import annotations

import copy
import io
import zipfile
from typing import IO

from slimtrain.checkpoints.files.claims import GIB, Damaged

CHUNK = 1 << 22
INFLATED = GIB // 2  # that all members together may be larger than the file


class ZipBomb(Damaged):
    """Members would be far larger than their archive."""


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive in a file. ZipBomb where its members are much more than the file: by compression, or as several of them are
    the same bytes. BadZipFile and others where it is damaged."""
    size = file.seek(0, io.SEEK_END)
    archive = zipfile.ZipFile(file)
    inflated = sum(member.file_size for member in archive.infolist())
    if inflated > size + INFLATED:
        raise ZipBomb(f"members of {inflated / GIB:,.1f} GiB in an archive of {size / GIB:,.1f} GiB")
    return archive


def sole(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The member of this name. Damaged where there are none or several."""
    members = [member for member in archive.infolist() if member.filename == name]
    if len(members) != 1:
        raise Damaged(f"{len(members)} members are called {name}, expected one")
    return members[0]


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, checked: bool = True) -> bytearray:
    """What a member of at most so many bytes holds. Damaged where it is larger, else as `read_into`."""
    if member.file_size > most:
        raise Damaged(f"{member.filename} holds {member.file_size:,} bytes, expected at most {most:,}")
    content = bytearray(member.file_size)
    read_into(archive, member, memoryview(content), checked)
    return content


def read_into(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: memoryview, checked: bool = True) -> None:
    """Fill `place`, which has the member's size. BadZipFile where the bytes are not those of its CRC, unless none was
    `checked`: the writer left them out. EOFError where they are too few."""
    if not checked:
        member = copy.copy(member)
        member.CRC = None  # type: ignore[assignment]  # of zipfile: then it compares nothing
    with archive.open(member) as stream:
        if not filled(stream, place):
            raise EOFError(f"{member.filename} ends early")


def filled(file: IO[bytes], place: memoryview) -> bool:
    """Fill `place` from a file; False where that has fewer bytes."""
    done = 0
    while done < len(place):
        chunk = file.read(min(CHUNK, len(place) - done))
        if not chunk:
            return False
        place[done : done + len(chunk)] = chunk
        done += len(chunk)
    return True
