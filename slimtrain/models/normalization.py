"""Mean and standard deviation of images, per channel, of values from 0 to 1: ImageNet's, for images of any channels. No torch.

Gray images are Pillow's and torchvision's: luma of ITU-R BT.601, a weighted sum of red, green and blue. The mean of gray is
that sum of the means; of deviations it is an upper bound, close since colors of photographs rise and fall together. A fourth
channel (opacity, near infrared, depth), and those of images that are neither gray nor color, are not ImageNet's: 0.5 and 0.5,
which maps 0 to 1 onto -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN = INCEPTION_STD = (0.5, 0.5, 0.5)
UNKNOWN = 0.5


def imagenet_normalization(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std), as many numbers each as images have channels.

    >>> from slimtrain.models.normalization import imagenet_normalization
    >>> imagenet_normalization(1)
    ((0.459,), (0.2256,))
    """
    return _for_channels(IMAGENET_MEAN, channels), _for_channels(IMAGENET_STD, channels)


def _for_channels(color: Sequence[float], channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (round(sum(weight * value for weight, value in zip(LUMA, color, strict=True)), 4),)
    own = tuple(color) if channels >= len(color) else ()
    return (*own, *(UNKNOWN,) * (channels - len(own)))
