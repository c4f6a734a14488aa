"""Scenes of digits: the same again, of digits that the split has, told of truly."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.data.detection.scenes import CLASSES, SceneSamples, SceneSettings, covered
from slimtrain.data.digits import digits_split

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


@pytest.fixture(scope="module")
def scenes() -> SceneSamples:
    return SceneSamples("train", 40)


def test_a_scene_does_not_depend_on_what_was_drawn_before(scenes: SceneSamples) -> None:
    forward = [scenes.image(i) for i in range(5)]
    again = pickle.loads(pickle.dumps(SceneSamples("train", 1000)))
    for i in (4, 0, 3):
        assert torch.equal(again.image(i), forward[i])
        assert torch.equal(again.targets(i).boxes, scenes.targets(i).boxes)
    assert not torch.equal(forward[0], forward[1])
    test = SceneSamples("test", 40)
    assert [len(test.targets(i)) for i in range(40)] != [len(scenes.targets(i)) for i in range(40)]
    assert not torch.equal(SceneSamples("train", 1, seed=1).image(0), forward[0])


def test_boxes_are_tight_around_ink_that_stands_out(scenes: SceneSamples) -> None:
    for i in range(len(scenes)):
        image, targets = scenes.image(i)[0].float(), scenes.targets(i)
        assert 1 <= len(targets) <= 5 and targets.masks is not None and not targets.crowd.any()
        assert int(targets.masks.sum(0).max()) == 1, "no pixel is of two digits"
        for mask, box, area in zip(targets.masks, targets.boxes.int().tolist(), targets.area.tolist(), strict=True):
            rows, columns = np.nonzero(mask.numpy())
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] and area == len(rows)
            inside = image[box[1] : box[3], box[0] : box[2]]
            ink = mask[box[1] : box[3], box[0] : box[2]]
            assert ink.all() or inside[ink].mean() > inside[~ink].mean() + 25


def test_digits_keep_their_sizes_and_their_distance() -> None:
    for size in (128, (144, 160)):
        scenes = SceneSamples("test", 30, settings=SceneSettings(size, most=9, smallest=20, largest=32))
        seen = set()
        for i in range(len(scenes)):
            targets = scenes.targets(i)
            boxes = [(box[0], box[1], box[2], box[3]) for box in targets.boxes.int().tolist()]
            sides = [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
            assert max(sides) <= 32 and min(sides) >= 17  # less where another digit was there first
            assert all(covered(a, b) <= 0.1 for n, a in enumerate(boxes) for b in boxes[:n])
            seen |= set(targets.labels.tolist())
        assert seen == set(range(1, 11)) and len(CLASSES) == 10
        assert scenes.image(0).shape[1:] == ((128, 128) if size == 128 else size)


def test_digits_are_those_of_the_split_with_their_own_labels() -> None:
    """Shrunk to 8 by 8 again, digits of the test scenes resemble a test digit of their class most, among all digits."""
    split = digits_split()
    pool = np.concatenate([split.test_images, split.train_images])[:, 0].reshape(-1, 64).astype(float)
    pool -= pool.mean(1, keepdims=True)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    scenes = SceneSamples("test", 40, settings=SceneSettings(most=1, smallest=40, largest=44))
    hits = right = 0
    for i in range(len(scenes)):
        targets = scenes.targets(i)
        x1, y1, x2, y2 = targets.boxes[0].int().tolist()
        cut = scenes.image(i)[:1, y1:y2, x1:x2].float()
        # the stored digits are 8 high, and mostly narrower than that
        wide = max(2, min(8, round(8 * (x2 - x1) / (y2 - y1))))
        small = torch.nn.functional.interpolate(cut[None], (8, wide), mode="area")[0, 0].numpy()
        best = (-1.0, -1)
        for left in range(9 - wide):
            placed = np.full((8, 8), small.min())
            placed[:, left : left + wide] = small
            flat = placed.ravel() - placed.mean()
            likeness = pool @ (flat / np.linalg.norm(flat))
            best = max(best, (float(likeness.max()), int(likeness.argmax())))
        hits += best[1] < 360
        right += best[1] < 360 and int(split.test_labels[best[1]]) + 1 == int(targets.labels[0])
    assert hits >= 16 and right >= 16, "of digits that are not the split's a fifth would be"


def test_a_pixel_of_a_digit_stays_its_own() -> None:
    scenes, draw, ones = SceneSamples("train", 1), np.random.default_rng(0), np.ones((4, 4), np.float32)
    canvas = np.zeros((8, 8), np.float32), np.full((8, 8), -1, np.int16)
    scenes._draw_digit(draw, canvas, ones, 0, 0, 0)
    before = canvas[0].copy()
    scenes._draw_digit(draw, canvas, ones, 2, 2, 1)
    assert (canvas[0][:4, :4] == before[:4, :4]).all() and (canvas[1][:4, :4] == 0).all()
    assert int((canvas[1] == 1).sum()) == 12 and bool((canvas[0][4:6, 2:6] > 0.4).all())


def test_dark_digits_are_drawn_where_they_are_asked_for() -> None:
    scenes = SceneSamples("train", 20, settings=SceneSettings(both_contrasts=True))
    darker = 0
    for i in range(len(scenes)):
        image, targets = scenes.image(i)[0].float(), scenes.targets(i)
        assert targets.masks is not None
        darker += sum(bool(image[mask].mean() < image.median()) for mask in targets.masks)
    assert darker > 10


@pytest.mark.parametrize("wrong", [{"most": 0}, {"smallest": 4}, {"smallest": 30, "largest": 20}, {"largest": 200}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected at least 1 digit"):
        SceneSettings(**wrong)


def test_a_scene_beyond_the_last_is_none(scenes: SceneSamples) -> None:
    assert len(scenes) == 40 and scenes.name(3) == "scenes train 3"
    with pytest.raises(IndexError):
        scenes.image(40)
