"""The script that compares ways to take a candidate's statistics: what it draws, counts and writes, not which way wins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.studies import search_statistics
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.search.trace import Candidate, Trace
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.bench_search import SPEC, steps_from_widest

CONFIG = """
network: us_mobilenet_v1
stem_stride: 1
data: fake
image_size: 16
batch_size: 8
workers: 0
epochs: 2
search_widths: [0.15, 0.5]
search_holdout: 8
"""


def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder, output = tmp_path / "tiny.yml", tmp_path / "search", tmp_path / "out.json"
    config.write_text(CONFIG)
    torch.manual_seed(0)
    settings = {"nonuniform": True, "data": "fake", "seed": 0, "holdout": 8}
    means = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    classes = [f"class {number}" for number in range(10)]
    save(own_content(SlimmableNetwork(SPEC), 16, *means, classes, settings=settings), folder / "supernet" / "us.pt")
    trace = Trace(folder)
    for step in steps_from_widest(2):
        trace.add(step, [Candidate(step.step, step.group, step.channels_before, step.channels_after, 1.0, 0.0, 0.0, 1)])
    words = ["--config", str(config), "--ckpt", str(folder / "supernet" / "us.pt"), "--json", str(output), "--plans", "3"]
    words += ["--macs", "1M", "--chunks", "8", "4", "--calibration", "0", "--steps", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["script", *words, "--seeds", "1", "--resamples", "20", "--random-steps", "2"])
    search_statistics.main()
    text = output.read_text()
    result = json.loads(text)
    ways = ["batch 8", "batch 4", "calibrated all"]
    assert result["steps"]["steps"] == 1 and result["random_steps"]["steps"] == 2
    assert list(result["by_supernet"]) == list(result["steps"]["ways"]) == ways
    assert all(len(result["by_supernet"][way]["error"]) == 3 for way in ways)
    assert len(result["by_training"]["loss"]) == 1 and len(result["by_training"]["loss"][0]) == 3
    assert result["images"] == {"train": 24, "held_out": 8, "test": 16}
    assert list(result["ranking"]["error_to_loss"]) == [*ways, "parameters"]
    assert result["seeds_agree"] == {"error": None, "loss": None}
    assert "search/supernet/us.pt" in result["command"] and str(tmp_path) not in text
    shown = capsys.readouterr().out
    assert "trained alone" in shown and "1 steps on the way" in shown and "2 steps from random plans" in shown
    monkeypatch.setattr(sys, "argv", ["script", *words, "--seeds", "0", "--resamples", "20", "--steps", "0"])
    search_statistics.main()
    assert json.loads(output.read_text())["ranking"] == {}


def test_a_mistake_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--ckpt", "nowhere.pt"])
    with pytest.raises(SystemExit) as stopped:
        search_statistics.main()
    assert stopped.value.code == 2
    assert "nowhere.pt" in capsys.readouterr().err
