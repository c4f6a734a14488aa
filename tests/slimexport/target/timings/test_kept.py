"""Latencies in the user's cache: they come back as they were, under their own key, and damage costs time only."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.target.timings import kept
from slimexport.target.timings.kept import Key, cpu_name, keep, read_kept

KEY = Key({"0.5": "a" * 64, "1": "b" * 64}, "onnxruntime-cpu", "1.31.1", None, "A CPU, 2 threads", (1, 4))
SAMPLES = {"0.5": {1: [1.0, 1.25], 4: [3.5]}, "1": {1: [2.0]}}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "slimexport" / "serving"


def lists(samples: Any) -> Any:
    return {label: {batch: list(ms) for batch, ms in row.items()} for label, row in samples.items()}


def test_what_was_kept_comes_back(cache: Path) -> None:
    assert read_kept(KEY) is None
    keep(KEY, SAMPLES)
    assert lists(read_kept(KEY)) == SAMPLES
    same = replace(KEY, files=dict(reversed(list(KEY.files.items()))))
    assert lists(read_kept(same)) == SAMPLES, "the order of files is nothing"
    keep(KEY, {"0.5": {1: [9.0]}, "1": {1: [9.5]}})
    assert lists(read_kept(KEY)) == {"0.5": {1: [9.0]}, "1": {1: [9.5]}}
    assert [path.suffix for path in cache.iterdir()] == [".json"], "nothing unfinished is left"


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"0.5": "a" * 64, "1": "c" * 64}},
        {"files": {"0.5": "a" * 64}},
        {"backend": "openvino"},
        {"version": "1.31.2"},
        {"threads": 1},
        {"device": "Another CPU, 2 threads"},
        {"batches": (1, 4, 8)},
    ],
)
def test_what_changes_latencies_changes_the_key(changes: dict[str, Any]) -> None:
    keep(KEY, SAMPLES)
    assert read_kept(replace(KEY, **changes)) is None


def spoiled(change: Any) -> str:
    content = json.loads(KEY.path().read_text())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda: "",
        lambda: "{",
        lambda: "[]",
        lambda: "null",
        lambda: KEY.path().read_text()[:-30],
        lambda: "[" * 100_000,
        lambda: '{"of": "x", "samples_ms": {}}',
        lambda: spoiled(lambda content: content.update(of="{}")),
        lambda: spoiled(lambda content: content["samples_ms"].update(more={"1": [1.0]})),
        lambda: spoiled(lambda content: content["samples_ms"].pop("1")),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"1": []}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"2": [1.0]}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"x": [1.0]}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"1": [-1.0]}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"1": ["1"]}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"1": [1e300]}})),
        lambda: spoiled(lambda content: content["samples_ms"].update({"1": {"1": [True]}})),
        lambda: '{"of": NaN}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    keep(KEY, SAMPLES)
    KEY.path().write_text(damage())
    with caplog.at_level(logging.WARNING):
        assert read_kept(KEY) is None
    (record,) = caplog.records
    assert "are not used" in record.message and "measured anew" in record.message and len(record.message) < 600
    keep(KEY, SAMPLES)
    assert lists(read_kept(KEY)) == SAMPLES


@pytest.mark.parametrize("kind", ["folder", "fifo", "bytes", "huge"])
def test_what_is_no_file_is_not_waited_for(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    path = KEY.path()
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe\xff")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    assert read_kept(KEY) is None
    assert len(caplog.records) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    keep(KEY, SAMPLES)
    (record,) = caplog.records
    assert "are not kept" in record.message
    assert read_kept(KEY) is None


def test_the_oldest_go(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(kept, "MOST_FILES", 3)
    keys = [replace(KEY, version=str(number)) for number in range(5)]
    for number, key in enumerate(keys):
        keep(key, SAMPLES)
        os.utime(key.path(), (number, number))
    keep(keys[-1], SAMPLES)
    assert {path.name for path in cache.iterdir()} == {key.path().name for key in keys[2:]}


def test_the_cpu_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: A CPU @ 2 GHz\nflags: x\nmodel name\t: A CPU @ 2 GHz\n")
    monkeypatch.setattr(kept, "CPU_INFO", info)
    assert cpu_name().startswith("A CPU @ 2 GHz, ") and cpu_name().endswith(" threads")
    info.unlink()
    assert cpu_name().endswith(" threads")
