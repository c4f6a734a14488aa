"""Average precision of a detector's files, and of the checkpoint that they are made from, on the same images.

Detections are counted in the size that images have in the data, as COCO does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from slimexport.detectors.form import NONE, SCENES, TRT
from slimexport.detectors.opening import OpenDetector
from slimexport.target.manifest import Accuracy
from slimexport.target.precision import EXACT, row_of
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import sides
from slimtrain.base.text import count
from slimtrain.data.detection.batches import DetectionBatch, Padding, detection_test_batches
from slimtrain.data.detection.coco import open_coco_tests
from slimtrain.data.detection.scenes import CLASSES, SceneSamples, SceneSettings
from slimtrain.data.detection.targets import DetectionSamples, Targets
from slimtrain.data.detection.transforms import DetectionTransform, normalized, resized
from slimtrain.data.images import Preprocessing, fitting
from slimtrain.data.samples import Picture, as_pillow
from slimtrain.detection.average_precision import AveragePrecision, Kind, Precision
from slimtrain.detection.training.testing import detected, evaluate_detector, kinds_of, sigmas_of
from slimtrain.models.channels import ChannelPlan

log = logging.getLogger(__name__)

BATCH_SIZE = 8
TEST_SCENES = 200  # as many as trainings test on
AP_LEEWAY = 1e-3  # of fp32 files: a detection more or less that near-equals decide
# What of average precision fewer bits may cost. Those of fp16 and bf16 cost next to nothing where the last layers are float32.
# Two points are about what the next narrower width costs, of the digits 0.002 to 0.07: int8 that loses more is not worth it.
MOST_LOST = {"float16": 5e-3, "bfloat16": 1e-2, "int8": 2e-2}
Given = Mapping[str, Any]


@dataclass(frozen=True)
class Framed(DetectionTransform):
    """An image as files of `size`, height and width, take it: in its proportions as large as it can be. Zeros come to the
    right and below."""

    size: tuple[int, int] = (1, 1)

    def __call__(self, picture: Picture, targets: Targets, draw: torch.Generator | None = None) -> tuple[Tensor, Targets]:
        height, width = self.size
        across, down = fitting((targets.width, targets.height), (width, height))
        image, targets = resized(as_pillow(picture, len(self.mean)), targets, down, across)
        return normalized(image, self.mean, self.std), targets


@dataclass(frozen=True)
class Annotated:
    """Images with the objects in them. `name` goes into the manifest."""

    name: str
    samples: DetectionSamples
    preprocessing: Preprocessing
    workers: int = 0

    def batches(self) -> Iterator[DetectionBatch]:
        """All images once; unreadable ones are named and left out."""
        how, size = self.preprocessing, sides(self.preprocessing.image_size)
        batches = detection_test_batches(
            self.samples,
            Framed(how.mean, how.std, size=size),
            batch_size=BATCH_SIZE,
            padding=Padding(size=size),
            workers=self.workers,
        )
        with tqdm(desc="accuracy", total=len(self.samples), unit="image", disable=None, leave=False) as bar:
            for batch in batches:
                for name in batch.unreadable:
                    log.warning("%s: not a readable image, left out", name)
                bar.update(len(batch.targets) + len(batch.unreadable))
                if len(batch.targets):
                    yield batch


def annotated_images(
    source: str | Path, detector: OpenDetector, preprocessing: Preprocessing, workers: int | None = None
) -> Annotated:
    """The images of `source`: `scenes`, as the run that trained the checkpoint was tested on, or a folder in COCO's form.

    UserError where files give no detections, the folder is none, or its classes are others; ResourceError without the extra
    `detection`.
    """
    file, settings = detector.checkpoint.file, detector.settings
    if detector.nms in (NONE, TRT):
        what = "leaves them to you" if detector.nms == NONE else "makes them in TensorRT alone"
        raise UserError(
            f"--accuracy-data: average precision is of detections, and --nms {detector.nms} {what}. Measure it with another "
            "--nms."
        )
    AveragePrecision(settings.classes)  # which its package is needed for
    samples: DetectionSamples
    names: Sequence[str]
    if str(source) == SCENES:
        samples, names = _scenes(detector), CLASSES
    else:
        samples, names = open_coco_tests(source, masks=settings.mask is not None, keypoints=settings.keypoints is not None)
    if len(names) != settings.classes:
        raise UserError(
            f"{source}: has {count(len(names), 'class', 'classes')}, {file} has {settings.classes}. Give images with "
            "objects of its classes."
        )
    own = detector.checkpoint.class_names
    if own and tuple(own) != tuple(names):
        theirs, ours = next(pair for pair in zip(own, names, strict=True) if pair[0] != pair[1])
        raise UserError(f"{source}: has a class {ours!r} where {file} has {theirs!r}. Give the classes it was trained with.")
    return Annotated(Path(source).name, samples, preprocessing, 0 if workers is None else workers)


def _scenes(detector: OpenDetector) -> SceneSamples:
    """Those that a run of the checkpoint's settings tests on."""
    settings = detector.checkpoint.settings
    own = settings.get("detector")
    count = own.get("test_scenes", TEST_SCENES) if isinstance(own, Mapping) else TEST_SCENES
    return SceneSamples("test", int(count), int(settings.get("seed", 0)), SceneSettings(detector.checkpoint.image_size))


