"""Files that are either what they were before or whole. No torch."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from slimtrain.base.errors import ResourceError, UserError

PARTIAL = ".partial-"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """`content` at `path`, through to the disk and under its name at once.

    ResourceError for a full disk, UserError where it cannot be written; what was there before stays.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as where a folder of the path is a file
            partial.unlink()
        if not isinstance(error, OSError):  # Ctrl-C: no half a file stays
            raise
        if error.errno in NO_SPACE:
            raise ResourceError(
                f"{path}: no space left on its disk ({len(content) / 2**20:.1f} MiB are needed). What was there before is "
                "untouched. Free some space and go on with --resume auto."
            ) from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). Choose another output_dir.") from error


def remove_partials(folder: Path) -> None:
    """Remove what a killed run had begun to write in `folder`."""
    for left in folder.glob(f".*{PARTIAL}*"):
        with contextlib.suppress(OSError):
            left.unlink()
