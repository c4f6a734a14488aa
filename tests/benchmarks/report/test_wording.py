"""What a run's figures say, in sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.cells.cell import Result, Round
from benchmarks.cells.statistics import warnings
from benchmarks.report.analysis import analyse
from benchmarks.report.wording import (
    LIGHTER,
    backend_settings,
    ceilings_table,
    method_lines,
    states_line,
    trust,
    unmeasured_lines,
    unmeasured_rows,
    warning_lines,
)
from tests.support.shown_results import cell, failed, noisy, recorded, steady


def test_trust_names_what_is_unknown() -> None:
    old = [
        steady(cell(label, macs, activations=None, layers=None), time, time)
        for label, macs, time in (("0.5x", 10_000, 1), ("1.0x", 40_000, 2))
    ]
    run = recorded(old)
    known = {"onnxruntime-cpu fp32": {"macs_per_s": 1e9, "bytes_per_s": 1e9, "seconds_per_operator": 1e-6}}
    said = trust(run, analyse(old, known))
    assert "the floor of memory, launch is not known for all: `bound by` goes by what is left" in said
    assert "no ceiling is known for it, so nothing says what bounds it" in trust(run, analyse(old, {}))


def test_a_ceiling_that_was_exceeded_is_told_once() -> None:
    results = [steady(cell("0.5x", 10_000), 1.0, 1.2), steady(cell("1.0x", 40_000), 2.0, 2.1)]
    (group,) = analyse(results, {"onnxruntime-cpu fp32": {"macs_per_s": 1e7}})
    run = recorded(results * 2)
    assert [line for line in trust(run, [group, group]) if "too low" in line] == list(group.exceeded)
    assert group.exceeded[0].startswith("onnxruntime-cpu fp32: 1.0x at batch 1 is 1.9")


def test_an_exceeded_ceiling_is_no_figure_of_the_table() -> None:
    results = [steady(cell("1.0x", 40_000), 2.0)]
    table, missing = ceilings_table(results, {"onnxruntime-cpu fp32": {"macs_per_s": 1e7, "bytes_per_s": 1e9}})
    assert table[1] == ["onnxruntime-cpu fp32", "-", "1.00", "-"]
    assert len(missing) == 1 and "measured too low" in missing[0]
    table, missing = ceilings_table(results, {"onnxruntime-cpu fp32": {"macs_per_s": 1e8}})
    assert table[1][1] == "0.100" and missing == []


def test_the_gravest_warning_comes_first() -> None:
    """Of results that bring all of them about, and of a network whose output is not known to be right."""
    slow = Round(
        {"wall": [1.0] * 5, "device": [1.0, 2.0, 1.0, 2.0, 1.0], "enqueue": [1.0] * 5}, {"throttle": ["heat"], "other_load": 2}
    )
    drifted = replace(slow, samples_ms={kind: [3 * value for value in values] for kind, values in slow.samples_ms.items()})
    texts = warnings(Result(cell("1.0x", 10), "measured", rounds=(slow,)))
    texts += warnings(Result(cell("1.0x", 10), "measured", rounds=(slow, drifted)))[1:2]
    result = replace(steady(cell("1.0x", 10), 1.0), warnings=(*texts, "its output was not checked"))
    lines = warning_lines([result])
    assert [next((at for at, start in enumerate(LIGHTER) if line.startswith(f"1.0x: {start}")), -1) for line in lines] == [
        *range(-1, len(LIGHTER))
    ]


def test_one_is_not_many() -> None:
    one = recorded([replace(steady(cell("1.0x", 10), 1.0), warnings=())])
    assert trust(one, analyse(one.results, {}))[0] == "1 of 1 cell was measured, 1 without a warning"
    many = recorded([steady(cell("1.0x", 10), 1.0), failed(cell("0.5x", 5))])
    assert trust(many, analyse(many.results, {}))[0] == "1 of 2 cells were measured, 1 without a warning"
    method = {"duration_s": 1, "least_iterations": 1, "repeats": 1, "warmup_s": 0.1}
    assert "at least 1 iteration per cell, over 1 round in which" in method_lines({"method": method})[0]


def test_warnings_that_differ_in_figures_are_told_once_by_the_worst() -> None:
    def warned(label: str, batch: int, text: str) -> Result:
        return replace(steady(cell(label, 10, batch=batch), 1.0), warnings=(text,))

    calm = [steady(cell("1.0x", 20, batch=batch), 1.0) for batch in (2, 3)]
    many = [warned(f"0.{digit}x", batch, f"noisy: spread over {batch}{digit}%.") for batch in (1, 2, 3) for digit in (2, 3)]
    hot = warned("1.0x", 1, "throttled (heat).")
    lines = warning_lines([*many, hot, *calm])
    assert lines == [
        "1.0x (batch 1): throttled (heat).",
        "0.2x, 0.3x: noisy: spread over 33% (the worst of 6).",
    ]
    (line,) = warning_lines([warned(f"0.{number}x", 1, "noisy.") for number in range(10, 41)])
    assert line == "every width: noisy (the worst of 31)."
    (line,) = warning_lines(
        [*(warned(f"0.{number}x", 1, "noisy.") for number in range(10, 40)), steady(cell("1.0x", 20), 1.0)]
    )
    assert line == "30 from 0.10x to 0.39x: noisy (the worst of 30)."


def test_of_many_places_some_are_named() -> None:
    results = []
    for batch in range(1, 10):
        noisy = replace(steady(cell(f"0.{batch}x", 10, batch=batch), 1.0), warnings=("noisy.",))
        results += [noisy, steady(cell("1.0x", 20, batch=batch), 1.0)]
    (line,) = warning_lines(results)
    assert line.startswith("0.1x (batch 1); 0.2x (batch 2); ")
    assert line.endswith("0.5x (batch 5); and in 4 more tables (all are in results.csv): noisy (the worst of 9).")


def test_groups_without_a_figure_are_told_by_reason() -> None:
    results = [failed(cell("1.0x", 10, batch=batch), reason) for batch, reason in ((1, "a"), (8, "a"), (32, "b"))]
    assert unmeasured_lines(analyse(results, {})) == [
        "net, onnxruntime-cpu, fp32, batch 1, 8 (1.0x): not measured: a",
        "net, onnxruntime-cpu, fp32, batch 32 (1.0x): not measured: b",
    ]


def test_single_rows_without_a_figure_are_told_too() -> None:
    results = [failed(cell("0.5x", 10, batch=batch), "no room") for batch in (1, 8)]
    results += [steady(cell("1.0x", 20, batch=batch), 1.0) for batch in (1, 8, 32)]
    groups = analyse([*results, failed(cell("1.0x", 20, batch=64), "no")], {})
    assert unmeasured_rows(groups, groups) == ["batch 1, 8: 0.5x: not measured: no room"]
    assert unmeasured_lines(groups) == ["net, onnxruntime-cpu, fp32, batch 64 (1.0x): not measured: no"]


def test_settings_that_differ_are_ranges() -> None:
    settings = {"device": "cpu", "threads": 2, "cuda_graph": False, "cache_bytes": 2**21, "quota": None}
    results = [
        steady(cell("0.5x", 10), 1.0),
        replace(steady(cell("1.0x", 20), 1.0), settings={**settings, "input_buffers": 40}),
        replace(steady(cell("0.5x", 10), 1.0), settings={**settings, "input_buffers": 8}),
        failed(cell("0.1x", 1)),
    ]
    assert backend_settings(results[1:]) == {
        "onnxruntime-cpu fp32": "device cpu, threads 2, cuda graph no, cache bytes 2 MiB, input buffers 8 to 40"
    }
    assert backend_settings(results)["onnxruntime-cpu fp32"].startswith("threads 1 to 2")
    assert method_lines({}) == []
    assert "NOT larger for every batch" in method_lines({"inputs": {"covers_cache": False}})[0]


def test_states_during_the_rounds() -> None:
    def with_states(*states: dict[str, Any]) -> Result:
        return replace(steady(cell("1.0x", 10), 1.0), rounds=tuple(Round({"wall": [1.0]}, state) for state in states))

    line = states_line(
        [
            with_states({"sm_clock_mhz": [1500, 1800, 1900], "power_w": [200.0, 300.0, 310.0], "throttle": []}),
            with_states({"sm_clock_mhz": [1700, 1800, 1980], "other_load": 0.26, "throttle": ["heat"]}, {"other_load": 0.1}),
        ]
    )
    assert line == "SM clock 1500 to 1980 MHz, power 200 to 310 W, other processes kept up to 0.3 cores busy, throttled: heat"
    assert states_line([steady(cell("1.0x", 10), 1.0)]) == ""


def test_trust_states_what_chance_does() -> None:
    run = recorded([noisy(cell("0.5x", 10), 1.0, rounds=2), noisy(cell("1.0x", 20), 2.0, rounds=2)])
    assert any(
        "with 2 rounds, that happens by chance in 33% of the pairs" in line for line in trust(run, analyse(run.results, {}))
    )
    single = recorded([noisy(cell("0.5x", 10), 1.0, rounds=1)])
    assert not any("by chance" in line for line in trust(single, analyse(single.results, {})))
