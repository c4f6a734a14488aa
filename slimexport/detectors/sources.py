"""Images that a detector has something to find in: those that its checkpoint carries, photographs, scenes of digits.

Noise shows no objects: nothing is detected on it, and a file that detects nothing would be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from slimexport.detectors.form import SCENES
from slimexport.probes.choosing import Chosen, choose
from slimexport.probes.sources import carried_images
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import sides
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.detection.scenes import SceneSamples, SceneSettings, Split
from slimtrain.data.images import Images, ImageSource, Preprocessing, open_source
from slimtrain.data.samples import as_pillow
from slimtrain.data.sampling import Indices
from slimtrain.models.channels import ChannelPlan

PROBES, MOST_PROBES = 4, 12
PROBE_PIXELS = 2**18  # that are probed at least: of small images more, as little is detected on each, 16 of 128 x 128
MOST_POOL, POOL_PIXELS = 32, 2**19  # of images to choose from: 32 of 128 x 128, 20 of 160 x 160
LEAST_POOL = 8  # else none, as of 800 x 1344
SEED = 7  # of scenes that are probes: accuracy is measured on others
CALIBRATION_SCENES = 2048
RGB = 3


def open_images(source: str | Path, preprocessing: Preprocessing) -> ImageSource:
    """As `open_source`, whose errors it raises; `scenes` are some to train on."""
    if str(source) != SCENES:
        return open_source(source, preprocessing)
    return _scenes("train", CALIBRATION_SCENES, preprocessing)


def probe_images(
    checkpoint: Checkpoint,
    plans: Sequence[ChannelPlan],
    preprocessing: Preprocessing,
    count: int | None = None,
    given: str | Path | None = None,
    choosing: bool = True,
) -> Chosen:
    """What a detector's files are verified on: of `given` images, of those that its checkpoint carries, filled up with scenes
    that nobody trained on, or of such scenes; `count`, or `usual_probes` and up to as many again as MOST_PROBES has more than
    PROBES, as many as it takes to move its channels. Not `choosing`: the first ones. UserError where fewer than two can be
    read."""
    first = count or usual_probes(preprocessing)
    images, more = _candidates(checkpoint, preprocessing, first, given)
    if len(images) < 2:
        raise UserError(f"{given}: at least 2 readable images are needed for verification, found {len(images)}.")
    if not choosing or pool_of(preprocessing) < LEAST_POOL:
        return Chosen(images)
    return choose(checkpoint.network, plans, images, more, count or first + MOST_PROBES - PROBES)


def usual_probes(preprocessing: Preprocessing) -> int:
    """How many images are probed at least."""
    return min(max(PROBES, PROBE_PIXELS // math.prod(sides(preprocessing.image_size))), 4 * PROBES)


def pool_of(preprocessing: Preprocessing) -> int:
    """How many images there are to choose from."""
    return min(MOST_POOL, POOL_PIXELS // math.prod(sides(preprocessing.image_size)))


def _candidates(
    checkpoint: Checkpoint, preprocessing: Preprocessing, count: int, given: str | Path | None
) -> tuple[Images, Callable[[], Images]]:
    """The first images, and what gives others to choose from."""
    if given is not None:
        source = open_images(given, preprocessing) if str(given) != SCENES else _scenes("test", count, preprocessing)
        return _some(source, count), partial(_some, source, pool_of(preprocessing))
    if checkpoint.probe_images is not None:
        own = carried_images(checkpoint, preprocessing)
        first = own[:count]
        if len(first) < count and (preprocessing.channels == RGB or len(first) < PROBES):  # as many more as there are to be
            first = np.concatenate([first, _drawn(preprocessing, count - len(first))])
        return first, lambda: np.concatenate([own, _drawn(preprocessing, pool_of(preprocessing))])
    scenes = _drawn(preprocessing, count)
    return scenes, lambda: _drawn(preprocessing, pool_of(preprocessing))


def _drawn(preprocessing: Preprocessing, count: int) -> Images:
    return _some(_scenes("test", count, preprocessing), count)


def _some(source: ImageSource, count: int) -> Images:
    return np.stack(source.some(count, "verification"))


def _scenes(split: Split, count: int, preprocessing: Preprocessing) -> ImageSource:
    """Scenes as large as images. UserError where these are not red, green and blue, or too small for a digit."""
    if preprocessing.channels != RGB:
        raise UserError(
            f"{SCENES}: are of {RGB} channels, the network takes {preprocessing.channels}. Give images of its kind."
        )
    samples = SceneSamples(split, count, SEED, scene_settings(preprocessing))

    def read(indices: Indices) -> list[Images]:
        return [preprocessing.prepare(as_pillow(samples.image(int(index)), RGB)) for index in indices]

    return ImageSource(SCENES, np.zeros(count, np.int64), "", lambda indices: iter(read(indices)))


def scene_settings(preprocessing: Preprocessing) -> SceneSettings:
    """Of scenes as large as images; of smaller ones than usual the digits are smaller too, of larger ones larger."""
    usual, side = SceneSettings(), min(sides(preprocessing.image_size))
    scale = side / min(sides(usual.image_size))
    if 1 <= scale <= 2:
        return replace(usual, image_size=preprocessing.image_size)
    smallest, largest = (max(8, round(size * scale)) for size in (usual.smallest, usual.largest))
    return SceneSettings(preprocessing.image_size, usual.most, smallest, largest)
