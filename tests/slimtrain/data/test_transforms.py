"""Transforms against the definitions of what they draw and of the published validation transform."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from slimtrain.data import transforms
from slimtrain.data.catalog import AUGMENTATIONS
from slimtrain.data.images import Preprocessing
from slimtrain.data.opening import of_channels

KINDS = tuple(AUGMENTATIONS)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over gradients."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    return Image.fromarray((ramp + rng.integers(0, 36, (height, width, 3))).astype(np.uint8))


def plain(image: torch.Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> torch.Tensor:
    """Values from 0 to 1 of a normalized image."""
    return image * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["pillow", "tensor"])
def test_every_transform_gives_normalized_images_of_the_size(kind: str, form: str) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 41, 3), dtype=np.uint8)
    image = Image.fromarray(pixels) if form == "pillow" else torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    torch.manual_seed(0)
    trained = transforms.train_transform(kind, 32, mean, std)(image)
    for output in (trained, transforms.test_transform(32, mean, std, whole=True)(image)):
        assert output.shape == (3, 32, 32) and output.dtype == torch.float32 and type(output) is torch.Tensor
        values = plain(output, mean, std)
        assert -0.2 < values.min() < 0.4 < values.max() < 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_only_torchs_global_generator_decides(kind: str) -> None:
    transform, image = transforms.train_transform(kind, 32, MEAN, STD), photograph(60, 50)
    python, numpy = random.getstate(), pickle.dumps(np.random.get_state())
    torch.manual_seed(1)
    first, second = transform(image), transform(image)
    torch.manual_seed(1)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), first)
    assert torch.equal(first, second) == (kind == "none")
    assert random.getstate() == python and pickle.dumps(np.random.get_state()) == numpy


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (300, 301), (256, 256), (100, 900)])
@pytest.mark.parametrize("pixels", [224, 96])
def test_photographs_are_tested_as_exports_are(size: tuple[int, int], pixels: int, tmp_path: Any) -> None:
    image = photograph(*size)
    image.save(tmp_path / "a.png")
    expected = torch.from_numpy(Preprocessing(pixels, MEAN, STD)(tmp_path / "a.png"))
    tested = transforms.test_transform(pixels, MEAN, STD, whole=False)(image)
    torch.testing.assert_close(tested, expected, rtol=0, atol=1e-5)
    assert torch.equal(transforms.train_transform("none", pixels, MEAN, STD)(image), tested)


def test_small_images_are_tested_whole() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    same, larger = (transforms.test_transform(size, MEAN, STD, whole=True)(image) for size in (32, 64))
    torch.testing.assert_close(plain(same), image / 255, rtol=0, atol=1e-6)
    assert torch.equal(transforms.train_transform("none", 64, MEAN, STD, whole=True)(image), larger)
    direct = torch.nn.functional.interpolate(image[None].float(), (64, 64), mode="bilinear", antialias=True)[0] / 255
    torch.testing.assert_close(plain(larger), direct, rtol=0, atol=1.01 / 255)  # computed in 8 bits


def test_lighting_has_the_covariance_of_its_definition() -> None:
    """sum_k alpha_k l_k v_k has the covariance std^2 sum_k l_k^2 v_k v_k^T."""
    values, vectors = np.array(transforms.EIGENVALUES), np.array(transforms.EIGENVECTORS)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)
    lighting, black = transforms.Lighting(0.1), torch.zeros(3, 2, 2)
    torch.manual_seed(0)
    drawn = torch.stack([lighting(black) for _ in range(20_000)])
    assert (drawn == drawn[:, :, :1, :1]).all()
    expected = sum(0.01 * value**2 * np.outer(vector, vector) for value, vector in zip(values, vectors.T, strict=True))
    covariance = np.cov(drawn[:, :, 0, 0].numpy().T)
    np.testing.assert_allclose(covariance, expected, rtol=0.05, atol=0)
    np.testing.assert_allclose(drawn.mean((0, 2, 3)), 0, atol=5e-4)


@pytest.mark.parametrize(("kind", "least"), [("basic", 0.08), ("mobile", 0.25), ("inception", 0.08)])
def test_crops_have_the_areas_that_the_name_says(kind: str, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image whose red is its column and whose green is its row, a crop tells its own extent."""
    for name in ("JITTER", "LIGHTING"):
        monkeypatch.setattr(transforms, name, 0.0)
    transform = transforms.train_transform(kind, 16, MEAN, STD)
    grid = torch.arange(256, dtype=torch.uint8)
    image = torch.stack([grid.expand(256, 256), grid[:, None].expand(256, 256), torch.zeros(256, 256, dtype=torch.uint8)])
    torch.manual_seed(0)
    areas, flips = [], []
    for _ in range(300):
        output = plain(transform(image))
        width, height = (output[0, :, -1] - output[0, :, 0]).mean() * 16 / 15, (output[1, -1] - output[1, 0]).mean() * 16 / 15
        areas.append(float(abs(width) * height))
        flips.append(bool(width < 0))
    assert least * 0.85 < min(areas) < least * 1.4 and 0.85 < max(areas) <= 1.05
    assert 0.4 < np.mean(flips) < 0.6


