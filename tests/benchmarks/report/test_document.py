"""The report and what the terminal shows: everything a reader needs is there, once, and where it belongs."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

from benchmarks.cells.cell import INTERRUPTED, Result, Round
from benchmarks.cells.records import Recorded
from benchmarks.report.analysis import analyse
from benchmarks.report.document import console, report
from benchmarks.report.tables import COLUMNS
from benchmarks.report.wording import (
    backend_settings,
    method_lines,
    states_line,
    trust,
    unmeasured_lines,
    verdicts,
    warning_lines,
)
from tests.support.shown_results import cell, failed, family, noisy, on_gpu, recorded, result, steady

CEILINGS = {
    "onnxruntime-cpu fp32": {
        "macs_per_s": 6e10,
        "bytes_per_s": 1.25e10,
        "seconds_per_operator": None,
        "how": {"unavailable": {"seconds_per_operator": "its clock stood still"}},
    }
}
SETTINGS = {
    "method": {"duration_s": 3.0, "repeats": 3, "warmup_s": 0.2, "least_iterations": 10},
    "inputs": {"distribution": "standard normal", "seed": 7, "cache_bytes": 10, "covers_cache": True},
    "threads": {"threads": 2, "cpus": [0, 1], "pinned": True, "quota": None},
}


def two_batches() -> Recorded:
    results = family(4, batches=(1, 8), accuracy=True)
    results[2] = steady(results[2].cell, 15.0, 15.1)
    results[3] = steady(results[3].cell, 14.95, 15.05)
    missing = [
        failed(cell(label, 10, backend="tensorrt", batch=batch), "TensorRT is not installed")
        for batch in (1, 8)
        for label in ("0.5x", "1.0x")
    ]
    made = recorded([*missing, *results], CEILINGS)
    return replace(made, run={**made.run, "settings": SETTINGS})


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_report_has_its_parts() -> None:
    found = sections(report(two_batches()))
    assert "0.75x is no faster than 1.0x here (15.1 ms against 15 ms, within noise)" in found["In short"]
    assert "| 1.0x |" in found["onnxruntime-cpu, fp32, batch 1"] and "| 1.0x |" in found["onnxruntime-cpu, fp32, batch 8"]
    assert "rank correlation of latency with MACs: " in found["onnxruntime-cpu, fp32, batch 8"]
    assert "Pareto front of latency against accuracy: " in found["onnxruntime-cpu, fp32, batch 1"]
    assert found["Not measured"].strip() == (
        "- net, tensorrt, fp32, batch 1, 8 (0.5x and 1.0x): not measured: TensorRT is not installed"
    )
    how = found["How and where it was measured"]
    assert "python -m benchmarks exports/net" in how
    assert "3 s and at least 10 iterations per cell, over 3 rounds" in how and "warm-up 200 ms" in how
    assert "standard normal noise (seed 7)" in how and "larger than the cache" in how
    assert "threads 2, cpus [0, 1], pinned yes" in how
    assert "| onnxruntime-cpu fp32 | 60.0 | 12.5 | - |" in how
    assert "onnxruntime-cpu fp32, seconds per operator: its clock stood still" in how
    assert "CPU: Intel(R) Xeon(R) Processor" in how
    assert "8 of 12 cells were measured" in found["Which figures to trust"]


def test_pictures_are_named_where_they_are() -> None:
    run = two_batches()
    names = re.findall(r"!\[.+\]\((.+)\)", report(run))
    assert names == [f"{kind}_net_onnxruntime-cpu_fp32.png" for kind in ("latency", "throughput", "pareto")]
    assert re.findall(r"!\[.+\]\((.+)\)", report(run, plots=names[:1])) == names[:1]
    assert "![" not in report(run, plots=[])


def test_console_fits_and_says_the_same() -> None:
    run = two_batches()
    text = console(run)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "- 0.75x is no faster than 1.0x here (15.1 ms against 15 ms, within noise)" in text.splitlines()
    assert text.count("TensorRT is not installed") == 1
    assert len(text) < len(report(run))
    (first, *_) = text.splitlines()
    assert first == "net, onnxruntime-cpu, fp32, batch 1"


def test_nothing_measured_is_still_a_report() -> None:
    run = recorded([failed(cell("1.0x", 10), "no such backend")])
    for text in (report(run), console(run)):
        assert "net, onnxruntime-cpu, fp32, batch 1 (1.0x): not measured: no such backend" in text
        assert "0 of 1 cells were measured" in text
        assert "![" not in text and "median, p90" not in text.partition("How to read")[0]
    assert "nothing to measure" in report(recorded([]))


def test_a_killed_and_an_interrupted_run_say_so() -> None:
    cut = [
        result(cell("1.0x", 20), [[1.0]], status=INTERRUPTED, reason="interrupted"),
        failed(cell("0.5x", 10), "interrupted"),
    ]
    run = recorded(cut)
    stopped = replace(run, end={"environment_after": {}, "seconds": 3, "interrupted": True})
    assert "**The run was interrupted: not every cell was measured.**" in report(stopped)
    assert "interrupted, so with fewer samples (marked *): 1.0x" in report(stopped)
    killed = replace(run, end=None, note="results.jsonl: its run was killed before its end")
    assert "its run was killed before its end" in console(killed) and "its run was killed before its end" in report(killed)


def test_verdicts_name_what_is_unknown() -> None:
    old = [
        steady(cell(label, macs, activations=None, layers=None), time, time)
        for label, macs, time in (("0.5x", 10_000, 1), ("1.0x", 40_000, 2))
    ]
    (group,) = analyse(old, {"onnxruntime-cpu fp32": {"macs_per_s": 1e9, "bytes_per_s": 1e9, "seconds_per_operator": 1e-6}})
    said = verdicts(group)
    assert "the floor of memory, launch is not known for all: `bound by` goes by what is left" in said
    (unknown,) = analyse(old, {})
    assert "no ceiling is known for it, so nothing says what bounds it" in verdicts(unknown)
    assert "0.5x and 1.0x: neither MACs nor bytes nor launches explain the time" in said
    assert "Pareto front of latency against MACs (not every accuracy is known on the same images): 0.5x and 1.0x" in said


def test_verdicts_of_noise_and_of_a_low_ceiling() -> None:
    results = [steady(cell("0.5x", 10_000), 1.0, 1.2), steady(cell("1.0x", 40_000), 2.0, 2.1)]
    (group,) = analyse(results, {"onnxruntime-cpu fp32": {"macs_per_s": 1e7}})
    said = verdicts(group)
    assert "0.5x: noisy, rounds differ by more than 10%: measure again before deciding" in said
    assert any(line.startswith("some reach more than the ceiling") for line in said)


def test_accuracies_come_with_their_error() -> None:
    known = {"top1": 0.9, "images": 100, "data": "photos"}
    (group,) = analyse([steady(cell("1.0x", 10, accuracy=known), 1, 1)], {})
    assert "accuracies are on the 100 images of photos: a standard error is up to 3.0 points" in verdicts(group)


def test_warnings_that_differ_in_figures_are_told_once() -> None:
    def warned(label: str, batch: int, text: str) -> Result:
        return replace(steady(cell(label, 10, batch=batch), 1.0), warnings=(text,))

    many = [warned(f"0.{digit}x", batch, f"noisy: spread over {digit}%.") for batch in range(1, 9) for digit in range(2, 5)]
    told = warning_lines([*many, warned("1.0x", 1, "throttled (heat).")])
    assert len(told) == 2
    assert told[0].startswith("net, onnxruntime-cpu, fp32, batch 1, 0.2x: noisy: spread over 2%. The same for 23 more: ")
    assert "batch 1, 0.3x, 0.4x; net, onnxruntime-cpu, fp32, batch 2, 0.2x, 0.3x, 0.4x; " in told[0]
    assert told[0].endswith("and in 3 more tables (all are in results.csv).")
    assert told[1] == "net, onnxruntime-cpu, fp32, batch 1, 1.0x: throttled (heat)."


def test_groups_without_a_figure_are_told_by_reason() -> None:
    results = [failed(cell("1.0x", 10, batch=batch), reason) for batch, reason in ((1, "a"), (8, "a"), (32, "b"))]
    assert unmeasured_lines(analyse(results, {})) == [
        "net, onnxruntime-cpu, fp32, batch 1, 8 (1.0x): not measured: a",
        "net, onnxruntime-cpu, fp32, batch 32 (1.0x): not measured: b",
    ]


def test_settings_that_differ_are_ranges() -> None:
    each = {"device": "cpu", "threads": 2, "cuda_graph": False, "cache_bytes": 2**21, "quota": None}
    results = [
        steady(cell("0.5x", 10), 1.0),
        replace(steady(cell("1.0x", 20), 1.0), settings={**each, "input_buffers": 40}),
        replace(steady(cell("0.5x", 10), 1.0), settings={**each, "input_buffers": 8}),
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

    told = states_line(
        [
            with_states({"sm_clock_mhz": [1500, 1800, 1900], "power_w": [200.0, 300.0, 310.0], "throttle": []}),
            with_states({"sm_clock_mhz": [1700, 1800, 1980], "other_load": 0.26, "throttle": ["heat"]}, {"other_load": 0.1}),
        ]
    )
    assert told == "SM clock 1500 to 1980 MHz, power 200 to 310 W, other processes kept up to 0.3 cores busy, throttled: heat"
    assert states_line([steady(cell("1.0x", 10), 1.0)]) == ""


def test_trust_states_what_chance_does() -> None:
    run = recorded([noisy(cell("0.5x", 10), 1.0, rounds=2), noisy(cell("1.0x", 20), 2.0, rounds=2)])
    assert any(
        "with 2 rounds, that happens by chance in 33% of the pairs" in line for line in trust(run, analyse(run.results, {}))
    )
    single = recorded([noisy(cell("0.5x", 10), 1.0, rounds=1)])
    assert not any("by chance" in line for line in trust(single, analyse(single.results, {})))


def test_the_machine_afterwards_is_told_where_it_differs() -> None:
    run = recorded([steady(cell("1.0x", 10), 1.0)])
    same = replace(run, end={"environment_after": run.run["environment"], "seconds": 1})
    assert "After the run:" not in report(same)
    other = replace(run, end={"environment_after": {**run.run["environment"], "cores": 4}, "seconds": 1})
    assert "After the run:\n\n- CPU: Intel(R) Xeon(R) Processor, 4 logical CPUs" in report(other)


def test_gpu_tables_are_in_both() -> None:
    run = recorded([on_gpu(each, transfers=True) for each in family(3, batches=(1,), backend="tensorrt", precision="fp16")])
    assert "| H2D ms | D2H ms |" in report(run) and "H2D" in console(run)


def test_reports_need_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'torch', 'onnx', 'PIL'): sys.modules[name] = None\n"
        "from benchmarks.cells.records import Recorded\n"
        "from benchmarks.report.document import console, report\n"
        "run = Recorded({'command': 'x'}, ())\n"
        "print(len(report(run)) > 0, len(console(run)) > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr
