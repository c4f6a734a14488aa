"""What is done with a configuration: the classifier's way or the detector's, whichever it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimtrain import running
from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.detection.training import checkpoints, dry_run, profiling
from slimtrain.detection.training import run as detectors
from slimtrain.training import dry_run as classifiers_dry_run
from slimtrain.training import run as classifiers
from slimtrain.training import testing
from tests.support.detector_runs import detector_config
from tests.support.run_helpers import ALONE, config, run


@pytest.mark.parametrize("detects", [False, True])
def test_each_kind_goes_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detects: bool) -> None:
    calls = []

    def noted(module: Any, name: str) -> None:
        def call(settings: Config, *given: Any) -> Any:
            calls.append((module.__name__, name))
            assert settings is asked
            return []

        monkeypatch.setattr(module, name, call)

    asked = detector_config(tmp_path) if detects else config(tmp_path)
    for module, name in (
        *((detectors, "train_detector"), (dry_run, "dry_run"), (checkpoints, "opened_detector")),
        *((classifiers, "train"), (classifiers_dry_run, "dry_run"), (testing, "opened_classifier")),
    ):
        noted(module, name)
    running.train(asked, ALONE)
    running.dry_run(asked, ALONE)
    running.opened(asked, ALONE, "a.pt")
    assert len(calls) == 3 and all(("detection" in module) == detects for module, _ in calls)


def test_costs_of_detectors_are_those_of_the_whole_at_as_many_regions_as_it_has() -> None:
    """More proposals cost more, more classes do, and half the width costs a quarter in what both ends of are slimmed."""
    few = detector_config(Path("x"))
    many = detector_config(Path("x"), detector={"proposals": 100, "level_proposals": 100})
    (narrow, wide), published = running.costs_of(few, None)
    assert [narrow["width"], wide["width"]] == [0.5, 1.0] and not published
    assert 0.25 < narrow["macs"] / wide["macs"] < 0.5
    (_, more), _ = running.costs_of(many, None)
    first, hidden, classes = few.detector.neck * 7 * 7 * 8, 8 * 8, 8 * 11 * 5  # type: ignore[union-attr]
    assert more["macs"] - wide["macs"] == 90 * (first + hidden + classes)
    assert running.costs_of(few, (0.5,))[0] == [narrow] and profiling.detector_costs(few) == [narrow, wide]


def test_the_published_detector_s_multiply_accumulates() -> None:
    """Of 800 x 1344 pixels and 1,000 regions, reckoned by hand: backbone 87.6 G, laterals 8.3, pyramid 52.6, RPN 53.2, box
    head 14.3; all slimmed to 0.25x 14.1."""
    rows, _ = running.costs_of(read_config("s_faster_rcnn_resnet50"), (0.25, 1.0))
    assert [round(row["macs"] / 1e9, 1) for row in rows] == [14.1, 215.9]


def test_a_search_needs_images_that_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("search", "detect_digits", "--targets", "10M")
    assert outcome.code == 2 and "no training images are held out to search on" in " ".join(outcome.err.split())
    with pytest.raises(UserError, match="is a detector, and this works with classifiers alone"):
        read_config("detect_digits").spec(10)
