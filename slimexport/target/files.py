"""Files that get their final name whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimexport.target.errors import BundleError, MissingBackend


@contextmanager
def partial_file(path: Path, content: bytes) -> Iterator[Path]:
    """`content` under a temporary name beside `path`, through to the disk; removed at the end of the block unless it was
    renamed. MissingBackend for a full disk, BundleError where nothing can be written."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                needed = f"{len(content) / 2**20:.1f} MiB are needed"
                raise MissingBackend(
                    f"{path}: no space left on its disk ({needed}). Free some space and run again."
                ) from error
            raise BundleError(f"{path}: cannot be written ({error.strerror or error}).") from error
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """`content` at `path`, at once; errors as of `partial_file`."""
    with partial_file(path, content) as partial:
        os.replace(partial, path)


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
