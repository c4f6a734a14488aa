"""Standard output and error that end no command: what cannot be printed is lost, the work and its exit code are not.

A reader that has gone (`| head -1`), a full disk behind `> log`, a terminal that was closed: an exception out of a print would
end a training of days, or stand in place of the message that says why a command failed. So every write goes through one raw
stream that drops what the system refuses; each write is tried anew, as a disk may have room again. A stream that was closed
(`>&-`) is the null device from the start: else the next file that is opened has its number, and libraries that print by
number write into that file.

A command whose result is only what it prints ends with the exit code of its work too. Where its output was lost for another
reason than that nobody reads it any more, a line on standard error says so.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

AS_BYTES = "slimtrain.as_bytes"  # an error handler of codecs
LOST = (
    "standard output cannot be written ({}): some of what was printed is lost. The exit code says how the command itself "
    "ended.\n"
)
STANDARD = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY, "stderr": os.O_WRONLY}  # by their numbers


def lasting_streams() -> None:
    """Make standard output and error of this process such. Once is enough, more does no harm; streams that somebody else put
    in their place, as tests do, are left alone. On systems without POSIX files nothing is done."""
    if os.name != "posix":
        return
    _open_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and not _lasts(stream):
            lasting = _lasting(name, stream)
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def _open_closed() -> None:
    """Give the numbers 0, 1, 2 that are not open to the null device."""
    for number, mode in enumerate(STANDARD.values()):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, mode)
            if descriptor == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(descriptor, number)
                os.close(descriptor)


def _lasts(stream: TextIO | None) -> bool:
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), LastingFile)


def _lasting(name: str, stream: TextIO | None) -> io.TextIOWrapper:
    """A stream in place of `stream`, which is None where it was closed."""
    if not isinstance(stream, io.TextIOWrapper):
        raw = LastingFile(os.open(os.devnull, os.O_WRONLY), "wb")
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
    raw = LastingFile(stream.fileno(), "wb", closefd=False)
    raw.announced = name != "stdout"
    buffered = isinstance(stream.buffer, io.BufferedWriter)  # not with `python -u`
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else raw,
        encoding="utf-8" if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding,  # as click has it
        errors=AS_BYTES if name == "stdout" and not raw.isatty() else "backslashreplace",
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class LastingFile(io.FileIO):
    """A file whose writes never fail: what the system does not take is dropped."""

    announced = True  # that something was dropped; only of standard output it is said

    def write(self, data: ReadableBuffer, /) -> int:
        """How many bytes are done with: all, where they cannot be written."""
        try:
            while (written := super().write(data)) is None:  # somebody made it non-blocking, and its reader is slow
                select.select((), (self,), ())
        except OSError as error:
            if not self.announced and error.errno != errno.EPIPE:
                self.announced = True
                sys.stderr.write(LOST.format(error.strerror or error))
                sys.stderr.flush()
            return memoryview(data).nbytes
        return written


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Of a text that a stream's encoding lacks: the bytes of a file's name that are no text as they were, so that what reads
    the output finds the file; anything else as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= letter <= "\udcff" for letter in text):
        return bytes(ord(letter) - 0xDC00 for letter in text), error.end
    return codecs.backslashreplace_errors(error)


codecs.register_error(AS_BYTES, _as_bytes)
