"""Lines of a results.jsonl: whatever is wrong with one is refused before anything is made of it; what passes can be shown."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells.records import RecordError, Records, read_records, write_csv
from benchmarks.cells.schema import check_end, check_run, result_of
from benchmarks.report.choose import choose, sentences
from benchmarks.report.compare import compare, differences, table
from benchmarks.report.document import console, report
from slimexport.target.records import EntryError
from tests.support.bench_helpers import cell, result

ACCURACY = {"top1": 0.5, "images": 360, "data": "digits"}
STATE = {"cpu_mhz": [1000.0, 2000.0], "throttle": ["thermal"], "other_load": 0.5, "power_w": [70.0, 71.0]}
RESULTS = [
    result(
        [[1.5, 1.25], [1.125]], cell("net_x1_0", accuracy=ACCURACY, activations=10, layers=3), gpu=True, states=[STATE] * 2
    ),
    result([[2.0], [2.5]], cell("net_x0_5", width=0.5, accuracy=ACCURACY), warnings=("noisy",), settings={"cache_bytes": 10}),
]
ENVIRONMENT = {
    "cpu": "Fast",
    "cores": 2,
    "usable_cpus": 2,
    "cpu_quota_cores": 1.5,
    "memory_mib": 1000,
    "other_load": 0.1,
    "steal": 0.1,
    "caches": {"l1d_kib": 32, "l2_kib": 1024, "last_level": 3, "last_level_kib": 4096},
    "clocks": {"governor": "powersave", "min_mhz": 800, "max_mhz": 3000, "busy_mhz": 2500},
    "throttle_counts": {"thermal": 1, "quota": 2},
    "gpu": {"name": "GPU", "memory_mib": 1000, "power_limit_w": 70, "state": {"reasons": ["x"], "sm_clock_mhz": 1000}},
    "packages": {"numpy": "2"},
}
SETTINGS = {
    "method": {"duration_s": 3.0, "repeats": 3, "warmup_s": 0.2, "least_iterations": 10},
    "inputs": {"seed": 0, "covers_cache": True, "cache_bytes": 1000},
    "threads": {"threads": 2, "pinned": True},
}
CEILINGS = {
    "onnxruntime-cpu fp32": {
        **{"macs_per_s": 1e9, "bytes_per_s": 1e9, "seconds_per_operator": 1e-6},
        "how": {"unavailable": {"bytes_per_s": "no time"}},
    }
}
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    10**18,
    1e300,
    "x",
    "x" * 100_000,
    [],
    [[1]],
    {},
    {"a": {}},
    [None],
    ["a", 1],
    1e-320,
    "\x1b[2J",
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("run") / "results.jsonl"
    with Records(path) as records:
        records.run("python -m benchmarks bundle", ENVIRONMENT, SETTINGS, CEILINGS)
        for one in RESULTS:
            records.add(one)
        records.end(ENVIRONMENT, 12.5)
    return [json.loads(line) for line in path.read_text().splitlines()]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def spoiled(lines: list[dict[str, Any]], draw: random.Random) -> list[dict[str, Any]]:
    """The lines with a value of another kind somewhere, or without one."""
    content = copy.deepcopy(lines)
    *parents, last = draw.choice(list(places(content)))
    part: Any = content
    for key in parents:
        part = part[key]
    if draw.random() < 0.15:
        part.pop(last)
    else:
        part[last] = copy.deepcopy(draw.choice(WRONG))
    return content


def test_whatever_is_in_a_file_is_refused_or_shown(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    """Of 120 files with one wrong value, each ends as one message or as a report, a table, a choice and a comparison."""
    path = tmp_path / "results.jsonl"
    draw = random.Random(16)
    refused = 0
    for _ in range(120):
        path.write_text("".join(f"{json.dumps(line)}\n" for line in spoiled(lines, draw)))
        try:
            recorded = read_records(path)
        except RecordError as error:
            refused += len(str(error)) < 700
            continue
        report(recorded)
        console(recorded)
        write_csv(tmp_path / "results.csv", recorded.results)
        sentences(choose(recorded.results, 2.0, 50))
        differences(recorded.run, lines[0])
        table(compare(recorded, recorded))
    assert 50 < refused < 115


@pytest.mark.parametrize(
    ("line", "at", "value", "said"),
    [
        (0, ("settings", "method", "repeats"), "3", 'settings.method.repeats is "3", expected a whole number'),
        (0, ("environment", "memory_mib"), "much", 'environment.memory_mib is "much", expected a number or null'),
        (0, ("ceilings", "onnxruntime-cpu fp32", "macs_per_s"), 0, "macs_per_s is 0, expected a number from 1e-12"),
        (1, ("cell", "macs"), 0, "cell.macs is 0, expected 1 or more"),
        (1, ("cell", "batch"), 10**12, "cell.batch is 1000000000000, expected a number from 1 to 1,000,000,000"),
        (1, ("cell", "image_size"), 10**9, "cell.image_size is 1000000000, expected at most"),
        (1, ("cell", "name"), "n" * 100_000, "of 100,000 letters, expected from 1 to 200"),
        (1, ("status",), "done", "status is 'done', expected one of measured, interrupted, not measured"),
        (1, ("rounds", 1, "samples_ms", "device"), [], "rounds[1] has no samples of device"),
        (1, ("rounds", 0, "samples_ms", "device"), [0.0, 1.0], "rounds[0] has a sample of 0 ms"),
        (1, ("rounds", 0, "samples_ms", "device"), [1.0, -1.0], "samples_ms.device[1] is -1.0, expected a number from 0"),
        (1, ("rounds",), [], "rounds is [], expected some"),
        (1, ("rounds", 1, "state"), None, "rounds[1].state is null, expected an object"),
        (3, ("seconds",), [1], "seconds is [1], expected a number or null"),
    ],
)
def test_what_is_wrong_is_told(lines: list[dict[str, Any]], line: int, at: tuple[Any, ...], value: Any, said: str) -> None:
    content = copy.deepcopy(lines[line])
    part: Any = content
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = value
    check = {0: check_run, 3: check_end}.get(line, result_of)
    check(lines[line])
    with pytest.raises(EntryError) as caught:
        check(content)
    assert said in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("accuracy", [{"images": 360, "data": "digits"}, {"top1": None, "ap50": 0.5}])
def test_an_accuracy_without_a_figure_is_refused(lines: list[dict[str, Any]], accuracy: dict[str, Any]) -> None:
    """Widths could not be compared by it."""
    line = copy.deepcopy(next(line for line in lines if line["kind"] == "cell"))
    assert result_of(line).cell.accuracy == ACCURACY
    line["cell"]["accuracy"] = accuracy
    with pytest.raises(EntryError, match=r"cell\.accuracy has no figure, expected top1 or ap"):
        result_of(line)
