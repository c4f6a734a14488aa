"""The report and what the terminal shows: everything a reader needs is there, once, and where it belongs."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

from benchmarks.cells.cell import INTERRUPTED
from benchmarks.cells.records import Recorded
from benchmarks.report.document import console, report
from benchmarks.report.tables import COLUMNS
from tests.support.shown_results import cell, failed, family, on_gpu, recorded, result, steady

CEILINGS = {
    "onnxruntime-cpu fp32": {
        "macs_per_s": 9e10,
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
    run = recorded([*missing, *results], CEILINGS)
    return replace(run, run={**run.run, "settings": SETTINGS})


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_report_has_its_parts() -> None:
    parts = sections(report(two_batches()))
    assert (
        "batch 1: worth shipping: 0.25x, 0.5x and 1.0x; not 0.75x, 1.0x is no less accurate and no slower" in parts["In short"]
    )
    assert "| 1.0x |" in parts["onnxruntime-cpu, fp32, batch 1"] and "| 1.0x |" in parts["onnxruntime-cpu, fp32, batch 8"]
    assert parts["In short"].count("rank correlation of latency with MACs: ") == 1
    assert parts["In short"].count("worth shipping") == 2  # one for each batch, as they differ
    assert parts["Not measured"].strip() == (
        "- net, tensorrt, fp32, batch 1, 8 (0.5x and 1.0x): not measured: TensorRT is not installed"
    )
    how = parts["How and where it was measured"]
    assert "python -m benchmarks exports/net" in how
    assert "3 s and at least 10 iterations per cell, over 3 rounds" in how and "warm-up 200 ms" in how
    assert "standard normal noise (seed 7)" in how and "larger than the cache" in how
    assert "threads 2, cpus [0, 1], pinned yes" in how
    assert "| onnxruntime-cpu fp32 | 90.0 | 12.5 | - |" in how
    assert "onnxruntime-cpu fp32, seconds per operator: its clock stood still" in how
    assert "CPU: Intel(R) Xeon(R) Processor" in how
    assert "8 of 12 cells were measured" in parts["Which figures to trust"]


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
    assert (
        "- batch 1: worth shipping: 0.25x, 0.5x and 1.0x; not 0.75x, 1.0x is no less accurate and no slower"
        in text.splitlines()
    )
    assert text.count("TensorRT is not installed") == 1
    assert len(text) < len(report(run))
    assert text.splitlines()[0] == "in short:"


def test_the_console_has_one_table_for_all_widths_of_a_network_and_warnings_above_it() -> None:
    run = two_batches()
    noisy = replace(run.results[-1], warnings=("noisy: by 20%.",))
    text = console(replace(run, results=(*run.results[:-1], noisy)))
    assert [line for line in text.splitlines() if line.startswith("width")] == [
        "width   MACs params top-1 promised   median   p95 speed-up   median   p95 speed-up"
    ]
    assert sum(line.lstrip().startswith("0.75x") for line in text.splitlines()) == 1
    places = [text.index(part) for part in ("before deciding:", "1.0x (batch 8): noisy: by 20%.", "in short:", "width   MACs")]
    assert places == sorted(places)
    assert "net, onnxruntime-cpu, fp32\n" in text and text.count("batch 8") >= 2


def test_a_width_that_one_batch_lacks_keeps_its_line_and_its_reason() -> None:
    results = [*family(3, batches=(1, 8))]
    results[0] = failed(results[0].cell, "no room")
    text = console(recorded(results))
    assert "- batch 1: 0.25x: not measured: no room" in text.splitlines()
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith("0.25x"))
    assert line.split()[3:7] == ["13.93", "-", "-", "-"]


def test_a_reason_that_stands_in_a_table_is_not_told_again_and_one_that_stands_nowhere_is() -> None:
    alone = [failed(cell("0.5x", 10), "no room"), steady(cell("1.0x", 20), 1.0)]
    assert console(recorded(alone)).count("no room") == 1
    split = [failed(cell("0.5x", 10, batch=8), "no room"), failed(cell("1.0x", 20, batch=8), "no driver"), *alone]
    assert "- batch 8: 1.0x: not measured: no driver" in console(recorded(split)).splitlines()


def test_a_table_that_is_too_wide_goes_on_below_and_accuracies_that_differ_stand_in_each_part() -> None:
    exact = family(3, batches=(1, 8, 32), accuracy=True)
    lossy = [
        replace(of, cell=replace(of.cell, precision="int8-cpu", accuracy={**(of.cell.accuracy or {}), "top1": 0.5}))
        for of in exact
    ]
    text = console(recorded([*exact, *lossy]))
    assert max(map(len, text.splitlines())) <= COLUMNS
    heads = [line for line in text.splitlines() if line.lstrip().startswith("width")]
    assert len(heads) == 2 and all("top-1 median" in head for head in heads)
    assert "params" in heads[0] and "params" not in heads[1]
    assert "\nnet, onnxruntime-cpu\n" in text and "int8-cpu, batch 32" in text


def test_the_sentence_of_ten_networks_is_one_line() -> None:
    results = [replace(of, cell=replace(of.cell, bundle=f"net{number}")) for number in range(10) for of in family(3)]
    text = console(recorded(results))
    assert text.count("worth shipping") == 1 and "all 30 tables: every width is worth shipping" in text
    assert report(recorded(results)).count("worth shipping") == 1


def test_nothing_measured_is_still_a_report() -> None:
    run = recorded([failed(cell("1.0x", 10), "no such backend")])
    for text in (report(run), console(run)):
        assert "net, onnxruntime-cpu, fp32, batch 1 (1.0x): not measured: no such backend" in text
        assert "0 of 1 cell was measured" in text
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


def test_the_machine_afterwards_is_told_where_it_differs() -> None:
    run = recorded([steady(cell("1.0x", 10), 1.0)])
    same = replace(run, end={"environment_after": run.run["environment"], "seconds": 1})
    assert "After the run:" not in report(same)
    other = replace(run, end={"environment_after": {**run.run["environment"], "cores": 4}, "seconds": 1})
    assert "After the run:\n\n- CPU: Intel(R) Xeon(R) Processor, 4 logical CPUs" in report(other)


def test_gpu_tables_are_in_both() -> None:
    engines = family(3, batches=(1,), backend="tensorrt", precision="fp16")
    run = recorded([on_gpu(engine, transfers=True) for engine in engines])
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
