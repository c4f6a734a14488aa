"""Files that are made to take time, memory or a program to be opened as images are refused before they do."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from slimtrain.base.errors import UserError
from slimtrain.data import opening
from slimtrain.data.images import Preprocessing, open_source
from slimtrain.data.opening import ImageRefused, open_image

HOW = Preprocessing(32, (0.5,) * 3, (0.25,) * 3)


def picture(path: Path) -> Path:
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)
    return path


def test_no_program_is_run_for_what_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript, which Pillow hands to ghostscript, whatever the file is called."""
    runs: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(subprocess, "check_call", lambda *words, **options: runs.append(words))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(tmp_path / "a.jpg") as opened, pytest.raises(OSError):  # noqa: PT011 (its output is missing)
        opened.load()
    assert len(runs) == 1  # so Pillow does
    with pytest.raises(OSError, match="cannot identify"):
        open_image(tmp_path / "a.jpg")
    assert len(runs) == 1


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        for name in ("fifo.png", "zero.png", "s.png"):
            with pytest.raises(OSError):  # noqa: PT011
                open_image(tmp_path / name)
    picture(tmp_path / "a.png")
    (batch,) = open_source(tmp_path, HOW).batches(8, 8)
    assert len(batch) == 1


def test_a_file_much_larger_than_a_picture_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.webp").open("wb") as file:  # a hole: it takes no space
        file.truncate(opening.MOST_BYTES + 1)
    with pytest.raises(ImageRefused, match=r"a\.webp: takes 2,048 MiB, at most 2,048 are read"):
        open_image(tmp_path / "a.webp")


def qoi(width: int, height: int) -> bytes:
    """One color: runs of 62 pixels."""
    size = width * height
    runs = b"\xfd" * ((size - 1) // 62) + (bytes([0xC0 | ((size - 1) % 62 - 1)]) if (size - 1) % 62 else b"")
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + b"\xfe\1\2\3" + runs + b"\0" * 7 + b"\1"


def plain(width: int, height: int) -> bytes:
    return b"P3 %d %d 255\n" % (width, height) + b"7 " * (3 * 64)


@pytest.mark.parametrize(("name", "content"), [("a.qoi", qoi), ("a.ppm", plain)])
def test_what_is_decoded_in_python_is_taken_in_small_sizes(name: str, content: object, tmp_path: Path) -> None:
    assert callable(content)
    (tmp_path / name).write_bytes(content(8, 8))
    assert open_image(tmp_path / name).size == (8, 8)
    (tmp_path / name).write_bytes(content(4000, 1001))
    with pytest.raises(ImageRefused, match=r"has 4,000 x 1,001 pixels, of a \w+ file of this kind at most 4,000,000"):
        open_image(tmp_path / name)


def test_compressed_fits_is_refused_unread(tmp_path: Path) -> None:
    header = b"".join(
        line.ljust(80)
        for line in (
            *(b"SIMPLE  =                    T", b"BITPIX  =                    8", b"NAXIS   =                    0", b"END"),
        )
    ).ljust(2880)
    table = b"".join(
        line.ljust(80)
        for line in (
            *(b"XTENSION= 'BINTABLE'", b"BITPIX  =                    8", b"NAXIS   =                    2"),
            *(b"NAXIS1  =                    8", b"NAXIS2  =                    8", b"ZIMAGE  =                    T"),
            *(b"ZCMPTYPE= 'GZIP_1  '", b"ZBITPIX =                    8", b"ZNAXIS  =                    2"),
            *(b"ZNAXIS1 =                    8", b"ZNAXIS2 =                    8", b"END"),
        )
    ).ljust(2880)
    (tmp_path / "a.fits").write_bytes(header + table + bytes(200))
    with pytest.raises(ImageRefused, match=r"a\.fits: is a compressed FITS file\. Save it as"):
        open_image(tmp_path / "a.fits")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_is_no_bad_image(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    picture(tmp_path / "a.png")
    monkeypatch.setattr(opening, "of_channels", fails)
    with pytest.raises(type(error)):
        list(open_source(tmp_path, HOW).batches(1, 1))


def test_what_a_warning_quotes_is_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\x1b[2J\xff.png")).write_bytes(b"none")
    (batch,) = open_source(tmp_path, HOW).batches(8, 8)
    assert len(batch) == 1
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert line.isprintable() and r"b\x1b[2J\udcff.png" in line


def test_a_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match=r"not a readable numpy file \(is a FIFO, expected a file\)"):
            open_source(tmp_path / name, HOW)
