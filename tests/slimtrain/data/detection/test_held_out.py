"""Training images with objects that are kept aside: no image twice, and of scenes no digit twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.data.catalog import DetectionRequest
from slimtrain.data.detection.fake import FakeObjects
from slimtrain.data.detection.held_out import count_held_out, drawn_order, hold_out_objects
from slimtrain.data.detection.opening import open_detection_data
from slimtrain.data.detection.scenes import SceneSamples, SceneSettings
from slimtrain.data.digits import digits_split
from tests.support.coco_folders import annotation, content, write_coco


def test_every_image_is_trained_on_or_held_out() -> None:
    samples = FakeObjects(10, 32, 2)
    rest, kept = hold_out_objects(samples, 3, seed=1)
    names = [[part.name(i) for i in range(len(part))] for part in (rest, kept)]
    assert len(names[1]) == 3 and sorted(names[0] + names[1]) == sorted(samples.name(i) for i in range(10))
    again = hold_out_objects(samples, 0.3, seed=1)
    assert [again[1].name(i) for i in range(3)] == names[1]
    other = hold_out_objects(samples, 3, seed=2)[1]
    assert [other.name(i) for i in range(3)] != names[1]
    number = int(names[1][0].split()[1])
    assert torch.equal(torch.as_tensor(kept.image(0)), samples.image(number))
    assert torch.equal(kept.targets(0).boxes, samples.targets(number).boxes)


def test_an_order_is_the_same_wherever_it_is_drawn() -> None:
    assert drawn_order(6, "search:0").tolist() == drawn_order(6, "search:0").tolist()
    assert sorted(drawn_order(6, 3)) == list(range(6))


@pytest.mark.parametrize("holdout", [10, 11, 0.99, 0.01])
def test_something_is_held_out_and_something_left(holdout: float) -> None:
    with pytest.raises(
        UserError, match=rf"holdout is {holdout}, but there are 10 training images: expected a number from 1 to 9"
    ):
        count_held_out(10, holdout)


def request(holdout: float, folder: str = "", train: int = 40) -> DetectionRequest:
    return DetectionRequest(folder, False, False, 3, 64, train, 4, holdout)


def test_held_out_scenes_show_digits_that_the_others_do_not() -> None:
    data = open_detection_data("scenes", request(10))
    assert (len(data.train), len(data.test)) == (30, 10)
    shown, hidden = data.train.digits, data.test.samples.digits  # type: ignore[attr-defined]
    whole = digits_split()
    assert len(shown) + len(hidden) == len(whole.train_labels)
    assert len(hidden) == pytest.approx(len(whole.train_labels) / 4, abs=5)
    copies = {digit.tobytes() for digit in whole.train_images[:, 0]}
    (twice,) = (len(whole.train_labels) - len(copies),)
    both = {digit.tobytes() for digit in shown} & {digit.tobytes() for digit in hidden}
    assert len(both) <= twice
    targets = data.test.targets(0)
    assert len(targets) and data.test.name(0) == "scenes train 30"


def test_scenes_without_any_held_out_are_what_they_were() -> None:
    data, expected = open_detection_data("scenes", request(0)), SceneSamples("train", 40, 3, SceneSettings(64))
    assert torch.equal(torch.as_tensor(data.train.image(7)), expected.image(7)) and len(data.test) == 4


def test_of_coco_s_images_a_share_is_held_out_in_place_of_the_test_images(tmp_path: Path) -> None:
    folder = write_coco(
        tmp_path / "coco", content([annotation(1), annotation(2, 2), annotation(3, 3), annotation(4, 4)], images=4)
    )
    whole = open_detection_data("coco", request(0, str(folder)))
    held = open_detection_data("coco", request(0.25, str(folder)))
    assert (len(whole.train), len(held.train), len(held.test)) == (4, 3, 1)
    names = {held.train.name(i) for i in range(3)} | {held.test.name(0)}
    assert names == {whole.train.name(i) for i in range(4)}
