"""What a slimmable detector finds at a plan, and its average precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from slimtrain.base.packages import is_installed
from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.detection.fixed.coding import rows_of
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.detector import detector_of
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.training import testing
from slimtrain.models.detector import KEYPOINT, MASK, RETINA
from slimtrain.training.distributed import Processes
from tests.support.slimtrain_processes import alone, in_processes
from tests.support.trained_detectors import CLASSES, SIZE, drawn_batch, drawn_images, quick_detector, quick_settings


def test_detections_are_those_of_the_whole_network() -> None:
    """All at once, at regions that were proposed before."""
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none").double().eval()
    settings, images = quick_settings(), drawn_images(2).double()
    detector = detector_of(network, settings, SIZE)
    for width in (0.5, 1.0):
        with network.at(network.plan(width)), torch.no_grad():
            given = detector(images)
            proposals = Proposals(settings, SIZE).double()
            dense = network(images, torch.zeros(0, 5, dtype=torch.float64))
            proposed = proposals(*(dense[name] for name in proposals.input_shapes))
            whole = network(images, proposed["rows"])
            right = Detections(settings, SIZE, proposals.kept)(
                proposed["rois"], proposed["valid"], whole["class_logits"], whole["box_deltas"]
            )
        right.pop("rows")
        right["settled"] &= proposed["settled"]
        assert set(given) == set(right) and int(given["count"].sum())
        for name, value in right.items():
            torch.testing.assert_close(given[name], value)


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_precision_is_of_what_was_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds everything, and one that finds nothing."""
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none").train()
    batch = drawn_batch([2, 3, 0])
    rows = max(len(targets) for targets in batch.targets)

    def all_or_nothing(images: torch.Tensor) -> dict[str, torch.Tensor]:
        assert not network.training
        boxes, labels = torch.zeros(3, rows, 4), torch.zeros(3, rows, dtype=torch.int64)
        for number, targets in enumerate(batch.targets):
            boxes[number, : len(targets)], labels[number, : len(targets)] = targets.boxes, targets.labels
        everything = network.active == network.plan(1.0)
        count = torch.tensor([len(targets) if everything else 0 for targets in batch.targets])
        return {"boxes": boxes, "scores": torch.ones(3, rows), "labels": labels, "count": count}

    monkeypatch.setattr(testing, "detector_of", lambda *_: all_or_nothing)
    plans = [network.plan(1.0), network.plan(0.5)]
    widest, narrow = testing.precisions_of(network, quick_settings(), plans, [batch])
    assert (widest.ap, narrow.ap) == (1.0, 0.0) and len(widest.per_class) == CLASSES
    assert network.training


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_images_of_another_size_are_measured_as_the_data_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes go back by the scale of each side: of objects twice as high and half as wide as in the batch."""
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none")
    batch = drawn_batch([2, 3])
    back = torch.tensor([0.5, 2.0, 0.5, 2.0])
    originals = tuple(
        replace(own, height=2 * SIZE, width=SIZE // 2, boxes=own.boxes * back, area=own.area) for own in batch.targets
    )
    batch = batch._replace(originals=originals, scales=torch.tensor([[0.5, 2.0]] * 2, dtype=torch.float64))
    monkeypatch.setattr(testing, "detector_of", lambda *_: lambda images: perfect(batch))
    (result,) = testing.evaluate_detector(network, quick_settings(), [network.plan(1.0)], [batch])
    assert result.boxes.ap == 1.0 and result.images == 2 and result.error == 0
    assert result.figures == {"ap": 1.0, "ap50": 1.0, "ap75": 1.0} and result.columns == {"AP": "1.000", "AP50": "1.000"}


def perfect(batch: DetectionBatch) -> dict[str, torch.Tensor]:
    """Everything that there is."""
    rows = max(len(targets) for targets in batch.targets)
    boxes, labels = torch.zeros(len(batch.targets), rows, 4), torch.zeros(len(batch.targets), rows, dtype=torch.int64)
    for number, targets in enumerate(batch.targets):
        boxes[number, : len(targets)], labels[number, : len(targets)] = targets.boxes, targets.labels
    count = torch.tensor([len(targets) for targets in batch.targets])
    return {"boxes": boxes, "scores": torch.ones(labels.shape), "labels": labels, "count": count}


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_masks_are_pasted_where_their_boxes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    network = slimmable_detector(quick_detector(MASK), (0.5, 1.0), image_size=SIZE, order="none")
    batch = drawn_batch([2, 1])
    whole = tuple(replace(own, masks=filled(own.boxes.round()), boxes=own.boxes.round()) for own in batch.targets)
    batch = batch._replace(targets=whole)
    full_masks = {"masks": torch.ones(2, 2, 28, 28)}
    monkeypatch.setattr(testing, "detector_of", lambda *_: lambda images: perfect(batch) | full_masks)
    (result,) = testing.evaluate_detector(network, quick_settings(MASK), [network.plan(1.0)], [batch])
    masks = result.precisions["masks"]
    assert masks.ap50 == 1.0 and masks.ap is not None and masks.ap > 0.6, "edges lie within a pixel"
    assert result.figures["ap_masks"] == masks.ap and result.columns["mask AP50"] == "1.000"


@pytest.mark.parametrize("kind", [MASK, KEYPOINT])
def test_what_is_detected_in_the_padding_is_none_and_boxes_end_with_the_image(kind: str) -> None:
    """Of an image of 40 x 30, twice as large in the batch: one detection within, one across its edge, one beside it."""
    targets = replace(drawn_batch([0]).targets[0], height=30, width=40)
    boxes = torch.tensor([[[10.0, 10, 30, 30], [60, 40, 100, 80], [90, 2, 120, 20]]])
    shown = {"masks": torch.ones(1, 3, 28, 28)} if kind == MASK else {"keypoints": torch.ones(1, 3, 2, 3)}
    given = {"boxes": boxes, "scores": torch.ones(1, 3), "labels": torch.tensor([[1, 2, 3]]), "count": torch.tensor([3])}
    detected = testing.detected(given | shown, 0, targets, torch.tensor([2.0, 2.0]))
    assert np.asarray(detected.boxes).tolist() == [[5, 5, 15, 15], [30, 20, 40, 30]]
    assert np.asarray(detected.labels).tolist() == [1, 2]
    if kind == MASK:
        masks = np.asarray(detected.masks)
        assert masks.shape == (2, 30, 40)
        assert masks[1, 21:, 31:].all() and not masks[1, :19].any() and not masks[1, :, :29].any()
    else:
        assert np.asarray(detected.keypoints).shape == (2, 2, 3)


def filled(boxes: torch.Tensor) -> torch.Tensor:
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return masks


@pytest.mark.parametrize("kind", [MASK, RETINA])
def test_every_kind_gives_its_outputs_at_every_width(kind: str) -> None:
    network = slimmable_detector(quick_detector(kind), (0.5, 1.0), image_size=SIZE, order="none").eval()
    detector = detector_of(network, quick_settings(kind), SIZE)
    for width in (0.5, 1.0):
        with network.at(network.plan(width)):
            given = detector(drawn_images(2))
        assert given["boxes"].shape == (2, 5, 4) and int(given["count"].max()) > 0
        assert ("masks" in given) == (kind == MASK)


def test_masks_are_those_of_the_detections_own_regions() -> None:
    """As the network gives them when it is run on these regions from the start."""
    network = slimmable_detector(quick_detector(MASK), (0.5, 1.0), image_size=SIZE, order="none").double().eval()
    settings, images = quick_settings(MASK), drawn_images(2).double()
    with torch.no_grad():
        given = detector_of(network, settings, SIZE)(images)
        logits = network(images, torch.zeros(0, 5, dtype=torch.float64), rows_of(given["boxes"]))["mask_logits"]
    chosen = logits.reshape(2, 5, CLASSES + 1, 28, 28).sigmoid()
    for image in range(2):
        for number in range(int(given["count"][image])):
            own = chosen[image, number, int(given["labels"][image, number])]
            torch.testing.assert_close(given["masks"][image, number], own)


def measured(joined: Processes, share: bool) -> list[dict[str, float]]:
    """The figures of two widths of a random detector on 6 images, of which a process has its part."""
    network = slimmable_detector(quick_detector(seed=2), (0.5, 1.0), image_size=SIZE, order="none")
    batches = [drawn_batch([2, 3, 1, 0, 2, 2])]
    if share:
        own = slice(joined.rank * 3, joined.rank * 3 + 3)
        whole = batches[0]
        batches = [whole._replace(images=whole.images[own], targets=whole.targets[own], scales=whole.scales[own])]
    plans = [network.plan(1.0), network.plan(0.5)]
    results = testing.evaluate_detector(network, quick_settings(), plans, batches, joined)
    assert [result.images for result in results] == [6, 6]
    return [result.figures for result in results]


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_several_processes_measure_what_one_does() -> None:
    expected = measured(alone(), False)
    assert [pytest.approx(own) for own in expected] == in_processes(2, measured, True)[1]
