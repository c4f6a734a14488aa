"""The images with objects that a configuration names, changed as it says, in batches for one process of a run: its keys as
arguments of slimtrain.data.detection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.config.config import Config
from slimtrain.config.detector import DetectorConfig
from slimtrain.data.catalog import DETECTION_SETS, DetectionRequest
from slimtrain.data.detection.batches import (
    DetectionBatch,
    Padding,
    detection_test_batches,
    detection_training_batches,
)
from slimtrain.data.detection.coco import DetectionData
from slimtrain.data.detection.opening import open_detection_data
from slimtrain.data.detection.targets import DetectionSamples
from slimtrain.data.detection.transforms import DetectionTransform, fitted, padded, resized
from slimtrain.data.samples import as_pillow
from slimtrain.models.detector import KEYPOINT, MASK, SSDLITE
from slimtrain.training.inputs import PROBES, Images, spread_indices


def detector_of(config: Config) -> DetectorConfig:
    """A detector's own keys, which its configuration has."""
    assert config.detector is not None
    return config.detector


def data_of(config: Config) -> DetectionData:
    """The images to train and test on. Errors as of `open_detection_data`."""
    own = detector_of(config)
    request = DetectionRequest(
        config.data_dir,
        own.kind == MASK,
        own.kind == KEYPOINT,
        config.seed,
        config.image_size,
        own.scenes,
        own.test_scenes,
        config.holdout,
    )
    return open_detection_data(config.data, request, config.classes)


def train_transform_of(config: Config, data: DetectionData) -> DetectionTransform:
    """What is done to training images."""
    own = detector_of(config)
    return DetectionTransform(config.mean, config.std, own.scales, own.longest, own.mirror, data.pairs)


def test_transform_of(config: Config) -> DetectionTransform:
    """What is done to test images."""
    own = detector_of(config)
    return DetectionTransform(config.mean, config.std, own.scales, own.longest)


test_transform_of.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


@dataclass(frozen=True)
class DetectionImages(Images):
    """Images with objects. `stride` divides the sides of a batch's images."""

    data: DetectionData
    stride: int = 32

    def testing(self) -> Iterator[DetectionBatch]:
        """Every test image once, over all processes."""
        config = self.config
        return detection_test_batches(
            self.data.test,
            test_transform_of(config),
            batch_size=config.test_batch_size or config.batch_size,
            **self._shared(),
        )

    def _training(
        self, epochs: int, batch_size: int, seed: int, drop_last: bool = True, start_step: int = 0
    ) -> Iterator[DetectionBatch]:
        return detection_training_batches(
            self.data.train,
            train_transform_of(self.config, self.data),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            **self._shared(),
        )

    def _shared(self) -> dict[str, Any]:
        processes = self.processes
        return {
            "padding": padding_of(self.config, self.stride),
            "rank": processes.rank,
            "world": processes.world,
            "workers": self.config.loaders,
            "pin_memory": processes.device.type == "cuda",
        }


def padding_of(config: Config, stride: int) -> Padding:
    """What a batch's images are padded to. SSDLite's anchors are shares of an image's sides: where all images fit into
    `image_size`, they are of that, as its files are."""
    own, size = detector_of(config), sides(config.image_size)
    fits = own.longest <= min(size) if own.scales else DETECTION_SETS[config.data].source == "package"
    return Padding(stride, size if own.kind == SSDLITE and fits else None)


def carried_scenes(config: Config, samples: DetectionSamples) -> Tensor | None:
    """Images that a finished checkpoint carries, for the proof of what is exported: some from all over a test set as files of
    `image_size` take them, before they are normalized, uint8 [images, 3, height, width]. None where the configuration wants
    none: by itself it takes those that everybody has, as they come with a package, and nobody's own."""
    packaged = DETECTION_SETS[config.data].source == "package"
    if not (packaged if config.probe_images == "auto" else config.probe_images == "yes"):
        return None
    images = []
    for index in spread_indices(len(samples), PROBES):
        with contextlib.suppress(Exception):  # Pillow's decoders raise nearly anything on a damaged file
            images.append(framed(samples, index, config.image_size))
    return torch.stack(images) if images else None


def framed(samples: DetectionSamples, index: int, image_size: ImageSize) -> Tensor:
    """An image, uint8 [3, height, width], in its proportions as large as it can be, with black to the right and below."""
    height, width = sides(image_size)
    image, targets = as_pillow(samples.image(index)), samples.targets(index)
    scale = min(height / targets.height, width / targets.width)
    if (targets.height, targets.width) != (height, width):
        size = fitted(targets.height, targets.width, round(min(targets.height, targets.width) * scale), max(height, width))
        image, _ = resized(image, targets, min(size[0], height), min(size[1], width))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    return padded([pixels.permute(2, 0, 1)], size=(height, width))[0]
