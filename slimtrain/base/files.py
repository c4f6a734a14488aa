"""Files that are either what they were before or whole, and what a disk that refuses is to the user. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.process.locks import lock, stands_at

PARTIAL = ".partial-"
CHUNK_BYTES = 1 << 20
TRIES = 20  # file systems may not know a file again
Content = bytes | memoryview


@dataclass(frozen=True)
class Advice:
    """What to do where the disk is `full`, and where something is `denied`."""

    full: str = "Free some space and run again."
    denied: str = ""


AGAIN = Advice()
RUN = Advice("What was there before is untouched. Free some space and go on with --resume auto.", "Choose another output_dir.")


def disk_error(path: Path, error: OSError, advice: Advice = AGAIN, details: str = "") -> UserError:
    """What a failed write to `path` is to the user: ResourceError for a full disk (with `details` of the space), UserError
    for anything else, such as a folder that may not be written to."""
    if is_full(error):
        return ResourceError(f"{path}: no space left on its disk{details and f' ({details})'}. {advice.full}")
    return UserError(f"{path}: cannot be written ({error.strerror or error}). {advice.denied}".rstrip())


def is_full(error: OSError) -> bool:
    """Whether a disk, or a user's share of it, has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def library_name(path: Path) -> Iterator[str]:
    """A name for libraries that take names in UTF-8 alone, as onnxruntime and OpenVINO do, of a file whose own may be none:
    it is good in the block, in which the library opens the file. OSError where it cannot be opened."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield str(path)


def partial_name(path: Path) -> Path:
    """The hidden name, of this process, under which `path` is made."""
    return path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")


def write_through(path: Path, content: Content) -> None:
    """`content` at `path`, through to the disk; OSError as the system says it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unfinished(path: Path) -> list[Path]:
    """What processes have begun to make `path` of, under hidden names."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}{PARTIAL}*"))


@contextmanager
def partial_file(path: Path, content: Content, advice: Advice = AGAIN) -> Iterator[Path]:
    """`content` under a temporary name beside `path`, through to the disk; removed at the end of the block unless it was
    renamed. What killed processes left of making `path` is removed first. Errors as of `disk_error`."""
    partial, held = partial_name(path), -1
    try:
        try:
            _remove_left(path)
            with _begun(partial) as file:
                if lock(file.fileno()):  # it is locked then until it has its name: its process lives
                    held = os.dup(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(path, error, advice, _needed(content)) from error
        yield partial
    finally:
        with contextlib.suppress(OSError):  # as where a folder of the path is a file
            partial.unlink()
        if held >= 0:
            with contextlib.suppress(OSError):
                os.close(held)


def _begun(partial: Path) -> IO[bytes]:
    """A new file at `partial`, locked where there are locks."""
    tries = 0
    while True:
        partial.unlink(missing_ok=True)  # left by a process that had this one's number
        file = partial.open("xb")
        tries += 1
        if tries == TRIES or (lock(file.fileno()) is not False and stands_at(file.fileno(), partial)):
            return file
        file.close()  # another process took it for a killed one's before it was locked


def _remove_left(path: Path) -> None:
    """Remove what processes left of making `path` that are gone: nobody holds the lock of it."""
    for left in unfinished(path):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if lock(descriptor):
                    left.unlink()
            finally:
                os.close(descriptor)


def write_atomically(path: Path, content: Content, advice: Advice = AGAIN) -> None:
    """`content` at `path`, through to the disk and under its name at once; folders above it are made.

    Errors as of `disk_error`; what was there before stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path, content, advice) as partial:
            os.replace(partial, path)
    except OSError as error:
        raise disk_error(path, error, advice, _needed(content)) from error


def _needed(content: Content) -> str:
    return f"{len(content) / 2**20:.1f} MiB are needed"


def replace_both(first: tuple[Path, Path], second: tuple[Path, Path]) -> None:
    """Rename two files (from, to), one right after the other: once the first has its name, an interruption no longer
    keeps the second from its own."""
    try:
        os.replace(*first)
        os.replace(*second)
    except KeyboardInterrupt:
        if not first[0].exists() and second[0].exists():
            os.replace(*second)
        raise


def remove_partials(folder: Path) -> None:
    """Remove what a killed run had begun to write in `folder`."""
    for left in folder.glob(f".*{PARTIAL}*"):
        with contextlib.suppress(OSError):
            left.unlink()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
