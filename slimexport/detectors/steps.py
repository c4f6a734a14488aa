"""The steps of an export that are others for detectors. What they take is loaded where there is a detector: no classifier's
export needs torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimexport.detectors.form import AS_TRAINED, SCENES, Detecting
from slimexport.probes.choosing import Chosen
from slimexport.target.manifest import Accuracy
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.catalog import DIGITS
from slimtrain.data.images import ImageSource, Preprocessing, open_source
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan

if TYPE_CHECKING:
    from slimexport.detectors.opening import OpenDetector

# Runners of files, the plans that these are of, and their precisions -> the accuracy of each.
Measuring = Callable[[Sequence[Callable[[Any], Any]], Sequence[ChannelPlan], Sequence[str]], list[Accuracy]]


def opened_detector(checkpoint: Checkpoint, image_size: ImageSize, detecting: Detecting) -> OpenDetector | None:
    """A detector's checkpoint as it is shipped (`open_detector`, whose errors it raises); None for another network. UserError
    where that is to end as a detector's."""
    if isinstance(checkpoint.spec, GraphSpec) and checkpoint.spec.detector is not None:
        from slimexport.detectors.opening import open_detector

        return open_detector(checkpoint, image_size, detecting)
    if detecting != AS_TRAINED:
        raise UserError(
            f"{checkpoint.file}: {checkpoint.spec.name} is no detector. --nms, --score-threshold and --detections are for "
            "detectors, leave them out."
        )
    return None


def check_sources(checkpoint: Checkpoint, detects: bool, accuracy: str | Path | None, *others: str | Path | None) -> None:
    """UserError for images of the other kind: scenes with objects, where there is no detector, or digits without boxes to
    count a detector's `accuracy` on."""
    file = checkpoint.file
    if not detects and not Path(SCENES).exists() and SCENES in map(str, (accuracy, *others)):
        raise UserError(
            f"{SCENES}: show objects for detectors, and {file}, a {checkpoint.spec.name}, is no detector. Give images of its "
            f"own kind: a folder, or `{DIGITS}`."
        )
    if detects and str(accuracy) == DIGITS:
        raise UserError(
            f"{DIGITS}: have classes and no boxes, and {file} is a detector. Give `{SCENES}`, or a folder in COCO's form."
        )


def source_of(source: str | Path, preprocessing: Preprocessing, detects: bool) -> ImageSource:
    """Images to calibrate on: `open_source`, of detectors also `scenes`."""
    if not detects:
        return open_source(source, preprocessing)
    from slimexport.detectors.sources import open_images

    return open_images(source, preprocessing)


def detected_images(
    checkpoint: Checkpoint,
    plans: Sequence[ChannelPlan],
    preprocessing: Preprocessing,
    count: int | None,
    given: str | Path | None,
    *,
    choosing: bool,
) -> Chosen:
    """The images that a detector's files are verified on: `slimexport.detectors.sources.probe_images`."""
    from slimexport.detectors.sources import probe_images

    return probe_images(checkpoint, plans, preprocessing, count, given, choosing)


def precision_of(source: str | Path, detector: OpenDetector, preprocessing: Preprocessing, workers: int | None) -> Measuring:
    """What measures a detector's files on the annotated images of `source` (`annotated_images`, whose errors it raises)."""
    from slimexport.detectors.precision import annotated_images, measure, tell_apart

    images = annotated_images(source, detector, preprocessing, workers)

    def measured(
        runners: Sequence[Callable[[Any], Any]], plans: Sequence[ChannelPlan], precisions: Sequence[str]
    ) -> list[Accuracy]:
        accuracies = measure(runners, plans, images, detector)
        for plan, accuracy, precision in zip(plans, accuracies, precisions, strict=True):
            tell_apart(plan.name, accuracy, precision)
        return accuracies

    return measured