def test_jitter_changes_brightness_by_up_to_two_fifths() -> None:
    transform, gray = transforms.train_transform("mobile", 8, MEAN, STD), torch.full((3, 8, 8), 128, dtype=torch.uint8)
    torch.manual_seed(0)
    means = torch.stack([plain(transform(gray)).mean() for _ in range(300)])
    assert 0.25 < means.min() < 0.35 and 0.65 < means.max() < 0.75  # 0.5 +- 40 %, and light


def test_cifars_crops_are_shifts_of_up_to_four_pixels_and_flips() -> None:
    image = torch.randint(1, 256, (3, 32, 32), dtype=torch.uint8)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    crops = {(y, x, f): padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9) for f in (False, True)}
    crops = {key: (crop.flip(2) if key[2] else crop) / 255 for key, crop in crops.items()}
    transform = transforms.train_transform("cifar", 32, MEAN, STD)
    torch.manual_seed(0)
    seen = set()
    for _ in range(150):
        output = plain(transform(image))
        matches = [key for key, crop in crops.items() if torch.allclose(output, crop, atol=1e-5)]
        assert len(matches) == 1
        seen.update(matches)
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(9)) and {f for *_, f in seen} == {False, True}


def test_digits_move_a_little_and_are_never_mirrored() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, 2:6, 1:3] = 255  # a bar left of the center stays left of it
    rest = plain(transforms.test_transform(16, MEAN, STD, whole=True)(image))
    transform = transforms.train_transform("digits", 16, MEAN, STD)
    columns = torch.arange(16.0)
    torch.manual_seed(0)
    centers = []
    for _ in range(100):
        output = plain(transform(image))
        centers.append(float((output.sum((0, 1)) * columns).sum() / output.sum()))
        assert 0.7 < output.sum() / rest.sum() < 1.35  # scale 0.9 to 1.1 is area 0.81 to 1.21
    center = float((rest.sum((0, 1)) * columns).sum() / rest.sum())
    assert center == pytest.approx(3.5, abs=0.1) and max(abs(c - center) for c in centers) < 2.9
    assert min(centers) < center - 1 and max(centers) > center + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("form", ["pillow", "tensor"])
def test_every_transform_takes_any_shape_and_channels(kind: str, channels: int, form: str) -> None:
    """Rows and columns are told apart: an image that is bright at the top stays so."""
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[:20] = (200, 200, 200, 90)
    image = of_channels(Image.fromarray(pixels), channels)
    picture = image if form == "pillow" else v2.functional.pil_to_tensor(image)
    normalization = (0.5,) * channels, (0.25,) * channels
    torch.manual_seed(2)
    trained = transforms.train_transform(kind, (48, 32), *normalization)(picture)
    for output in (trained, transforms.test_transform((48, 32), *normalization, whole=True)(picture)):
        assert output.shape == (channels, 48, 32) and output.dtype == torch.float32
        rows = plain(output, *normalization).mean(2)
        assert (rows[:, 8] >= rows[:, 40]).all() and rows[:, 8].max() > rows[:, 40].max()


def test_the_light_of_gray_images_is_that_of_colors_made_gray() -> None:
    color, gray, four = (transforms.Lighting(0.1, channels) for channels in (3, 1, 4))
    for seed in range(5):
        lights = []
        for lighting, channels in ((color, 3), (gray, 1), (four, 4)):
            torch.manual_seed(seed)
            lights.append(lighting(torch.zeros(channels, 1, 1)).flatten())
        assert float(lights[1]) == pytest.approx(float(lights[0] @ torch.tensor([0.299, 0.587, 0.114])), abs=1e-6)
        torch.testing.assert_close(lights[2], torch.cat([lights[0], torch.zeros(1)]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if AUGMENTATIONS[kind].smallest_crop])
def test_color_changes_leave_a_fourth_channel(kind: str) -> None:
    image = torch.tensor([200, 100, 50, 77], dtype=torch.uint8)[:, None, None].expand(4, 20, 20)
    transform = transforms.train_transform(kind, 8, (0.5,) * 4, (0.25,) * 4)
    torch.manual_seed(0)
    outputs = torch.stack([plain(transform(image), (0.5,) * 4, (0.25,) * 4) for _ in range(20)])
    torch.testing.assert_close(outputs[:, 3], torch.full((20, 8, 8), 77 / 255))
    assert (outputs[:, :3].std(0) > 0.01).all()


def test_shifts_are_an_eighth_of_each_side() -> None:
    """Of 16 x 64 images: up to 2 rows and 8 columns."""
    image = torch.randint(1, 256, (1, 16, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image, (8, 8, 2, 2)) / 255
    transform = transforms.train_transform("cifar", (16, 64), (0.5,), (0.25,))
    torch.manual_seed(0)
    shifts = set()
    for _ in range(60):
        output = plain(transform(image), (0.5,), (0.25,))
        places = [
            (y, x)
            for y in range(5)
            for x in range(17)
            for crop in (padded[:, y : y + 16, x : x + 64],)
            if torch.allclose(output, crop, atol=1e-5) or torch.allclose(output, crop.flip(2), atol=1e-5)
        ]
        assert len(places) == 1
        shifts.update(places)
    assert {y for y, _ in shifts} == set(range(5)) and {0, 16} <= {x for _, x in shifts}
