"""The speed of the search's steps, on a network of milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.studies import search_speed
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.bench_search import SLIMMING, SPEC


@pytest.mark.parametrize("statistics", ["batch", "calibrated"])
def test_the_sides_of_the_speed_measurement_agree(statistics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "speed.json"
    options = ["--network", "us_mobilenet_v1", "--image-size", "32", "--images", "4", "--batch", "2", "--repeats", "1"]
    monkeypatch.setattr("slimtrain.checkpoints.untrained.untrained_network", {"us_mobilenet_v1": SlimmableNetwork(SPEC)}.get)
    monkeypatch.setattr("sys.argv", ["search_speed", *options, "--statistics", statistics, "--json", str(result)])
    search_speed.main()
    content = json.loads(result.read_text())
    assert content["same_result"] and content["candidates"] == len(SLIMMING.steps(SLIMMING.start)) == 14
    assert len(content["seconds_per_step"]) == 4
    reuse, image_on, plain = (content["seconds_per_step"][side][0] for side in ("reuse", "image on", "image on, memory anew"))
    assert content["ratio"] == pytest.approx(image_on / reuse, abs=0.01)
    assert content["ratio_to_plain"] == pytest.approx(plain / reuse, abs=0.01)
