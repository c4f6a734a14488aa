"""Writing a bundle so that nothing at its final name is unfinished: files are made in a hidden folder beside it, which
gets the final name at the end, at once. One process at a time writes a bundle."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, REFERENCE, read_manifest
from slimtrain.base.errors import UserError
from slimtrain.base.files import Advice, disk_error, partial_name, write_through
from slimtrain.base.folders.claim import claimed
from slimtrain.base.folders.replacing import (
    Identity,
    discard,
    identity,
    recover,
    replace_folder,
    settle_left,
    sync_folder,
)

ADVICE = Advice(
    "Nothing was written. Free some space, export fewer widths, or choose another --output-dir.",
    "Choose another --output-dir.",
)
INSTEAD = "Wait for it, or choose another --output-dir."


class BundleWriter:
    """A context manager around the folder in which a bundle is made. Unless `publish` was called, nothing stays.

    Raises UserError for a folder that exists (without `overwrite`), that another process is writing, or that cannot be
    written, ResourceError for a full disk. An interruption after `publish` says that the bundle is there.
    """

    def __init__(self, output: str | Path, *, overwrite: bool = False) -> None:
        self.output = Path(os.path.abspath(output))
        self.overwrite = overwrite
        self.staging = partial_name(self.output)
        self.created: list[Path] = []  # parents that were not there, outermost first
        self.begun = False  # making `staging`
        self.made: Identity | None = None
        self.undo = ExitStack()

    def check(self) -> None:
        """What can be told before any work: whether the folder may be written."""
        try:
            self._check()
        except OSError as error:  # such as a name that the file system cannot have
            raise self._failed(error) from error

    def _check(self) -> None:
        if self.output.is_symlink() or (self.output.exists() and not self.output.is_dir()):
            raise UserError(f"{self.output}: exists and is no ordinary folder. Choose another --output-dir.")
        if self.output.exists() and not self.overwrite:
            settle_left(self.output)
            raise UserError(f"{self.output}: exists. Choose another --output-dir, or replace it with --overwrite.")
        parent = self.output.parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"{self.output}: cannot be made, {parent} is not a folder that you may write to.")

    def check_space(self, needed: int) -> None:
        """ResourceError where the disk has fewer than `needed` bytes left."""
        free = shutil.disk_usage(self.staging).free
        if free < needed:
            sizes = f"{needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free"
            raise disk_error(self.output, OSError(errno.ENOSPC, ""), ADVICE, sizes)

    def _failed(self, error: OSError) -> UserError:
        return disk_error(self.output, error, ADVICE, str(error.strerror))

    def __enter__(self) -> BundleWriter:
        self.check()
        with ExitStack() as undo:
            undo.callback(self._remove_parents)
            try:
                for parent in reversed([p for p in (self.output.parent, *self.output.parent.parents) if not p.exists()]):
                    parent.mkdir()
                    self.created.append(parent)
                if undo.enter_context(claimed(self.output, INSTEAD)):
                    recover(self.output)
                    self.check()  # of what came back, too
                undo.callback(self._clean)
                shutil.rmtree(self.staging, ignore_errors=True)  # left by a killed process that had this one's number
                self.begun = True
                self.staging.mkdir()
                self.made = identity(self.staging)
            except OSError as error:
                raise self._failed(error) from error
            self.undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        published = self.published
        self.undo.close()
        if isinstance(error, KeyboardInterrupt) and published:
            raise KeyboardInterrupt(f"interrupted, {self.output} had been written.") from error

    @property
    def published(self) -> bool:
        """Whether what was made here has its final name."""
        return self.made is not None and identity(self.output) == self.made

    def _clean(self) -> None:
        if self.made is not None:  # else it is another writer's, if it is there
            discard(self.staging, self.output)
        elif self.begun:  # interrupted, or refused, while it was made: nothing is in it
            shutil.rmtree(self.staging, ignore_errors=True)

    def _remove_parents(self) -> None:
        if not self.output.exists():
            for parent in reversed(self.created):
                try:
                    parent.rmdir()
                except OSError:  # somebody else uses it by now
                    break

    def path(self, name: str) -> Path:
        """Where a file lies until the bundle is published."""
        return self.staging / name

    def write(self, name: str, content: bytes) -> Path:
        """Write one file through to the disk."""
        path = self.path(name)
        try:
            write_through(path, content)
        except OSError as error:
            raise self._failed(error) from error
        return path

    def remove(self, name: str) -> None:
        self.path(name).unlink()

    def publish(self) -> None:
        """Give the bundle its final name. A bundle that was there is replaced as a whole; files in its folder that were
        not its own are kept."""
        try:
            if not self.output.exists():
                os.rename(self.staging, self.output)
                sync_folder(self.output.parent)
                return
            if not self.overwrite:
                raise UserError(f"{self.output}: was made by another process in the meantime. Nothing was changed.")
            own = _own_files(self.output)
            replace_folder(self.staging, self.output, [p.name for p in sorted(self.output.iterdir()) if p.name not in own])
        except OSError as error:
            raise self._failed(error) from error


def _own_files(folder: Path) -> set[str]:
    """The files that an earlier export wrote into a folder; none if it holds no bundle."""
    try:
        manifest = read_manifest(folder)
    except BundleError:
        return set()
    return {MANIFEST, REFERENCE, *(artifact.file for artifact in manifest.artifacts)}
