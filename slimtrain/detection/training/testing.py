"""What a slimmable detector finds at a plan, and how much of what is there that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimtrain.base.errors import UserError
from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.average_precision import PERSON, AveragePrecision, Detected, Kind, Precision
from slimtrain.detection.fixed.detector import Detector, detector_of
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import to_device
from slimtrain.training.step import autocast

MASKED = 0.5  # the probability above which a pixel is an object's
SIGMA = 0.07  # of keypoints that are not COCO's: the mean of its own
HEADERS: dict[Kind, str] = {"boxes": "AP", "masks": "mask AP", "keypoints": "keypoint AP"}


@dataclass(frozen=True)
class DetectionResult:
    """Average precision over so many images, of boxes and of what else is detected."""

    images: int
    precisions: Mapping[Kind, Precision]

    @property
    def boxes(self) -> Precision:
        return self.precisions["boxes"]

    @property
    def error(self) -> float:
        """What is missing of the boxes' average precision."""
        return 1 - (self.boxes.ap or 0.0)

    @property
    def figures(self) -> dict[str, float]:
        boxes = self.boxes
        figures = {"ap": boxes.ap or 0.0, "ap50": boxes.ap50 or 0.0, "ap75": boxes.ap75 or 0.0}
        for kind, precision in self.precisions.items():
            if kind != "boxes":
                figures |= {f"ap_{kind}": precision.ap or 0.0, f"ap50_{kind}": precision.ap50 or 0.0}
        return figures

    @property
    def columns(self) -> dict[str, str]:
        columns: dict[str, str] = {}
        for kind, precision in self.precisions.items():
            columns |= {HEADERS[kind]: f"{precision.ap or 0.0:.3f}", f"{HEADERS[kind]}50": f"{precision.ap50 or 0.0:.3f}"}
        return columns


@torch.no_grad()
def evaluate_detector(
    network: SlimmableNetwork,
    settings: DetectorSettings,
    plans: Sequence[ChannelPlan],
    batches: Iterable[DetectionBatch],
    processes: Processes | None = None,
    *,
    amp: str = "none",
    channels_last: bool = False,
) -> list[DetectionResult]:
    """COCO's average precision at every plan, of boxes, and of masks or keypoints where it gives them, in the size that images
    have in the data. Batches are gone through once.

    Of several `processes` each gives its share, every image counts once, and all get the same. UserError where no image shows
    an object. The network is left as it was.
    """
    processes = processes or Processes(0, 1, next(network.parameters()).device)
    sums = [precision_of(settings) for _ in plans]
    detectors: dict[tuple[int, int], Detector] = {}
    training = network.training
    network.eval()
    try:
        for batch in batches:
            if not len(batch.targets):
                continue
            images = to_device(batch.images, processes.device, channels_last)
            size = images.shape[2], images.shape[3]
            if size not in detectors:
                detectors[size] = detector_of(network, settings, size, lambda: autocast(processes.device, amp))
            detector = detectors[size]
            for plan, precision in zip(plans, sums, strict=True):
                with network.at(plan):
                    note_detections(precision, detector(images), batch)
    finally:
        network.train(training)
    results = [_computed(precision, processes) for precision in sums]
    if any(result.boxes.ap is None for result in results):
        raise UserError("no test image shows an object, so that there is nothing to be detected. Add annotated ones.")
    return results


def precision_of(settings: DetectorSettings) -> AveragePrecision:
    """What collects detections of a detector of `settings`."""
    return AveragePrecision(settings.classes, kinds_of(settings), sigmas_of(settings))


def note_detections(precision: AveragePrecision, given: Mapping[str, Tensor], batch: DetectionBatch) -> None:
    """Add what is detected of a batch's images, in the size that they have in the data."""
    given = {name: value.cpu() for name, value in given.items()}
    for number, (targets, scale) in enumerate(zip(batch.originals or batch.targets, batch.scales, strict=True)):
        precision.add(targets, detected(given, number, targets, scale))


def kinds_of(settings: DetectorSettings) -> tuple[Kind, ...]:
    """What average precision is of."""
    kinds: list[Kind] = ["boxes"]
    if settings.mask is not None:
        kinds.append("masks")
    if settings.keypoints is not None:
        kinds.append("keypoints")
    return tuple(kinds)


def sigmas_of(settings: DetectorSettings) -> list[float] | None:
    """The tolerances of keypoints that are not COCO's 17, which have their own (None): SIGMA for each."""
    if settings.keypoints is None or settings.keypoints.count == PERSON:
        return None
    return [SIGMA] * settings.keypoints.count


def detected(given: Mapping[str, Tensor], number: int, targets: Targets, scale: Tensor) -> Detected:
    """What is detected of an image, in the size of its `targets`: `scale` are its height and width over these. As
    torchvision's, boxes end where the image does, and what lies in its padding alone is none."""
    count = int(given["count"][number])
    down, across = scale.tolist()
    whole = given["boxes"][number, :count].double() / torch.tensor([across, down, across, down])
    sides = torch.tensor([targets.width, targets.height] * 2, dtype=whole.dtype)
    boxes = whole.clamp(min=0).minimum(sides)
    there = (boxes[:, :2] < boxes[:, 2:]).all(1)
    masks = keypoints = None
    if "masks" in given:
        own = given["masks"][number, :count, None].float()[there]
        # masks fill the whole boxes, of which what lies in the image counts
        masks = paste_masks_in_image(own, whole[there].float(), (targets.height, targets.width))[:, 0] > MASKED
    if "keypoints" in given:
        keypoints = given["keypoints"][number, :count][there].double() / torch.tensor([across, down, 1.0])
    scores, labels = (given[name][number, :count][there].numpy() for name in ("scores", "labels"))
    return Detected(
        boxes[there].numpy(),
        scores,
        labels,
        None if masks is None else masks.numpy(),
        None if keypoints is None else keypoints.numpy(),
    )


def _computed(precision: AveragePrecision, processes: Processes) -> DetectionResult:
    """Over all processes."""
    first, *others = processes.gathered(precision)
    for other in others:
        first.extend(other)
    return DetectionResult(len(first.images), {kind: first.compute(kind) for kind in first.kinds})


def precisions_of(
    network: SlimmableNetwork,
    settings: DetectorSettings,
    plans: Sequence[ChannelPlan],
    batches: Iterable[DetectionBatch],
) -> list[Precision]:
    """Average precision of boxes at each plan, in evaluation mode. Batches are gone through once."""
    return [result.boxes for result in evaluate_detector(network, settings, plans, batches)]
