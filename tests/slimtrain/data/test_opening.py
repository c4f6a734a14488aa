"""An image file as a picture: of every ending, number of channels, mode and depth, turned or not, or refused by its name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from slimtrain.base.errors import UserError
from slimtrain.data import opening
from slimtrain.data.opening import ImageRefused, open_image

RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)


def gray(path: Path) -> np.ndarray:
    pixels = np.asarray(open_image(path))
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big-endian.tif", "a.pgm", "twelve bits.pgm"])
def test_sixteen_bits_of_gray_are_scaled_to_eight(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "big-endian.tif":
        Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes()).save(path)
    elif path.suffix == ".pgm":
        bits = 12 if name.startswith("twelve") else 16
        path.write_bytes(b"P5 16 16 %d\n" % (2**bits - 1) + (RAMP >> (16 - bits)).astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(path)
    np.testing.assert_allclose(gray(path).astype(float), RAMP / 257, rtol=0, atol=1)


def test_sixteen_bits_of_gray_are_as_pillow_reads_those_of_color(tmp_path: Path) -> None:
    """As a PNG of three equal channels of 16 bits, written by hand, and as one of one channel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in RAMP)
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    (tmp_path / "color.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    Image.fromarray(RAMP).save(tmp_path / "gray.png")
    assert np.array_equal(gray(tmp_path / "color.png"), gray(tmp_path / "gray.png"))


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path: Path) -> None:
    Image.fromarray((RAMP / 65535).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(gray(tmp_path / "a.tif").astype(float), RAMP / 257, rtol=0, atol=0.51)
    for values, text in (
        (RAMP.astype(np.float32), "from 0 to 65535"),
        (np.full((4, 4), np.nan, np.float32), "from nan to nan"),
    ):
        Image.fromarray(values).save(tmp_path / "b.tif")
        with pytest.raises(ImageRefused, match=rf"b\.tif: has float values {text}, expected 0 to 1\. Scale them"):
            open_image(tmp_path / "b.tif")


def test_whole_values_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageRefused, match=r"a\.tif: has whole values of 32 bits.*Save it with 8 or 16 bits"):
        open_image(tmp_path / "a.tif")


