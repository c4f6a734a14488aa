"""Parts of sample sets: the held-out split, against the published code's rule."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest

from slimtrain.base.errors import UserError
from slimtrain.data.samples import ArraySamples, FileSamples, as_pillow, hold_out
from tests.support.data_samples import labels


def test_the_held_out_images_are_those_of_the_published_code() -> None:
    """`random.seed(seed); random.shuffle(samples)`; the first are held out."""
    samples = ArraySamples(np.zeros((100, 3, 1, 1), np.uint8), np.arange(100), "x")
    state = random.getstate()
    train, test = hold_out(samples, 30, 1995)
    assert random.getstate() == state
    listed = list(range(100))
    random.seed(1995)
    random.shuffle(listed)
    random.setstate(state)
    assert labels(test) == listed[:30] and labels(train) == listed[30:]
    assert sorted(labels(train) + labels(test)) == list(range(100))
    assert [test.name(i) for i in range(3)] == [f"x {i}" for i in listed[:3]]
    assert labels(hold_out(samples, 30, 1995)[1]) == labels(test) != labels(hold_out(samples, 30, 0)[1])


def unequal(*sizes: int) -> ArraySamples:
    """So many images of each class."""
    classes = np.repeat(np.arange(len(sizes)), sizes)
    return ArraySamples(np.zeros((len(classes), 3, 1, 1), np.uint8), classes, "x")


def test_a_share_is_held_out_of_every_class(caplog: pytest.LogCaptureFixture) -> None:
    train, test = hold_out(unequal(50, 10, 2, 1), 0.2, 7)
    assert sorted(labels(test)) == [0] * 10 + [1] * 2 + [2] and labels(test) != sorted(labels(test))
    assert sorted(labels(train)) == [0] * 40 + [1] * 8 + [2] + [3]
    names = [[part.name(i) for i in range(len(part))] for part in (train, test)]
    assert len({*names[0], *names[1]}) == 63
    with caplog.at_level(logging.WARNING):
        again = hold_out(unequal(50, 10, 2, 1), 0.2, 7)[1]
    assert [again.name(i) for i in range(len(again))] == names[1]
    assert "1 class with one image, which is trained on" in caplog.text


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"holdout is 0\.5, but no class has two images"):
        hold_out(unequal(1, 1, 1), 0.5, 0)


def test_arrays_as_pictures() -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(1, 3, 4, 5)
    picture = as_pillow(ArraySamples(pixels, np.zeros(1), "x").image(0))
    assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), pixels[0].transpose(1, 2, 0))


def test_a_class_whose_folder_is_no_text_is_known_by_what_can_be_printed(tmp_path: Path) -> None:
    folder = os.fsdecode(b"b\xff\x1b")
    samples = FileSamples(tmp_path, ["a", folder], [["1.png"], ["2.png"]])
    assert samples.classes == ("a", r"b\udcff\x1b")
    assert os.fsencode(samples.name(1)) == os.fsencode(tmp_path) + b"/b\xff\x1b/2.png"
