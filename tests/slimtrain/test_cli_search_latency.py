"""Searches for a latency: the cost is what a table of the device says, and a table for anything else is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.image_size import sides
from slimtrain.costs.cost_model import cost_model
from slimtrain.costs.latency_table import LatencyTable, read_latency_table, write_latency_table
from slimtrain.costs.layer_shapes import LayerShape
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.slimming import Slimming
from tests.support.latency_tables import table_of
from tests.support.run_helpers import refused, run
from tests.support.search_helpers import RIGHT, US, own_checkpoint, plan, refused_late, search_file, searched, trace

DEVICE = "a CPU"
LATENCY = ("--cost", "latency", "--latency-table")


def slow_in_the_middle(layer: LayerShape, inp: int, out: int) -> float:
    """Milliseconds that MACs do not tell: the narrow, early layers take most."""
    return (inp + 2 * out) * sides(layer.size)[0] / 1000


def written(path: Path, spec: NetworkSpec = US, size: int = 16, factor: float = 1.5, **more: Any) -> Path:
    """A table's file."""
    write_latency_table(path, table_of(spec, slow_in_the_middle, size=size, factor=factor, **more))
    return path


def ends(table: LatencyTable) -> tuple[float, float]:
    slimming = Slimming(US, 2)
    return table.cost_ms(slimming.floor), table.cost_ms(slimming.start)


def test_the_cost_is_the_tables(tmp_path: Path) -> None:
    path = written(tmp_path / "table.json")
    cost, table = cost_model("latency", US, 16, path, DEVICE), read_latency_table(path)
    assert (cost.name, cost.unit) == ("latency", "ms")
    for end in (Slimming(US).start, Slimming(US).floor):
        assert cost(end) == table.cost_ms(end)


def test_a_network_is_found_for_a_latency(tmp_path: Path) -> None:
    path = written(tmp_path / "table.json")
    table = read_latency_table(path)
    low, high = ends(table)
    target = round((low + high) / 2, 3)
    ckpt = own_checkpoint(tmp_path / "own.pt", **RIGHT)
    options = ("--ckpt", ckpt, *LATENCY, path, "--latency-device", DEVICE, "--targets", f"{target}ms")
    outcome, folder = searched(tmp_path, *options)
    assert f"latencies are those of {DEVICE}, onnxruntime-cpu, fp32, batch 1" in outcome.lines
    (file,) = (folder / "plans").iterdir()
    content = plan(folder, file.stem)
    assert (content["unit"], content["target"]) == ("ms", target)
    assert content["cost"] == table.cost_ms(ChannelPlan("found", content["channels"])) <= target
    costs = [float(row["cost_after"]) for row in trace(folder)]
    assert all(cost > target for cost in costs[:-1]) and costs[-1] == content["cost"]
    header = outcome.lines[-3].split()
    assert header[:4] == ["plan", "target", "latency", "MACs"]

    # Another table, and none of it is gone on with.
    written(path, factor=1.6)
    refused_late(run("search", tmp_path / "tiny.yml", *options, "--resume", "auto"), 2, "cost_at_start was")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": {"name": "a board"}}, "latency table of a board, this is a CPU"),
        (
            {"size": 32},
            "us_mobilenet_v1 at 32 px, 10 classes, stem stride 1, this is us_mobilenet_v1 at 16 px",
        ),
        (
            {"spec": NetworkSpec("mobilenet_v2", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1)},
            "latency table for us_mobilenet_v2 at 16 px",
        ),
        ({"spec": replace(US, classes=7)}, "7 classes"),
        # a table of narrower networks than the search begins with
        (
            {"spec": replace(US, switches=(0.125, 0.2), width_range=(0.125, 0.2))},
            "Times beyond what was measured",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_for_something_else_are_refused_before_anything_is_written(
    change: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "table.json", **change)
    monkeypatch.chdir(tmp_path)
    file = search_file(tmp_path / "tiny.yml")
    refused(run("search", file, *LATENCY, path, "--latency-device", DEVICE, "--targets", "1"), 2, words)
    assert sorted(os.listdir(tmp_path)) == ["table.json", "tiny.yml"]


def test_a_target_out_of_reach_is_told_in_milliseconds(tmp_path: Path) -> None:
    path = written(tmp_path / "table.json")
    low, high = ends(read_latency_table(path))
    file = search_file(tmp_path / "tiny.yml")
    refused(
        run("search", file, *LATENCY, path, "--targets", f"{2 * high:.3f}"), 2, "above the network's own", f"{high:.4g} ms"
    )
    refused(
        run("search", file, *LATENCY, path, "--targets", f"{low / 2:.3f}"), 2, "below what slimming reaches", f"{low:.4g} ms"
    )


def test_a_device_without_a_table(tmp_path: Path) -> None:
    file = search_file(tmp_path / "tiny.yml")
    refused(run("search", file, "--latency-device", DEVICE), 2, "latency_device is a CPU, but there is no latency_table")
    refused(run("search", file, *LATENCY, tmp_path / "nowhere.json", "--targets", "1"), 2, "cannot be read as JSON")