def measure(
    runners: Sequence[Callable[[Any], Given]], plans: Sequence[ChannelPlan], images: Annotated, detector: OpenDetector
) -> list[Accuracy]:
    """The average precision of every runner, whose plans these are, beside that of the checkpoint; a difference of fp32 files
    that roundings do not explain is logged by `tell_apart`. UserError where no image can be read, or shows an object."""
    kinds = kinds_of(detector.settings)
    sums = [AveragePrecision(detector.settings.classes, kinds, sigmas_of(detector.settings)) for _ in runners]
    total = 0

    def passing() -> Iterator[DetectionBatch]:
        """The batches, which run through the files too on their way."""
        nonlocal total
        for batch in images.batches():
            pixels = batch.images.numpy()
            total += len(batch.targets)
            for run, precision in zip(runners, sums, strict=True):
                given = {name: torch.from_numpy(np.asarray(values)) for name, values in run(pixels).items()}
                for number, (targets, scale) in enumerate(zip(batch.originals or batch.targets, batch.scales, strict=True)):
                    precision.add(targets, detected(given, number, targets, scale))
            yield batch

    detector.dense.replace_calibrated(detector.checkpoint.network.calibrated)
    distinct = list(dict.fromkeys(plans))
    results = evaluate_detector(detector.dense, detector.settings, distinct, passing())
    own = {plan: result.boxes for plan, result in zip(distinct, results, strict=True)}
    computed = [{kind: precision.compute(kind) for kind in kinds} for precision in sums]
    return [_accuracy(by_kind, own[plan], total, images.name) for by_kind, plan in zip(computed, plans, strict=True)]


def _accuracy(by_kind: Mapping[Kind, Precision], checkpoint: Precision, images: int, data: str) -> Accuracy:
    boxes = by_kind["boxes"]
    accuracy = Accuracy(images=images, data=data, ap=boxes.ap, ap50=boxes.ap50, checkpoint_ap=checkpoint.ap)
    others: dict[str, Any] = {f"ap_{kind}": precision.ap for kind, precision in by_kind.items() if kind != "boxes"}
    return replace(accuracy, **others)


def tell_apart(name: str, accuracy: Accuracy, file: str = EXACT) -> None:
    """A warning where the average precision of a file (of precision `file`) is not the checkpoint's, or falls by more than
    its numbers explain."""
    ap, other, row = accuracy.ap or 0.0, accuracy.checkpoint_ap or 0.0, row_of(file)
    if row.name == EXACT:
        if abs(ap - other) > AP_LEEWAY:
            log.warning("%s: its average precision is %.4f, the checkpoint's %.4f", name, ap, other)
    elif other - ap > MOST_LOST[row.number]:
        log.warning(
            "%s %s: its average precision is %.4f, the checkpoint's %.4f: more is lost than %s should cost (%g). Take another "
            "precision, or a narrower width",
            *(name, row.name, ap, other, row.option, MOST_LOST[row.number]),
        )
