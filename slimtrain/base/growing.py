"""A file that grows line by line while something is measured: whatever ends that, the lines before are whole."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.files import AGAIN, Advice, disk_error


class GrowingFile:
    """Text at `path`, for a `with` block. Nothing is held back: a line is the system's when `write` returns, and closing has
    nothing left to write. Ctrl-C within a line is raised when the line is whole: the next one would else stand in it.

    `fresh`: there is to be no such file yet; else one is replaced. Raises what `disk_error` makes of errors, with `advice`, at
    closing too, where a disk may tell of lines that it could not keep; not where the block has ended with an error already.
    """

    def __init__(self, path: Path, advice: Advice = AGAIN, *, fresh: bool = False) -> None:
        self.path, self.advice = path, advice
        try:
            self._file = path.open("xb" if fresh else "wb", buffering=0)
        except OSError as error:
            raise disk_error(path, error, advice) from error

    def write(self, text: str) -> None:
        """All of `text`."""
        content = memoryview(text.encode("utf-8"))
        try:
            before = self._size()
            try:
                self._write(content)
            except KeyboardInterrupt:
                if before is not None and (now := self._size()) is not None:
                    self._write(content[now - before :])
                raise
        except OSError as error:
            raise disk_error(self.path, error, self.advice) from error

    def _write(self, left: memoryview) -> None:
        while left:
            left = left[self._file.write(left) or 0 :]

    def _size(self) -> int | None:
        """The file's bytes, which alone tell how far a write came that Ctrl-C ended; None of a pipe or a device."""
        status = os.fstat(self._file.fileno())
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def close(self) -> None:
        """It grows no more."""
        try:
            self._file.close()
        except OSError as error:
            raise disk_error(self.path, error, self.advice) from error

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *ended: object) -> None:
        with contextlib.suppress(*([] if kind is None else [UserError])):
            self.close()
