"""Checkpoints whose detector settings somebody changed: one message, or settings that fit the graph."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slimtrain
from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.own_layout import own_content, read_own
from slimtrain.checkpoints.stored_spec import read_spec
from slimtrain.checkpoints.writing import save
from slimtrain.detection.making import slimmable_detector
from slimtrain.groups.detector_outputs import check_outputs
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import MASK, MOST_BOXES
from tests.support.small_detectors import small_detector

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    10**9,
    2**31 - 1,
    2**80,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "mask",
    b"x",
    [],
    [[]],
    {},
    [1] * 999,
)
ROUNDS = 60


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    network = slimmable_detector(small_detector(MASK), (0.5, 1.0), image_size=64, order="none", check=False)
    return own_content(network, 64, (0.0,) * 3, (1.0,) * 3)


def with_detector(content: dict[str, Any], detector: Any) -> dict[str, Any]:
    return {**content, "network": {**content["network"], "detector": detector}}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within plain values, but the outermost's."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*path, key)
        yield from places(inside, (*path, key))


def changed(detector: Any, path: tuple[Any, ...], value: Any) -> Any:
    result = copy.deepcopy(detector)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("proposals", "top_k"), 2**31 - 1, f"2147483647 boxes: expected at most {MOST_BOXES:,}"),
        (("proposals", "kept"), 10**9, "1000000000 boxes: expected at most"),
        (("box", "detections"), 10**9, "candidates for 1000000000 detections"),
        (("classes",), 10**6, "output class_logits is"),
        (("anchors", "strides"), [4, 8, 16, 32, 128], "expected each twice the one before"),
        (("anchors", "strides"), [4, 8], "anchors: expected sizes, ratios and a stride for every level"),
        (("mask",), None, "a mask_rcnn lacks the settings"),
        (("mask", "size"), 2**31 - 1, "output mask_logits is"),
        (("kind",), "faster_rcnn", "a faster_rcnn has the settings of a mask_rcnn's head"),
    ],
)
def test_settings_that_contradict_the_network_are_named(
    content: dict[str, Any], path: tuple[Any, ...], value: Any, message: str
) -> None:
    damaged = with_detector(content, changed(content["network"]["detector"], path, value))
    with pytest.raises(CheckpointError, match=rf"^hostile.pt: does not describe a network .*{message}"):
        read_own(damaged, "hostile.pt")


def test_whatever_stands_there_is_refused_or_fits(content: dict[str, Any]) -> None:
    plain, draw = content["network"]["detector"], random.Random(7)
    every, messages = list(places(plain)), []
    for _ in range(ROUNDS):
        detector = changed(plain, draw.choice(every), copy.deepcopy(draw.choice(HOSTILE)))
        try:
            spec = read_spec(with_detector(content, detector)["network"], "hostile.pt")
        except CheckpointError as error:
            messages.append(str(error))
        else:
            assert isinstance(spec, GraphSpec) and spec.detector is not None
            check_outputs(spec.detector, spec.graph)
    assert len(messages) > ROUNDS / 2
    assert all(message.startswith("hostile.pt: does not describe a network") for message in messages)
    assert max(map(len, messages)) < 600
    with pytest.raises(CheckpointError, match="does not describe a network"):
        read_spec(with_detector(content, [plain])["network"], "hostile.pt")


def test_a_hostile_file_ends_in_one_message(content: dict[str, Any], tmp_path: Path) -> None:
    detector = changed(content["network"]["detector"], ("proposals", "top_k"), 2**31 - 1)
    save(with_detector(content, detector), tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match=r"hostile.pt: .*2147483647 boxes"):
        slimtrain.open_checkpoint(tmp_path / "hostile.pt")
