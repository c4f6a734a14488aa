"""What a search does with classifiers, and what with detectors: their images, their training, their tests, and what measures
their candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import AP50, Config
from slimtrain.data.datasets import ImageSets
from slimtrain.data.detection.held_out import DetectionPart, drawn_order
from slimtrain.data.samples import PartSamples
from slimtrain.detection.fixed.shipped import dense_spec
from slimtrain.detection.training import inputs as detection_inputs
from slimtrain.detection.training.checkpoints import open_with_images, opened_detector
from slimtrain.detection.training.inputs import detector_of
from slimtrain.detection.training.run import detector_start, train_detector
from slimtrain.detection.training.trainer import sampling_of
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.detectors import DetectionEvaluator, HeldOutObjects
from slimtrain.search.evaluator import NO_IMAGES, Evaluator
from slimtrain.search.held_out import HeldOut, draw_images
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.starting import spec_of, starting
from slimtrain.training.distributed import Processes
from slimtrain.training.inputs import data_of, test_transform_of
from slimtrain.training.run import train
from slimtrain.training.testing import Opened, open_with_data, opened_classifier

Said = Callable[[str], None]
OpenedWithData = tuple[Checkpoint, Config, Any]  # a checkpoint, the configuration with the images that it takes, and these


class Kind(ABC):
    """What depends on what the networks are."""

    @abstractmethod
    def data(self, config: Config) -> ImageSets:
        """The images that a configuration names."""

    @abstractmethod
    def module(self, config: Config) -> WidthSpec | None:
        """What a configuration trains where its graph is read off a module; None of a published architecture."""

    @abstractmethod
    def opened(self, config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> OpenedWithData:
        """A checkpoint, of several sets of `weights` in it the one that is named."""

    @abstractmethod
    def train(self, config: Config, processes: Processes, notes: Sequence[str] = ()) -> Path:
        """A training run."""

    @abstractmethod
    def tested(self, config: Config, processes: Processes, ckpt: str) -> Opened[Any]:
        """A checkpoint with what it is tested with."""

    def counted(self, spec: WidthSpec, image_size: ImageSize) -> WidthSpec:
        """The network whose costs are those of `spec` for images of `image_size`."""
        return spec

    @abstractmethod
    def part(self, samples: Any, begin: int, end: int) -> Any:
        """Samples `begin` to `end`."""

    @abstractmethod
    def drawn(self, samples: Any, count: int, seed: int, say: Said) -> Any:
        """`count` samples, all where that is 0, in a drawn order. UserError where there are too few."""

    @abstractmethod
    def evaluator(
        self, network: SlimmableNetwork, config: Config, images: Any, calibration: Any, processes: Processes
    ) -> Evaluator:
        """What measures candidates on `images`, with statistics of `calibration` images where there are some."""


class Classifiers(Kind):
    def data(self, config: Config) -> ImageSets:
        return data_of(config)

    def module(self, config: Config) -> WidthSpec | None:
        if not config.model:
            return None
        classes = len(data_of(config).classes)
        return spec_of(config, classes, starting(config, classes))

    def opened(self, config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> OpenedWithData:
        return open_with_data(config, processes, ckpt, weights)

    def train(self, config: Config, processes: Processes, notes: Sequence[str] = ()) -> Path:
        return train(config, processes, notes)

    def tested(self, config: Config, processes: Processes, ckpt: str) -> Opened[Any]:
        return opened_classifier(config, processes, ckpt)

    def part(self, samples: Any, begin: int, end: int) -> Any:
        return PartSamples(samples, np.arange(begin, end))

    def drawn(self, samples: Any, count: int, seed: int, say: Said) -> Any:
        return draw_images(samples, count, seed, say)

    def evaluator(
        self, network: SlimmableNetwork, config: Config, images: Any, calibration: Any, processes: Processes
    ) -> Evaluator:
        return Evaluator(
            network,
            self._chunks(config, images),
            processes,
            statistics=config.search_statistics,
            calibration=None if calibration is None else self._chunks(config, calibration),
            amp=_amp(config, processes),
            channels_last=bool(config.channels_last),
        )

    def _chunks(self, config: Config, images: Any) -> HeldOut:
        keys = ("image_size", "mean", "std", "augmentation", *(["exif_orientation"] if config.exif_orientation else []))
        transform = test_transform_of(config)
        return HeldOut(images, transform, config.search_batch, **_opening(config), seen=_seen(config, keys))


class Detectors(Kind):
    def data(self, config: Config) -> ImageSets:
        return detection_inputs.data_of(config)

    def module(self, config: Config) -> WidthSpec:
        return detector_start(config, detection_inputs.data_of(config)).network.spec

    def opened(self, config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> OpenedWithData:
        checkpoint, _, images = open_with_images(config, processes, ckpt, weights)
        return checkpoint, images.config, images.data

    def train(self, config: Config, processes: Processes, notes: Sequence[str] = ()) -> Path:
        return train_detector(config, processes, notes)

    def tested(self, config: Config, processes: Processes, ckpt: str) -> Opened[Any]:
        return opened_detector(config, processes, ckpt)

    def counted(self, spec: WidthSpec, image_size: ImageSize) -> WidthSpec:
        """With as many regions as it proposes and detects."""
        assert isinstance(spec, GraphSpec) and spec.detector is not None
        return dense_spec(spec, spec.detector, image_size)

    def part(self, samples: Any, begin: int, end: int) -> Any:
        return DetectionPart(samples, np.arange(begin, end))

    def drawn(self, samples: Any, count: int, seed: int, say: Said) -> Any:
        if not len(samples):
            raise UserError(NO_IMAGES)
        if count > len(samples):
            raise UserError(
                f"{count} images to search with, but only {len(samples)} are held out. Lower it, or hold out more."
            )
        if count:
            say(f"searching on {count:,} of {len(samples):,} images")
        return DetectionPart(samples, drawn_order(len(samples), f"search:{seed}")[: count or len(samples)])

    def evaluator(
        self, network: SlimmableNetwork, config: Config, images: Any, calibration: Any, processes: Processes
    ) -> Evaluator:
        spec = network.spec
        assert isinstance(spec, GraphSpec) and spec.detector is not None
        stride = spec.detector.image_stride
        return DetectionEvaluator(
            network,
            self._chunks(config, images, stride),
            processes,
            statistics=config.search_statistics,
            calibration=None if calibration is None else self._chunks(config, calibration, stride),
            amp=_amp(config, processes),
            channels_last=bool(config.channels_last),
            settings=spec.detector,
            measured=config.search_error or AP50,
            sampling=sampling_of(detector_of(config)),
            seed=config.seed,
        )

    def _chunks(self, config: Config, images: Any, stride: int) -> HeldOutObjects:
        seen = _seen(config, ("image_size", "mean", "std"))
        own = detector_of(config)
        seen |= {"scales": list(own.scales), "longest": own.longest} if own.scales else {}
        transform = detection_inputs.test_transform_of(config)
        return HeldOutObjects(images, transform, config.search_batch, stride=stride, **_opening(config), seen=seen)


def kind_of(config: Config) -> Kind:
    """What a configuration's networks are."""
    return Classifiers() if config.detector is None else Detectors()


def _opening(config: Config) -> dict[str, Any]:
    return {"workers": config.loaders, "kept_bytes": int(config.search_cache_gib * 2**30)}


def _seen(config: Config, keys: Sequence[str]) -> dict[str, Any]:
    return {key: getattr(config, key) for key in keys}


def _amp(config: Config, processes: Processes) -> str:
    """The precision that candidates are measured in: where the configuration leaves it open, bf16 on GPUs that have it."""
    if config.search_amp != "auto":
        return config.search_amp
    return "bf16" if processes.device.type == "cuda" and torch.cuda.is_bf16_supported() else "none"
