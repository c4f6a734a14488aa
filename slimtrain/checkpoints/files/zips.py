"""Checkpoints in zip archives: together its members are not much larger than the archive. No torch."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from slimtrain.base.untrusted.zip_members import ZipError, archive_of

GIB = 1 << 30
INFLATED = GIB // 2  # that all members together may be larger than the file


class ZipBomb(ZipError):
    """Members would be far larger than their archive."""


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive in a file. ZipBomb where its members are much more than the file: by compression, or as several of them are
    the same bytes. ZipError where it is damaged."""
    size = file.seek(0, io.SEEK_END)
    archive = archive_of(file)
    inflated = sum(member.file_size for member in archive.infolist())
    if inflated > size + INFLATED:
        raise ZipBomb(f"members of {inflated / GIB:,.1f} GiB in an archive of {size / GIB:,.1f} GiB")
    return archive


def sole(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The member of this name. ZipError where there are none or several."""
    by_name = archive.NameToInfo
    if name in by_name and len(by_name) == len(archive.filelist):  # no two share a name: of thousands, none is looked at again
        return by_name[name]
    members = [member for member in archive.infolist() if member.filename == name]
    if len(members) != 1:
        raise ZipError(f"{len(members)} members are called {name}, expected one")
    return members[0]
