"""Writing a bundle so that nothing at its final name is unfinished: files are made in a hidden folder beside it, which
gets the final name at the end, at once."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType

from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, REFERENCE, read_manifest
from slimtrain.base.errors import UserError
from slimtrain.base.files import Advice, disk_error, partial_name, write_through

ADVICE = Advice(
    "Nothing was written. Free some space, export fewer widths, or choose another --output-dir.",
    "Choose another --output-dir.",
)


class BundleWriter:
    """A context manager around the folder in which a bundle is made. Unless `publish` was called, nothing stays.

    Raises UserError for a folder that exists (without `overwrite`) or cannot be written, ResourceError for a full
    disk.
    """

    def __init__(self, output: str | Path, *, overwrite: bool = False) -> None:
        self.output = Path(os.path.abspath(output))
        self.overwrite = overwrite
        self.staging = partial_name(self.output)
        self.created: list[Path] = []  # parents that were not there, outermost first

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
        missing = [p for p in (self.output.parent, *self.output.parent.parents) if not p.exists()]
        try:
            for parent in reversed(missing):
                parent.mkdir()
                self.created.append(parent)
            if self.staging.exists():  # left by a killed process that had this one's number
                shutil.rmtree(self.staging)
            self.staging.mkdir()
        except OSError as error:
            self._clean()
            raise self._failed(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
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
        old = self.output.parent / f".{self.output.name}.old-{os.getpid()}"
        try:
            if not self.output.exists():
                os.rename(self.staging, self.output)
                return
            if not self.overwrite:
                raise UserError(f"{self.output}: was made by another process in the meantime. Nothing was changed.")
            kept = [p.name for p in self.output.iterdir() if p.name not in _own_files(self.output)]
            os.rename(self.output, old)
            try:
                os.rename(self.staging, self.output)
            except OSError:
                os.rename(old, self.output)
                raise
            for name in kept:
                if not (self.output / name).exists():
                    os.rename(old / name, self.output / name)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise self._failed(error) from error


def _own_files(folder: Path) -> set[str]:
    """The files that an earlier export wrote into a folder; none if it holds no bundle."""
    try:
        manifest = read_manifest(folder)
    except BundleError:
        return set()
    return {MANIFEST, REFERENCE, *(artifact.file for artifact in manifest.artifacts)}