def test_transparency_is_left_out_and_colors_stay(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """What torchvision's `default_loader` gives: the color of a transparent pixel is what is stored for it."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., 0], pixels[0, 0, 3], pixels[1, 1] = 200, 0, (10, 20, 30, 255)
    expected = [[[200, 0, 0]] * 2, [[200, 0, 0], [10, 20, 30]]]
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    palette = Image.fromarray(pixels[..., :3]).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(pixels[..., :3]).convert("CMYK").save(tmp_path / "cmyk.tif")
    palette.save(tmp_path / "shares.png", transparency=bytes([0, 128, 255, 255]))  # of which Pillow warns, image by image
    for name in ("rgba.png", "palette.png", "shares.png", "cmyk.tif"):
        assert np.asarray(open_image(tmp_path / name)).tolist() == expected
    assert not recwarn.list


def test_of_several_pictures_the_first_is_taken(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    for name in ("a.gif", "a.tif", "a.png"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        assert open_image(tmp_path / name).getpixel((3, 3)) == pytest.approx((255, 0, 0), abs=2)


@pytest.mark.parametrize(
    "ending", [".jfif", ".jpe", ".avif", ".jp2", ".webp", ".tiff", ".gif", ".bmp", ".dib", ".tga", ".pnm"]
)
def test_endings(ending: str, tmp_path: Path) -> None:
    if {".avif": not features.check("avif"), ".jp2": not features.check("jpg_2000")}.get(ending):
        pytest.skip("this Pillow is built without it")
    Image.new("RGB", (16, 16), (200, 30, 90)).save(tmp_path / f"a{ending}")
    assert open_image(tmp_path / f"a{ending}").getpixel((5, 5)) == pytest.approx((200, 30, 90), abs=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_where_it_is_asked_to(orientation: int, tmp_path: Path) -> None:
    """Each of EXIF's orientations, by its definition: where the stored first row and column are to be seen."""
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    flipped = stored[:, ::-1] if orientation in (2, 3, 7, 6) else stored
    flipped = flipped[::-1] if orientation in (3, 4, 7, 8) else flipped
    seen = flipped.T if orientation >= 5 else flipped
    if orientation in (6, 8):  # turned, not mirrored
        seen = np.rot90(stored, -1 if orientation == 6 else 1)
    if orientation == 7:
        seen = stored[::-1, ::-1].T
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png", exif_orientation=True))[..., 0], seen)
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png"))[..., 0], stored)


def test_a_strip_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 x 20,000 pixels, resized to 256, would be 256 x 5,120,000."""
    Image.new("RGB", (20_000, 1)).save(tmp_path / "a.png")
    Image.new("RGB", (1, 100), "red").save(tmp_path / "b.png")
    assert open_image(tmp_path / "b.png").size == (1, 100)
    monkeypatch.setattr(Image.Image, "convert", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(
        ImageRefused, match=r"a\.png: has 20,000 x 1 pixels, one side is more than 100 times the other\. Crop it"
    ):
        open_image(tmp_path / "a.png")


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (14_000, 13_000)).save(tmp_path / "a.png")  # 182 megapixels in a small file
    with pytest.raises(ImageRefused, match=r"a\.png: has more pixels than are decoded .*Scale it down"):
        open_image(tmp_path / "a.png")
    Image.new("1", (40, 50)).save(tmp_path / "b.png")
    monkeypatch.setattr(opening, "MOST_PIXELS", 1999)
    with pytest.raises(ImageRefused, match=r"b\.png: has 40 x 50 pixels, at most 1,999 are decoded\. Scale it down"):
        open_image(tmp_path / "b.png")
    monkeypatch.setattr(opening, "MOST_PIXELS", 2000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # from which on Pillow warns
    open_image(tmp_path / "b.png")
    assert not recwarn.list


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff broken"])
def test_what_is_no_image_raises_what_pillow_does(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises((OSError, SyntaxError)):
        open_image(tmp_path / "a.png")


def test_a_file_of_another_kind_than_its_ending_says_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").getpixel((0, 0)) == (255, 0, 0)


def written(folder: Path, mode: str) -> Path:
    """Noise of a mode, opaque, or transparent here and there, as a file that can hold it."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode) if mode != "CMYK" else Image.fromarray(noise[..., :3]).convert(mode)
    path = folder / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
def test_files_of_any_mode_are_opened_as_gray_as_torchvision_makes_them_so(mode: str, tmp_path: Path) -> None:
    path = written(tmp_path, mode)
    picture = open_image(path, channels=1)
    assert picture.mode == "L"
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(picture), np.asarray(image.convert("L")))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
def test_of_four_channels_the_last_is_opacity(mode: str, tmp_path: Path) -> None:
    path = written(tmp_path, mode)
    pixels = np.asarray(open_image(path, channels=4))
    assert pixels.shape == (9, 7, 4)
    with Image.open(path) as image:
        colors, opacity = np.asarray(image.convert("RGB")), np.asarray(image.convert("RGBA"))[..., 3]
        assert np.array_equal(pixels[..., 3], opacity) and (mode in ("RGBA", "LA", "P") or (opacity == 255).all())
    if mode != "LA":
        assert np.array_equal(pixels[..., :3], colors)


def test_a_fourth_channel_weights_no_color_where_an_image_is_resized(tmp_path: Path) -> None:
    """It may be near infrared: Pillow, as torchvision with it, would blacken what it takes for transparent."""
    path = written(tmp_path, "RGBA")
    resized = np.asarray(open_image(path, channels=4).resize((3, 5), Image.Resampling.BILINEAR))
    stored = np.asarray(Image.open(path))
    alone = [np.asarray(Image.fromarray(stored[..., i]).resize((3, 5), Image.Resampling.BILINEAR)) for i in range(4)]
    assert np.array_equal(resized, np.stack(alone, -1))
    assert not np.array_equal(resized, np.asarray(Image.open(path).resize((3, 5), Image.Resampling.BILINEAR)))


def test_sixteen_bits_are_scaled_for_any_channels(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    eight = gray(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png", channels=1)), eight)
    four = np.asarray(open_image(tmp_path / "a.png", channels=4))
    assert np.array_equal(four, np.stack([eight, eight, eight, np.full_like(eight, 255)], -1))


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_other_channels_are_refused_with_what_takes_them(channels: int, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"images of {channels} channels: pictures are opened with 1 \(gray\), .*as arrays instead"
    ):
        open_image(written(tmp_path, "RGB"), channels=channels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_stored_is_opened_again(channels: int, tmp_path: Path) -> None:
    picture = open_image(written(tmp_path, "RGBA"), channels=channels)
    opening.stored_form(picture).save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "b.png", channels=channels)), np.asarray(picture))
