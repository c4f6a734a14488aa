"""Preprocessing is the published validation transform: resize, center crop and normalize as torchvision does them."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data import images
from slimtrain.data.images import Preprocessing, read_array
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD, INCEPTION_MEAN, INCEPTION_STD, imagenet_normalization

STANDARD = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)
SHAPES = [(640, 480), (480, 640), (500, 333), (333, 500), (256, 256), (224, 224), (225, 1000), (1000, 225), (60, 31), (7, 5)]


def photograph(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise over gradients, width by height."""
    rng, (width, height) = np.random.default_rng(seed), size
    ramp = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    pixels = (ramp + rng.integers(0, 36, (height, width, 3))).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width)).astype(np.uint8)))
        return image
    return image.convert(mode)


def by_torchvision(path: Path, how: Preprocessing, resize: int) -> np.ndarray:
    transform = v2.Compose(
        [
            v2.Resize(resize),
            v2.CenterCrop(how.image_size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(how.mean, how.std),
        ]
    )
    with Image.open(path) as image:
        tensor: torch.Tensor = transform(image.convert("RGB"))
    return tensor.numpy()


@pytest.mark.parametrize("size", SHAPES)
def test_images_of_any_shape_are_prepared_as_torchvision_does(size: tuple[int, int], tmp_path: Path) -> None:
    photograph(size).save(tmp_path / "a.png")
    image = STANDARD(tmp_path / "a.png")
    assert image.shape == (3, 224, 224) and image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_allclose(image, by_torchvision(tmp_path / "a.png", STANDARD, 256), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
def test_images_of_any_mode_are_read_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    photograph((301, 260), mode).save(path)
    image = STANDARD(path)
    np.testing.assert_allclose(image, by_torchvision(path, STANDARD, 256), rtol=0, atol=1e-5)
    if mode in ("L", "1", "LA"):
        pixels = image * np.array(IMAGENET_STD)[:, None, None] + np.array(IMAGENET_MEAN)[:, None, None]
        np.testing.assert_allclose(pixels[0], pixels[1], atol=1e-6)  # three equal channels


@pytest.mark.parametrize(("image_size", "resize"), [(224, 256), (160, 183), (192, 219), (32, 37), (97, 111), (299, 342)])
def test_other_image_sizes_keep_the_ratio_of_crop_and_resize(image_size: int, resize: int, tmp_path: Path) -> None:
    photograph((333, 251)).save(tmp_path / "a.png")
    how = Preprocessing(image_size, INCEPTION_MEAN, INCEPTION_STD)
    image = how(tmp_path / "a.png")
    np.testing.assert_allclose(image, by_torchvision(tmp_path / "a.png", how, resize), rtol=0, atol=1e-5)


def test_normalization_is_per_channel(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (255, 0, 51)).save(tmp_path / "a.png")
    image = Preprocessing(224, (0.5, 0.25, 0.1), (0.5, 0.5, 0.2))(tmp_path / "a.png")
    for channel, value in enumerate((1.0, -0.5, 0.5)):
        np.testing.assert_allclose(image[channel], value, atol=1e-6)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "ppm", "tif", "gif"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    photograph((300, 260)).save(path)
    np.testing.assert_allclose(STANDARD(path), by_torchvision(path, STANDARD, 256), rtol=0, atol=1e-5)


def by_definition(path: Path, how: Preprocessing, channels: int) -> np.ndarray:
    """The scale is the smallest that covers height / 0.875 and width / 0.875, each rounded to pixels, of either side; then the
    center is cropped. Each channel by itself, resized and cropped by torchvision with sizes (height, width)."""
    high, wide = how.image_size if isinstance(how.image_size, tuple) else (how.image_size, how.image_size)
    with Image.open(path) as image:
        picture = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    scale = max(Fraction(round(high / 0.875), picture.height), Fraction(round(wide / 0.875), picture.width))
    resized = [int(side * scale) for side in (picture.height, picture.width)]
    planes = [F.center_crop(F.resize(plane, resized), [high, wide]) for plane in picture.split()]
    pixels = np.stack([np.asarray(plane, np.float64) for plane in planes]) / 255
    return (pixels - np.array(how.mean)[:, None, None]) / np.array(how.std)[:, None, None]


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 50), (30, 200), (200, 30), (49, 37), (37, 56)])
@pytest.mark.parametrize("image_size", [(48, 32), (32, 48), (33, 91), (1, 7), 40])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_shapes_are_covered_and_cropped(
    size: tuple[int, int], image_size: ImageSize, channels: int, tmp_path: Path
) -> None:
    photograph(size, "RGBA").save(tmp_path / "a.png")
    how = Preprocessing(image_size, *imagenet_normalization(channels))
    image = how(tmp_path / "a.png")
    assert image.shape == (channels, *sides(image_size)) and image.flags.c_contiguous
    np.testing.assert_allclose(image, by_definition(tmp_path / "a.png", how, channels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_small_images_are_resized_whole_to_any_shape(channels: int, tmp_path: Path) -> None:
    photograph((20, 31), "RGBA").save(tmp_path / "a.png")
    mean, std = imagenet_normalization(channels)
    image = Preprocessing((16, 24), mean, std, whole=True)(tmp_path / "a.png")
    planes = Image.open(tmp_path / "a.png").convert("L" if channels == 1 else "RGBA").split()
    expected = np.stack([np.asarray(F.resize(plane, [16, 24]), np.float64) for plane in planes]) / 255
    expected = (expected - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5)


def bomb(path: Path, content: bytes, name: str = "images.npy", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def test_archives_are_measured_before_they_are_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_INFLATED", 1 << 20)
    path = bomb(tmp_path / "a.npz", header((1, 3, 1024, 1024)) + bytes(3 << 22))
    with pytest.raises(UserError, match=r"a\.npz: its 0 MiB become 12 MiB, at most 1 MiB more are inflated\. Save them with"):
        read_array(path, 1024)


def test_an_array_is_no_larger_than_its_file(tmp_path: Path) -> None:
    """A header that claims terabytes asks for none of them."""
    for content in (header((1 << 30, 3, 32, 32)), header((-1, 3, 32, 32)), header((4, 3, 32, 32)) + bytes(9)):
        with pytest.raises(
            UserError, match=r"a\.npz: not a readable numpy file \(images\.npy: its content is not what it claims"
        ):
            read_array(bomb(tmp_path / "a.npz", content), 32)
    (tmp_path / "a.npy").write_bytes(header((1 << 30, 3, 32, 32)))
    with pytest.raises(UserError, match=r"a\.npy: not a readable numpy file"):
        read_array(tmp_path / "a.npy", 32)


def test_a_flipped_bit_of_a_stored_array_is_seen(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.npz", header((1, 3, 8, 8)) + bytes(768), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_array(path, 8)
