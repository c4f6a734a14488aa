"""A folder that takes another one's name at once: at no moment is there neither of them, nor a half of one.

Linux swaps two names in one step (renameat2 with RENAME_EXCHANGE). Elsewhere, and on file systems that cannot, the old folder
steps aside under a hidden name, and `recover` brings it back, should the process be killed between the two renames.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.files import unfinished
from slimtrain.base.folders.claim import claimed, lock_of

log = logging.getLogger(__name__)

OLD = ".old-"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of a kernel or file system that does not swap
Identity = tuple[int, int]


def exchange(first: Path, second: Path) -> bool:
    """Swap the names of two files or folders at once; False, with nothing done, where that cannot be. OSError."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    if not swap(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def replace_folder(new: Path, folder: Path, kept: Sequence[str] = ()) -> None:
    """Give the folder `new` the name of `folder`, which is beside it, and remove what had it. What `folder` has under the
    names of `kept` comes along, unless `new` has such a name itself.

    What is kept is settled first, so that what cannot be moved (by its permissions, as a mount) stops it while nothing has
    changed. After an OSError all is as before, unless the disk refuses to take back a folder that it had just moved: then that
    waits in `new` for `recover`. After an interruption either that, or all is replaced (`identity` tells).
    """
    own, old = identity(new), folder.with_name(f".{folder.name}{OLD}{os.getpid()}")
    try:
        for name in sorted(kept, key=lambda name: _is_folder(folder / name)):  # what can only be moved comes last
            if not os.path.lexists(new / name):
                _settle(folder / name, new / name)
        sync_folder(new)
        if not exchange(new, folder):
            os.rename(folder, old)
            os.rename(new, folder)
    except BaseException:
        if identity(folder) != own:
            if not os.path.lexists(folder) and old.is_dir():
                os.rename(old, folder)
            give_back(new, folder)
        raise
    sync_folder(folder.parent)
    for left in (new, old):
        discard(left, folder)


def identity(path: Path) -> Identity | None:
    """What a file or folder is, whatever it is called; None where there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _settle(source: Path, target: Path) -> None:
    """Have `source` at `target` too, or, of a folder, there alone."""
    if _is_folder(source):
        os.rename(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        if not source.is_file() or source.is_symlink():
            os.rename(source, target)
        else:
            shutil.copy2(source, target)


def give_back(left: Path, folder: Path) -> None:
    """Move what was settled in `left` back to `folder`: all that is no ordinary file, of which `folder` has its own."""
    for entry in _settled(left, folder):
        os.rename(entry, folder / entry.name)


def _settled(left: Path, folder: Path) -> list[Path]:
    entries = sorted(left.iterdir()) if _is_folder(left) else []
    moved = [entry for entry in entries if entry.is_symlink() or not entry.is_file()]
    return [entry for entry in moved if not os.path.lexists(folder / entry.name)]


def discard(left: Path, folder: Path) -> None:
    """Remove what was made in `left` to replace `folder`, or what had its name, but never what was settled there and cannot be
    given back: then `left` stays for `recover`, and a log says so."""
    if _is_folder(folder):
        with contextlib.suppress(OSError):
            give_back(left, folder)
    if settled := _settled(left, folder):
        log.warning(
            "%s: holds %s, which could not be moved back to %s. The next command that writes there does, or move it yourself.",
            *(left, settled[0].name, folder),
        )
    else:
        shutil.rmtree(left, ignore_errors=True)


def recover(folder: Path) -> None:
    """Settle what killed processes left of replacing `folder`, whose claim is held: an old one that had stepped aside gets its
    name back where nothing has it, and what had begun is removed. OSError."""
    if (aside := stepped_aside(folder)) and not os.path.lexists(folder):
        os.rename(aside[-1], folder)
    for left in (*stepped_aside(folder), *unfinished(folder)):
        if _is_folder(left):
            discard(left, folder)
        else:
            with contextlib.suppress(OSError):
                left.unlink()


def settle_left(folder: Path, how: Callable[[Path], None] = recover) -> None:
    """For a command that refuses `folder` because it is there: have settled all the same what killed processes left of
    writing it, unless another one is at work there. Where nothing is left, nothing is written."""
    if lock_of(folder).exists() or unfinished(folder) or stepped_aside(folder):
        with contextlib.suppress(UserError, OSError), claimed(folder, "") as held:
            if held:
                how(folder)


def stepped_aside(folder: Path) -> list[Path]:
    """What was called `folder` before processes that were killed while they replaced it in two renames, the last one last."""
    places = folder.parent.glob(f".{glob.escape(folder.name)}{OLD}*")
    return sorted(places, key=lambda path: path.stat().st_mtime)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def sync_folder(folder: Path) -> None:
    """What a folder's entries are called, through to the disk, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
