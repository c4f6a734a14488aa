"""Latencies out of what `python -m benchmarks` writes: by its own writer, and spoiled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import INTERRUPTED, MEASURED, NOT_MEASURED, Cell, Result, Round
from benchmarks.cells.records import Records
from slimexport.target.timings.recorded import ProfileError, Served, recorded

SERVED = Served("net", "fp32", "onnxruntime-cpu", (3, 32, 32), {"net_x0_5": "0.5", "net_x1_0": "1"})


def result(
    name: str = "net_x0_5",
    batch: int = 1,
    rounds: Sequence[Mapping[str, Sequence[float]]] = ({"wall": [1.0, 2.0]},),
    status: str = MEASURED,
    **changes: Any,
) -> Result:
    values: dict[str, Any] = {
        **{"bundle": "b", "network": "net", "name": name, "plan": "x0_5", "width": 0.5, "label": "0.5x", "file": "f.onnx"},
        **{"backend": "onnxruntime-cpu", "precision": "fp32", "batch": batch, "image_size": 32, "macs": 10, "params": 10},
        **{"size_bytes": 10, **changes},
    }
    return Result(Cell(**values), status, "", tuple(Round(samples) for samples in rounds))


def written(folder: Path, *results: Result, end: bool = True) -> Path:
    path = folder / "results.jsonl"
    with Records(path) as records:
        records.run("python -m benchmarks b", {"cpu": "A CPU"}, {})
        for one in results:
            records.add(one)
        if end:
            records.end({}, 1.0)
    return path


def test_the_samples_of_all_rounds_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        result(rounds=({"wall": [1.0, 2.0]}, {"wall": [3.0]})),
        result(batch=8, rounds=({"wall": [9.0], "device": [5.0]},)),
        result("net_x1_0", rounds=({"device": [4.0]},), status=INTERRUPTED),
        result("net_x1_0", batch=8, status=NOT_MEASURED, rounds=()),
        result("net_x0_75"),
        result(backend="openvino", rounds=({"wall": [7.0]},)),
        result(precision="fp16", rounds=({"wall": [7.0]},)),
        result(image_size=64, rounds=({"wall": [7.0]},)),
        result(channels=1, rounds=({"wall": [7.0]},)),
        result(network="other", rounds=({"wall": [7.0]},)),
    )
    expected = {"0.5": {1: [1.0, 2.0, 3.0], 8: [9.0]}, "1": {1: [4.0]}}
    for given in (path, tmp_path):
        known = recorded(given, SERVED)
        assert {label: {batch: list(ms) for batch, ms in row.items()} for label, row in known.items()} == expected


def test_inputs_that_are_no_images_are_told_apart_by_their_shape(tmp_path: Path) -> None:
    path = written(tmp_path, result(shape=(12, 50), channels=12))
    served = Served("net", "fp32", "onnxruntime-cpu", (12, 50), SERVED.names)
    assert recorded(path, served)["0.5"] == {1: [1.0, 2.0]}
    with pytest.raises(ProfileError, match="holds no latency"):
        recorded(path, SERVED)


def test_results_in_the_repository_are_read() -> None:
    path = Path(__file__).parents[4] / "benchmarks" / "results" / "networks_cpu"
    names = {f"us_mobilenet_v1_x{name}": name for name in ("0_25", "0_625", "1_0")}
    known = recorded(path, Served("us_mobilenet_v1", "fp32", "onnxruntime-cpu", (3, 224, 224), names))
    assert {label: sorted(row) for label, row in known.items()} == {name: [1, 8, 32] for name in names.values()}
    medians = {label: float(np.median(row[1])) for label, row in known.items()}
    assert medians == pytest.approx({"0_25": 0.77, "0_625": 2.48, "1_0": 5.04}, rel=0.2), "as its report says"


def test_the_last_line_of_a_killed_run_may_be_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path, result(), result("net_x1_0"), end=False)
    whole = path.read_text()
    path.write_text(whole[:-40])
    assert list(recorded(path, SERVED)) == ["0.5"]
    lines = whole.splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-40], lines[2], ""]))
    with pytest.raises(ProfileError, match="line 2"):
        recorded(path, SERVED)


def spoil(content: dict[str, Any], path: str, value: Any) -> str:
    *keys, last = path.split(".")
    inner: Any = content
    for key in keys:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rounds.0.samples_ms.wall", [1.0, -2.0]),
        ("rounds.0.samples_ms.wall", [1.0, 0]),
        ("rounds.0.samples_ms.wall", [1.0, "2"]),
        ("rounds.0.samples_ms.wall", [1.0, None]),
        ("rounds.0.samples_ms.wall", [1e12]),
        ("rounds.0.samples_ms.wall", 1.0),
        ("rounds.0.samples_ms", []),
        ("rounds", {}),
        ("status", 3),
        ("cell", None),
        ("cell.batch", 0),
        ("cell.batch", 1.5),
        ("cell.batch", True),
        ("cell.name", "x" * 300),
        ("cell.image_size", "32"),
        ("cell.image_size", [32]),
    ],
)
def test_a_value_that_cannot_be_names_its_line(tmp_path: Path, path: str, value: Any) -> None:
    file = written(tmp_path, result())
    lines = file.read_text().splitlines()
    lines[1] = spoil(json.loads(lines[1]), path, value)
    file.write_text("\n".join(lines))
    with pytest.raises(ProfileError, match=r"line 2: .*damaged") as error:
        recorded(file, SERVED)
    assert error.value.exit_code == 2 and "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"text",
        b"\xff\xff",
        b'{"kind": "run", "schema_version": 2}',
        b'{"kind": "cell"}',
        b'{"kind": "run", "schema_version": 1}\n' + b"[" * 100_000,
        b'{"kind": "run", "schema_version": 1}\n{"kind": "cell"}',
        b'{"kind": "run", "schema_version": 1}\nNaN\n',
        b'{"kind": "run", "schema_version": 1}\n',
        b"\n" * 300_000,
    ],
)
def test_what_is_no_file_of_results_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as error:
        recorded(path, SERVED)
    assert str(path) in str(error.value) and len(str(error.value)) < 700


def test_what_is_not_there_is_told_and_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="not there"):
        recorded(tmp_path, SERVED)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ProfileError, match="is a FIFO"):
        recorded(tmp_path / "fifo", SERVED)
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    with pytest.raises(ProfileError, match="expected at most"):
        recorded(tmp_path / "huge", SERVED)


def test_two_runs_in_one_file_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, result(), result())
    with pytest.raises(ProfileError, match=r"line 3: net_x0_5 is there twice at batch 1"):
        recorded(path, SERVED)


def test_a_run_that_knows_none_of_them_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, result("net_x0_75"))
    with pytest.raises(ProfileError, match=r"holds no latency of net_x0_5, net_x1_0 in fp32 on onnxruntime-cpu\. Measure"):
        recorded(path, SERVED)
