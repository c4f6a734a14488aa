"""What a slimmable detector finds at a plan, and its average precision."""

from __future__ import annotations

import pytest
import torch

from slimtrain.base.packages import is_installed
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.training import testing
from tests.support.trained_detectors import CLASSES, SIZE, drawn_batch, drawn_images, quick_detector, quick_settings


def test_detections_are_those_of_the_whole_network() -> None:
    """All at once, at regions that were proposed before."""
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none").double().eval()
    settings, images = quick_settings(), drawn_images(2).double()
    detector = testing.Detector(network, settings, SIZE)
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
        assert set(given) == set(right) and int(given["count"].sum())
        for name, value in right.items():
            torch.testing.assert_close(given[name], value)


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
def test_precision_is_of_what_was_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds everything, and one that finds nothing."""
    network = slimmable_detector(quick_detector(), (0.5, 1.0), image_size=SIZE, order="none").train()
    batch = drawn_batch([2, 3, 0])
    rows = max(len(targets) for targets in batch.targets)

    def found(self: testing.Detector, images: torch.Tensor, amp: str) -> dict[str, torch.Tensor]:
        assert not network.training
        boxes, labels = torch.zeros(3, rows, 4), torch.zeros(3, rows, dtype=torch.int64)
        for number, targets in enumerate(batch.targets):
            boxes[number, : len(targets)], labels[number, : len(targets)] = targets.boxes, targets.labels
        everything = network.active == network.plan(1.0)
        count = torch.tensor([len(targets) if everything else 0 for targets in batch.targets])
        return {"boxes": boxes, "scores": torch.ones(3, rows), "labels": labels, "count": count}

    monkeypatch.setattr(testing.Detector, "__call__", found)
    plans = [network.plan(1.0), network.plan(0.5)]
    widest, narrow = testing.precisions_of(network, quick_settings(), plans, [batch])
    assert (widest.ap, narrow.ap) == (1.0, 0.0) and len(widest.per_class) == CLASSES
    assert network.training
