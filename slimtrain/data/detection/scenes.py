"""scikit-learn's digits in scenes: images with objects that need no download.

A scene is a textured background with shapes that are no digits, and a few digits of many sizes, each a little turned and
stretched. Scene i of a split is drawn from (seed, split, i) alone, so that it is the same whatever was drawn before and in
whichever process. Scenes to train on show the training digits of `slimtrain.data.digits`, the others its test digits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data.detection.targets import Targets, boxes_of_masks
from slimtrain.data.digits import digits_split

CLASSES = tuple(map(str, range(10)))
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
TRIES = 20  # places that a digit is offered
INK = 0.35  # of a digit's strength: from here on a pixel is of its mask
COVERED = 0.1  # share of the smaller of two boxes that may lie within the other
TURN_DEGREES = 8.0
STRETCH = 1.2  # the sides of a digit differ by at most this
NOISE = 0.02
Floats = NDArray[np.float32]
Canvas = tuple[Floats, NDArray[np.int16]]  # brightness [H, W] from 0 to 1, and the number of the digit that a pixel is of


@dataclass(frozen=True)
class SceneSettings:
    """What scenes look like. A digit's larger side is of `smallest` to `largest` pixels; there are 1 to `most`.

    `both_contrasts`: some digits are dark on light, which is much harder to learn.
    """

    image_size: ImageSize = 128
    most: int = 5
    smallest: int = 18
    largest: int = 44
    both_contrasts: bool = False

    def __post_init__(self) -> None:
        if self.most < 1 or not 8 <= self.smallest <= self.largest <= min(sides(self.image_size)):
            raise UserError(
                f"scenes of {self.most} digits of {self.smallest} to {self.largest} pixels in images of {self.image_size}: "
                "expected at least 1 digit, of 8 pixels or more, none larger than the image."
            )


class SceneSamples:
    """`count` scenes of a split, drawn by `seed` when they are asked for. `shown`: the numbers of the split's digits that they
    show, if not all. ResourceError without scikit-learn."""

    def __init__(
        self,
        split: Split,
        count: int,
        seed: int = 0,
        settings: SceneSettings | None = None,
        shown: NDArray[np.int64] | None = None,
    ) -> None:
        digits = digits_split()
        images, labels = {
            "train": (digits.train_images, digits.train_labels),
            "test": (digits.test_images, digits.test_labels),
        }[split]
        self.split, self.count, self.seed = split, count, seed
        self.settings = SceneSettings() if settings is None else settings
        if shown is not None:
            images, labels = images[shown], labels[shown]
        self.digits: Floats = images[:, 0].astype(np.float32) / np.float32(255)
        self.labels = labels
        # an image and its targets are asked for one after the other, and drawn once
        self.scene = functools.lru_cache(maxsize=1)(self._scene)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "scene"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.scene = functools.lru_cache(maxsize=1)(self._scene)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Tensor:
        """uint8 [3, H, W], gray."""
        return self.scene(index)[0]

    def targets(self, index: int) -> Targets:
        """The digits: boxes tight around their ink, masks of which no two share a pixel."""
        return self.scene(index)[1]

    def name(self, index: int) -> str:
        return f"scenes {self.split} {index}"

    def _scene(self, index: int) -> tuple[Tensor, Targets]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        draw = np.random.Generator(np.random.PCG64([self.seed, SPLITS.index(self.split), index]))
        height, width = sides(self.settings.image_size)
        canvas = background(draw, height, width), np.full((height, width), -1, np.int16)
        labels = self._place_digits(draw, canvas)
        image, owner = canvas
        image += draw.normal(0, NOISE, image.shape).astype(np.float32)
        pixels = torch.from_numpy(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
        masks = torch.from_numpy(owner[None] == np.arange(len(labels))[:, None, None])
        targets = Targets(
            height,
            width,
            boxes_of_masks(masks),
            torch.tensor(labels) + 1,
            torch.zeros(len(labels), dtype=torch.bool),
            masks.sum((1, 2)).float(),
            index,
            masks,
        )
        return pixels[None].repeat(3, 1, 1), targets

    def _place_digits(self, draw: np.random.Generator, canvas: Canvas) -> list[int]:
        """Draws digits where they cover no other; their classes in the order of their numbers."""
        labels: list[int] = []
        boxes: list[tuple[int, int, int, int]] = []
        height, width = canvas[0].shape
        for _ in range(int(draw.integers(1, self.settings.most + 1))):
            for _ in range(TRIES):
                which = int(draw.integers(len(self.digits)))
                ink = inked(draw, self.digits[which], self.settings.smallest, self.settings.largest)
                high, wide = ink.shape
                top, left = int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1))
                box = (left, top, left + wide, top + high)
                if all(covered(box, other) <= COVERED for other in boxes):
                    self._draw_digit(draw, canvas, ink, top, left, len(labels))
                    labels.append(int(self.labels[which]))
                    boxes.append(box)
                    break
        return labels

    def _draw_digit(self, draw: np.random.Generator, canvas: Canvas, ink: Floats, top: int, left: int, number: int) -> None:
        place = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
        image, owner = canvas
        dark = self.settings.both_contrasts and draw.random() < 0.5
        strength = draw.uniform(0.45, 0.75)
        free = owner[place] < 0  # a pixel of another digit stays its own
        image[place] += (-1 if dark else 1) * strength * ink * free
        owner[place][(ink > INK) & free] = number


def covered(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """The share of the smaller of two boxes that lies within the other."""
    wide = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    high = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return wide * high / smaller


def inked(draw: np.random.Generator, digit: Floats, smallest: int, largest: int) -> Floats:
    """A digit [8, 8] of values from 0 to 1, turned, stretched and enlarged, cut to its ink: the larger side is of `smallest`
    to `largest` pixels."""
    side = int(draw.integers(smallest, largest + 1))
    stretch, turn = float(draw.uniform(1 / STRETCH, STRETCH)), float(draw.uniform(-TURN_DEGREES, TURN_DEGREES))
    # with a margin, so that nothing is turned out of the picture; enlarged first to twice the side, so that edges stay smooth
    large = Image.fromarray(np.pad(digit, 2)).resize((2 * side, 2 * side), Image.Resampling.BILINEAR)
    ink = cut_to_ink(np.asarray(large.rotate(turn, Image.Resampling.BILINEAR)))
    high, wide = ink.shape[0] * stretch, ink.shape[1]
    scale = side / max(high, wide)
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    return np.clip(np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BILINEAR)), 0, 1)


def cut_to_ink(strength: Floats) -> Floats:
    """The smallest part that holds all ink."""
    rows, columns = (np.flatnonzero((strength > INK).any(axis)) for axis in (1, 0))
    return np.ascontiguousarray(strength[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def background(draw: np.random.Generator, height: int, width: int) -> Floats:
    """[height, width] from about 0 to 0.5: a soft texture, and up to 4 shapes that are no digits: bars, discs, and lines
    across the whole scene."""
    cells = draw.normal(0, 0.05, (5, 5)).astype(np.float32)
    texture = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    image: Floats = np.asarray(texture, np.float32) + np.float32(0.15)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(int(draw.integers(0, 5))):
        (cy, cx), shade = draw.uniform(0, (height, width)), float(draw.uniform(-0.15, 0.3))
        turn = float(draw.uniform(0, np.pi))
        along, across = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        kind = int(draw.integers(3))
        if kind == 0:
            long, short = draw.uniform(2, 16, 2)
            inside = (abs(along) < long) & (abs(across) < short)
        elif kind == 1:
            long, short = draw.uniform(2, 14, 2)
            inside = (along / long) ** 2 + (across / short) ** 2 < 1
        else:
            inside = abs(across) < draw.uniform(0.5, 1.5)
        image[inside] += shade
    return image
