"""Batches of detectors: in an order and with draws that depend on the seed alone, whatever cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.data.detection.batches import (
    DetectionBatch,
    Padding,
    detection_test_batches,
    detection_training_batches,
)
from slimtrain.data.detection.targets import Targets
from slimtrain.data.detection.transforms import DetectionTransform
from slimtrain.data.opening import ImageRefused

TRANSFORM = DetectionTransform((0.0,) * 3, (1.0,) * 3, short=(16, 24, 32), long=1000, mirror=0.5)
AS_THEY_ARE = DetectionTransform((0.0,) * 3, (1.0,) * 3)


class Boxes:
    """Image i is of 16 + i rows and 20 columns, with a box and a crowd, both labeled i + 1; some cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = (), refused: tuple[int, ...] = ()) -> None:
        self.count, self.broken, self.refused = count, broken, refused

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> torch.Tensor:
        if index in self.broken:
            raise OSError("damaged")
        if index in self.refused:
            raise ImageRefused(self.name(index), "has 1 x 20,000 pixels", "Crop it.")
        return torch.full((3, 16 + index, 20), 255, dtype=torch.uint8)

    def targets(self, index: int) -> Targets:
        boxes = torch.tensor([[2.0, 3, 8, 9], [0, 0, 20, 16]])
        labels = torch.tensor([index + 1, index + 1])
        return Targets(16 + index, 20, boxes, labels, torch.tensor([False, True]), torch.tensor([36.0, 320]), index)

    def name(self, index: int) -> str:
        return f"image {index}"


def train(samples: Boxes, **options: Any) -> list[DetectionBatch]:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 3, **options}
    return list(detection_training_batches(samples, TRANSFORM, **settings))


def shown(batch: DetectionBatch) -> list[Any]:
    """Which images, of what size, where their boxes are."""
    return [(t.image_id, t.height, t.width, t.boxes.tolist(), t.labels.tolist()) for t in batch.targets]


def test_an_epoch_has_every_image_once_in_another_order_and_other_draws() -> None:
    batches = train(Boxes(12))
    assert [(b.step, b.epoch, b.total, len(b.images)) for b in batches] == [(i, i // 3, 4, 4) for i in range(6)]
    first, second = ([row for b in batches[start : start + 3] for row in shown(b)] for start in (0, 3))
    assert sorted(row[0] for row in first) == sorted(row[0] for row in second) == list(range(12))
    assert [row[0] for row in first] != [row[0] for row in second]
    assert sorted(map(str, first)) != sorted(map(str, second)), "sizes and mirrors are drawn again"
    assert all(row[4] == [row[0] + 1] for row in first), "crowds are not learned"


def test_images_lie_in_the_corner_of_their_padded_place() -> None:
    for batch in train(Boxes(12)):
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        for image, target, scale in zip(batch.images, batch.targets, batch.scales.tolist(), strict=True):
            assert image[0].count_nonzero() == target.height * target.width
            assert bool((image[:, : target.height, : target.width] == 1).all())
            assert scale == [target.height / (16 + target.image_id), target.width / 20]


def test_processes_share_each_step_and_a_resumed_run_goes_on() -> None:
    whole = train(Boxes(12))
    shares = [train(Boxes(12), rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert shown(batch) == shown(shares[0][step]) + shown(shares[1][step])
    resumed = train(Boxes(12), start_step=4)
    assert [shown(batch) for batch in resumed] == [shown(batch) for batch in whole[4:]]
    assert [shown(batch) for batch in train(Boxes(12), seed=4)] != [shown(batch) for batch in whole]


def test_processes_that_load_give_the_same_batches() -> None:
    for ours, others in zip(train(Boxes(12)), train(Boxes(12), workers=1), strict=True):
        assert shown(ours) == shown(others) and torch.equal(ours.images, others.images)


def test_an_unreadable_image_is_replaced_in_training_and_left_out_of_tests() -> None:
    batches = train(Boxes(12, broken=(5,)), epochs=1)
    assert [name for b in batches for name in b.unreadable] == ["image 5"]
    assert sorted(row[0] for b in batches for row in shown(b)) == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11]
    samples = Boxes(6, broken=(0, 1), refused=(4,))
    tested = list(detection_test_batches(samples, AS_THEY_ARE, batch_size=2, padding=Padding(size=(32, 64))))
    assert [(b.total, b.unreadable) for b in tested] == [
        (0, ("image 0", "image 1")),
        (2, ()),
        (1, ("image 4 (has 1 x 20,000 pixels)",)),
    ]
    assert tested[0].targets == () and tested[0].scales.shape == (0, 2)
    assert tested[1].images.shape == (2, 3, 32, 64) and tested[1].targets[0].crowd.tolist() == [False, True]


def test_what_cannot_be_trained_on_is_said() -> None:
    with pytest.raises(UserError, match=r"^image 3: has 1 x 20,000 pixels\. Crop it\.$"):
        train(Boxes(12, refused=(3,)))
    with pytest.raises(UserError, match="12 images in a row, such as image"):
        train(Boxes(12, broken=tuple(range(12))))
    with pytest.raises(UserError, match="batches of 4 from 3 training images"):
        train(Boxes(3))
    with pytest.raises(UserError, match="for 5 processes"):
        train(Boxes(12), world=5)
    with pytest.raises(UserError, match="100 images in a row"):
        list(detection_test_batches(Boxes(120, broken=tuple(range(120))), AS_THEY_ARE, batch_size=120))
