"""Pictures: bytes of eight formats, and whole ones that ask for too much."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.soak.hostile import damaged_bytes, how_often
from tests.soak.kinds.kind import Case, WrongResultError
from tests.soak.originals import PICTURES

SIZE = 32


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file, its CRC right."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, color: int, data: bytes, *more: bytes) -> bytes:
    """A PNG file that says so, whose pixels are what `data` inflates to."""
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(mode: str, size: tuple[int, int], form: str, **options: Any) -> bytes:
    """A picture of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def odd_picture(draw: Random) -> tuple[bytes, str, str]:
    """Its bytes, the ending of its name, and what it is."""
    way = draw.randrange(12)
    sides = draw.choice(((1, 1), (1, 10_000), (10_000, 1), (1, 60_000), (3, 65_535), (2, 1)))
    if way == 0:
        return saved("RGB", sides, "PNG"), "png", f"{sides}"
    if way == 1:
        return saved(draw.choice(("L", "RGB", "CMYK")), sides, "JPEG"), "jpg", f"JPEG {sides}"
    if way == 2:
        sides = draw.choice(((20_000, 20_000), (2**31 - 1, 1), (60_000, 60_000), (0, 0), (2**31 - 1, 2**31 - 1)))
        return png(*sides, 8, 2, zlib.compress(bytes(1000))), "png", f"PNG that says {sides}"
    if way == 3:  # 12,000 x 12,000 pixels of nothing
        return png(12_000, 12_000, 1, 0, zlib.compress(bytes(12_000 * 1501), 9)), "png", "a bomb"
    if way == 4:
        text = zlib.compress(bytes(draw.choice((10**6, 10**8))), 9)
        more = chunk(draw.choice((b"zTXt", b"iTXt", b"iCCP")), b"a\0\0" + text)
        return png(2, 2, 8, 0, zlib.compress(bytes(6)), more), "png", "text that inflates"
    if way == 5:
        bits, color = draw.choice((1, 2, 3, 8, 16, 99)), draw.randrange(8)
        return png(4, 4, bits, color, zlib.compress(bytes(200))), "png", f"{bits} bits of kind {color}"
    if way == 6:
        from PIL import Image

        frames = [Image.new("P", (4, 4), i % 256) for i in range(draw.choice((2, 300)))]
        file = io.BytesIO()
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
        return file.getvalue(), "gif", f"{len(frames)} frames"
    if way == 7:
        orientation = draw.choice((0, 9, 2**16 - 1, 6))
        exif = (
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0"
            + struct.pack("<I", draw.choice((1, 2**31)))
            + struct.pack("<I", orientation)
        )
        return saved("RGB", (8, 4), "JPEG", exif=exif + bytes(4)), "jpg", "odd EXIF"
    if way == 8:  # a TIFF whose second directory is its first
        entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, draw.choice((1, 5, 9))), (262, 3, 1, 1)]
        entries += [(273, 4, 1, 200), (278, 4, 1, draw.choice((8, 2**31))), (279, 4, 1, draw.choice((64, 2**31)))]
        body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        return b"II*\0\x08\0\0\0" + body + struct.pack("<I", 8) + bytes(300), "tif", "a TIFF in a circle"
    if way == 9:
        text = draw.choice(
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"", b"RIFF")
        )
        return text, draw.choice(PICTURES), "something else"
    if way == 10:
        mode = draw.choice(("1", "L", "LA", "P", "RGBA", "I", "I;16", "F", "CMYK", "YCbCr", "LAB"))
        form = "TIFF" if mode not in ("I;16",) else "PNG"
        return saved(mode, (5, 3), form), "tif" if form == "TIFF" else "png", f"mode {mode}"
    return (
        b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII",
            2**31,
            0,
            0,
            54,
            40,
            *draw.choice(((10**6, -(10**6)), (-5, 5), (2**31 - 1, 1))),
            1,
            24,
            0,
            0,
            0,
            0,
            0,
            0,
        ),
        "bmp",
        "a BMP that lies",
    )


class PictureKind:
    name = "images"
    right = "the input is float32 [3, 32, 32], all finite, the same when it is read again"

    def open(self, originals: Path) -> None:
        from slimtrain.data.images import Preprocessing

        self.originals = originals
        self.contents = {ending: (originals / f"picture.{ending}").read_bytes() for ending in PICTURES}
        self.how = [
            Preprocessing(SIZE, (0.5,) * 3, (0.25,) * 3, whole, exif) for whole in (False, True) for exif in (False, True)
        ]

    def damage(self, draw: Random, folder: Path) -> Case:
        if draw.random() < 0.02:
            path = folder / "picture.png"
            place = draw.choice(("fifo", "/dev/zero", "/dev/stdin", "folder", "/nowhere"))
            if place == "fifo":
                os.mkfifo(path)
            elif place == "folder":
                path.mkdir()
            else:
                path.symlink_to(place)
            return Case(path, place)
        if draw.random() < 0.3:
            content, ending, what = odd_picture(draw)
            path = folder / f"picture.{ending}"
            path.write_bytes(content)
            return Case(path, what)
        ending, times = draw.choice(PICTURES), how_often(draw)
        path = folder / f"picture.{ending}"
        path.write_bytes(damaged_bytes(draw, self.contents[ending], times))
        return Case(path, f"{ending}, bytes changed in {times} places")

    def judge(self, case: Case) -> None:
        from slimtrain.data.images import readable

        how = self.how[len(case.damage) % len(self.how)]
        first, second = (next(readable([str(case.path)], how)) for _ in range(2))
        if first.shape != (3, SIZE, SIZE) or first.dtype != np.float32 or not np.isfinite(first).all():
            raise WrongResultError(f"{first.dtype} {first.shape}")
        if not np.array_equal(first, second):
            raise WrongResultError("another picture when it is read again")

    def command(self, case: Case, folder: Path) -> list[str]:
        return ["slimexport", "--bundle", str(self.originals / "bundle"), "--predict", str(case.path)]
