"""What is done to an image before a network sees it: augmentation for training, the published transform for testing.

All transforms take an image of Pillow or a uint8 tensor [3, 1 or 4, H, W], and give float32 [channels, height, width], of as
many channels as `mean` and `std` have, which are of values from 0 to 1. Changes of color are, of gray images, what is left of
them without color; a fourth channel they leave as it is. They draw from torch's global generator alone, and can be pickled.

Images are resized and cropped by Pillow, tensors too: torch's resizing differs from it by up to 2 of 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data.catalog import AUGMENTATIONS
from slimtrain.data.images import Preprocessing
from slimtrain.data.samples import Picture, as_pillow
from slimtrain.models.normalization import LUMA

Transform = Callable[[Picture], Tensor]

JITTER = 0.4
LIGHTING = 0.1
PADDING = 4 / 32  # of the side: 4 pixels of CIFAR's 32
AFFINE = {"degrees": 10, "translate": (0.1, 0.1), "scale": (0.9, 1.1)}
# Principal components of the RGB values (0 to 1) of ImageNet's pixels, one per column (AlexNet, sec. 4.1).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class Lighting(nn.Module):
    """Adds to all pixels of a float image [channels, H, W] (0 to 1) the color sum_k alpha_k eigenvalue_k eigenvector_k,
    alpha_k drawn from N(0, std) (AlexNet, sec. 4.1); to gray ones its luma, to a fourth channel nothing."""

    def __init__(self, std: float, channels: int = 3) -> None:
        super().__init__()
        self.std = std
        colors = torch.tensor(EIGENVECTORS) * torch.tensor(EIGENVALUES)  # [3 colors, 3 components]
        of_channels = {1: torch.tensor([LUMA]) @ colors, 3: colors, 4: torch.cat([colors, torch.zeros(1, 3)])}
        self.components = of_channels[channels]

    def forward(self, image: Tensor) -> Tensor:
        color = self.components @ (torch.randn(3) * self.std)
        return image + color[:, None, None]


class OfColors(nn.Module):
    """A change of the first three channels of an image [channels, H, W], the colors: a fourth stays as it is."""

    def __init__(self, change: nn.Module) -> None:
        super().__init__()
        self.change = change

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.change(image[:3]), image[3:]]) if len(image) > 3 else self.change(image)


def train_transform(kind: str, size: ImageSize, mean: Sequence[float], std: Sequence[float], whole: bool = False) -> Transform:
    """The augmentation of the catalog called `kind`; a new draw with every call. Without any, images are as in testing."""
    if kind == "none":
        return test_transform(size, mean, std, whole)
    height, width = sides(size)
    if kind == "cifar":
        padding = [round(side * PADDING) for side in (width, height)]
        changes = [v2.Resize((height, width)), v2.RandomCrop((height, width), padding), v2.RandomHorizontalFlip()]
        return _compose(mean, std, [*changes, v2.PILToTensor()])
    if kind == "digits":
        affine = v2.RandomAffine(**AFFINE, interpolation=v2.InterpolationMode.BILINEAR)
        return _compose(mean, std, [v2.Resize((height, width)), v2.PILToTensor(), affine])
    crop = v2.RandomResizedCrop((height, width), scale=(AUGMENTATIONS[kind].smallest_crop, 1.0))
    jitter = OfColors(v2.ColorJitter(JITTER, JITTER, JITTER))
    return _compose(mean, std, [crop, v2.PILToTensor(), jitter, v2.RandomHorizontalFlip()], [Lighting(LIGHTING, len(mean))])


def test_transform(size: ImageSize, mean: Sequence[float], std: Sequence[float], whole: bool) -> Transform:
    """What `slimtrain.data.images.Preprocessing` does: `whole`, as small images are, resized to `size`; of photographs, which
    are resized to cover `size` / 0.875, the center is cropped."""
    return Prepared(Preprocessing(size, tuple(mean), tuple(std), whole))


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


@dataclass(frozen=True)
class Prepared:
    """The preprocessing of tests, as a transform."""

    preprocessing: Preprocessing

    def __call__(self, image: Picture) -> Tensor:
        return torch.from_numpy(self.preprocessing.prepare(as_pillow(image, self.preprocessing.channels)))


def _compose(
    mean: Sequence[float], std: Sequence[float], of_bytes: Sequence[nn.Module], of_floats: Sequence[nn.Module] = ()
) -> Transform:
    """Changes of 8-bit images, then of values from 0 to 1, then the normalization."""
    to_float, normalize = v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)
    transform: Transform = v2.Compose([partial(as_pillow, channels=len(mean)), *of_bytes, to_float, *of_floats, normalize])
    return transform
