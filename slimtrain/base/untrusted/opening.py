"""Files opened for reading only where they are files, and read only as far as their kind may be large.

A FIFO, a device and a socket can wait for ever or never end: they are refused before anything is read. What is refused is an
OSError, as are a missing file and one that may not be read, so that readers say all of them in the same place.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KIND = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
MIB = 1 << 20


class NotAFile(OSError):
    """What is there is no regular file."""


class TooLarge(OSError):
    """A file is larger than its kind may be."""


def open_file(path: str | Path) -> BinaryIO:
    """The regular file at `path`, links followed, opened for reading.

    Raises OSError as the system does, NotAFile for anything that is none: opening it waits for nobody.
    """
    path = Path(path)
    if "\0" in str(path):
        raise NotAFile(errno.EINVAL, "no file can have a zero byte in its name", str(path))
    # Without O_NONBLOCK the opening of a FIFO waits for whoever writes to it.
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            name = next((word for test, word in KIND if test(mode)), "no regular file")
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise NotAFile(code, f"is {name}, expected a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, most: int) -> bytes:
    """The whole content of the regular file at `path`, if it is of at most `most` bytes.

    Raises OSError as `open_file`, TooLarge for a larger file; no more than that is ever read, also of one that grows, or that
    says that it is empty, as those of /proc do.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = _content(file, size, most) if size <= most else b""
    if max(size, len(content)) > most:
        raise TooLarge(errno.EFBIG, f"is {_size(max(size, len(content)))}, expected at most {_size(most)}", str(path))
    return content


def _content(file: BinaryIO, size: int, most: int) -> bytes:
    """All of a file that says it is of `size` bytes, or one byte more than `most`. A reader takes memory for as much as it is
    asked for, so it is asked for more than the file says only where there is more."""
    parts, left = [file.read(size + 1)], most - size
    if len(parts[0]) > size:
        while left and (more := file.read(min(left, MIB))):
            parts.append(more)
            left -= len(more)
    return b"".join(parts)


def read_text(path: str | Path, most: int) -> str:
    """The same of a UTF-8 text, with or without a byte order mark. UnicodeDecodeError, a ValueError, for another text."""
    return read_file(path, most).decode("utf-8-sig").replace("\r\n", "\n")


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count:,} bytes"
