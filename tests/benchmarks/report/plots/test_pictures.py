"""Pictures as a reader meets them: nothing overlaps, nothing is cut off, axes have units, series are told apart in grey."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import Result
from benchmarks.report.analysis import analyse
from benchmarks.report.picture_files import LATENCY, PARETO, SHOWN, THROUGHPUT, file_name
from benchmarks.report.plots.pictures import draw, figure_of, sheets
from benchmarks.report.plots.style import RING
from slimexport.target.errors import MissingBackend
from tests.support import ROOT
from tests.support.bench_colours import luminance
from tests.support.shown_results import cell, failed, family, figures, noisy, on_gpu, recorded, steady, widths

matplotlib = pytest.importorskip("matplotlib")
ENVIRONMENT: dict[str, Any] = {"cpu": "Intel(R) Xeon(R) Processor", "gpu": {"name": "NVIDIA H200"}}
LARGEST_BYTES = 150_000
SMALLEST_PT = 11


def switches() -> list[Result]:
    shapes = (("s1", 207_000_000, 9.0), ("s2", 305_000_000, 9.05), ("s3", 505_000_000, 15.0))
    return [noisy(cell(label, macs, batch=batch), batch * time) for batch in (1, 8) for label, macs, time in shapes]


def plans(count: int) -> list[Result]:
    return [noisy(cell(f"net_budget_{i}", 10**8 * i, plan=f"budget_{i}_of_the_search"), 2.0 * i) for i in range(1, count + 1)]


def launch_bound() -> list[Result]:
    """A GPU on which widths hardly matter."""
    results = []
    for batch in (1, 8, 32):
        for label in widths(7):
            milliseconds = 0.25 + 0.004 * batch * float(label[:-1]) ** 1.5
            of = cell(label, round(569e6 * float(label[:-1]) ** 1.9), batch=batch, backend="tensorrt", precision="fp16")
            results.append(on_gpu(noisy(of, milliseconds)))
    return results


def restless() -> list[Result]:
    """A machine whose rounds differ by more than widths do."""
    random = np.random.default_rng(1)
    known = {"top1": 0.95, "images": 360, "data": "digits"}
    cells = [cell(label, 10**7 * (1 + at), accuracy=known) for at, label in enumerate(widths(6))]
    return [steady(of, *(random.uniform(1, 30, 3))) for of in cells]


def detector() -> list[Result]:
    known = {"images": 200, "data": "scenes"}
    rows = ((1, 0.73), (2, 0.804), (3, 0.817), (4, 0.819))
    return [noisy(cell(f"{n / 4}x", 10**8 * n, accuracy={**known, "ap": ap}), 10.0 * n) for n, ap in rows]


SETS: dict[str, list[Result]] = {
    "31 widths": family(31),
    "31 widths with accuracies": family(31, accuracy=True),
    "3 widths": family(3, accuracy=True),
    "one batch": family(4, batches=(1,)),
    "eight batches": family(4, batches=(1, 2, 4, 8, 16, 32, 64, 128)),
    "one width": family(1, batches=(1,)),
    "failed 1.0x": [failed(width.cell) if width.cell.label == "1.0x" else width for width in family(4)],
    "switches": switches(),
    "plans": plans(3),
    "many plans": plans(20),
    "launch-bound": launch_bound(),
    "restless": restless(),
    "a detector": detector(),
    "large": [noisy(cell(label, 10**9 * (1 + at)), 1000.0 + at) for at, label in enumerate(widths(4))],
    "long names": family(
        4, batches=(1,), network="a_network_with_a_name_that_is_longer_than_others", bundle="and_a_bundle_likewise_" * 3
    ),
}


@cache
def drawn(name: str, kind: str) -> Any:
    (sheet,) = sheets(analyse(SETS[name], {}), ENVIRONMENT)
    return figure_of(kind, sheet)


def texts(figure: Any) -> list[Any]:
    """All texts that can be seen."""
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and _shown(text)]


def _shown(text: Any) -> bool:
    """Names of ticks beyond an axis' ends are not drawn."""
    for axes in text.figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if text in (tick.label1, tick.label2):
                    return bool(low <= tick.get_loc() <= high)
    return True


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("name", SETS)
def test_texts_neither_overlap_nor_leave_the_figure(name: str, kind: str) -> None:
    figure = drawn(name, kind)
    figure.draw_without_rendering()
    shown = [(text, text.get_window_extent()) for text in texts(figure)]
    assert len(shown) > 5
    for text, box in shown:
        inside = (
            figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        )
        assert inside, f"{text.get_text()!r} leaves the figure"
        assert text.get_fontsize() >= SMALLEST_PT
    for (one, first), (other, second) in combinations(shown, 2):
        slanted = one.get_rotation() % 90 or other.get_rotation() % 90  # whose boxes are larger than they
        assert slanted or not first.overlaps(second), f"{one.get_text()!r} covers {other.get_text()!r}"


@pytest.mark.parametrize("kind", [LATENCY, PARETO])
@pytest.mark.parametrize("name", SETS)
def test_names_cover_no_mark(name: str, kind: str) -> None:
    figure = drawn(name, kind)
    figure.draw_without_rendering()
    for axes in figure.axes:
        marks = [
            axes.transData.transform(point) for line in axes.lines if line.get_marker() == "o" for point in line.get_xydata()
        ]
        assert axes.texts, "no point is named"
        for text in axes.texts:
            box = text.get_window_extent()
            assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in marks), text.get_text()


@pytest.mark.parametrize("name", ["31 widths", "3 widths", "switches", "launch-bound", "failed 1.0x"])
def test_the_ends_are_named(name: str) -> None:
    figure = drawn(name, LATENCY)
    groups = analyse(SETS[name], {})
    for group, axes in zip(groups, figure.axes, strict=True):
        named = {text.get_text() for text in axes.texts}
        assert {group.measured[0].cell.label, group.measured[-1].cell.label} <= named


@pytest.mark.parametrize("name", ["31 widths", "switches", "launch-bound"])
def test_axes_have_units_and_titles_say_what_was_measured(name: str) -> None:
    units = {
        LATENCY: ("MACs per image (M)", "latency per batch (ms)"),
        PARETO: ("latency per batch (ms)", "MACs per image (M)"),
    }
    for kind in SHOWN:
        figure = drawn(name, kind)
        title = " ".join(figure.get_suptitle().split())
        cells = [measurement.cell for measurement in SETS[name]]
        device = "NVIDIA H200" if name == "launch-bound" else "Intel Xeon (1 thread)"
        batches = ", ".join(str(batch) for batch in dict.fromkeys(of.batch for of in cells))
        for part in ("net", device, cells[0].backend, cells[0].precision, f"batch {batches}"):
            assert part in title
        for axes in figure.axes:
            if kind in units:
                assert (axes.get_xlabel(), axes.get_ylabel()) == units[kind]
            else:
                assert axes.get_ylabel().startswith("images per second") and axes.get_xlabel()
    assert drawn("large", LATENCY).axes[0].get_xlabel() == "MACs per image (G)"
    assert drawn("3 widths", PARETO).axes[0].get_ylabel() == "top-1 accuracy (%)"


def test_latency_shows_medians_intervals_and_the_ideal() -> None:
    (group, *_) = analyse(SETS["3 widths"], {})
    axes = drawn("3 widths", LATENCY).axes[0]
    data, caps_low, caps_high, ideal = axes.lines
    assert data.get_xydata() == pytest.approx(
        np.array([[row.cell.macs / 1e6, figures(row).median_ms] for row in group.measured])
    )
    assert list(caps_low.get_ydata()) == pytest.approx([figures(row).interval_ms[0] for row in group.measured])
    assert list(caps_high.get_ydata()) == pytest.approx([figures(row).interval_ms[1] for row in group.measured])
    full = group.measured[-1]
    assert ideal.get_xydata() == pytest.approx(np.array([[0, 0], [full.cell.macs / 1e6, figures(full).median_ms]]))
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)


def test_the_ideal_goes_through_the_reference() -> None:
    results = [
        steady(cell(label, macs), time)
        for label, macs, time in (("0.5x", 10**7, 1), ("1.0x", 4 * 10**7, 5), ("1.5x", 8 * 10**7, 6))
    ]
    (sheet,) = sheets(analyse(results, {}), ENVIRONMENT)
    figure = figure_of(LATENCY, sheet)
    assert np.asarray(figure.axes[0].lines[-1].get_xydata())[-1] == pytest.approx([80, 10])
    assert any("from 1.0x" in text.get_text() for text in texts(figure))


def test_throughput_has_a_line_per_batch() -> None:
    groups = analyse(SETS["31 widths"], {})
    axes = drawn("31 widths", THROUGHPUT).axes[0]
    for group, line in zip(groups, axes.lines, strict=True):
        assert line.get_xydata() == pytest.approx(
            np.array([[row.cell.width, figures(row).images_per_s] for row in group.measured])
        )
    assert [text.get_text() for text in drawn("3 widths", THROUGHPUT).axes[0].get_xticklabels()] == ["0.25", "0.625", "1"]


def test_of_many_plans_some_are_named_under_the_axis() -> None:
    axes = drawn("many plans", THROUGHPUT).axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == [f"budget_{number}_of_the_search" for number in range(1, 21, 2)]
    assert len(axes.lines[0].get_xdata()) == 20


def test_throughput_that_spans_much_is_in_equal_ratios_and_says_so() -> None:
    wide, narrow = (drawn(name, THROUGHPUT).axes[0] for name in ("31 widths", "switches"))
    assert (wide.get_yscale(), wide.get_ylabel()) == ("log", "images per second (log scale)")
    assert (narrow.get_yscale(), narrow.get_ylabel(), narrow.get_ylim()[0]) == ("linear", "images per second", 0)


def test_pareto_marks_are_dark_grey_and_hollow() -> None:
    labels = (("0.25x", 0.5, (1, 1.1)), ("0.5x", 0.4, (2, 2.1)), ("0.75x", 0.7, (2.9, 3.1)), ("1.0x", 0.8, (3, 3.2)))
    results = [
        steady(cell(label, 10**7 * (at + 1), accuracy={"top1": top1, "images": 100, "data": "photos"}), *ends)
        for at, (label, top1, ends) in enumerate(labels)
    ]
    (sheet,) = sheets(analyse(results, {}), ENVIRONMENT)
    axes = figure_of(PARETO, sheet).axes[0]
    fills = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert luminance(fills[0]) < 0.2 and luminance(fills[1]) == pytest.approx(1) and 0.3 < luminance(fills[2]) < 0.8
    assert luminance(fills[3]) < 0.2


def test_a_detector_s_front_is_of_average_precision_which_has_no_standard_error() -> None:
    figure = drawn("a detector", PARETO)
    assert figure.axes[0].get_ylabel() == "average precision (%)"
    assert "average precision against latency" in " ".join(figure.get_suptitle().split())
    legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert "bars: medians of rounds" in legend and "standard error" not in legend
    assert "standard error" in " ".join(text.get_text() for text in drawn("restless", PARETO).legends[0].get_texts())


def test_no_tick_is_above_a_hundred_percent() -> None:
    axes = drawn("restless", PARETO).axes[0]
    assert axes.get_ylim()[0] < min(axes.get_yticks()) < max(axes.get_yticks()) <= 100


def test_files_are_small_named_after_their_group_and_the_same_each_time(tmp_path: Path) -> None:
    from PIL import Image

    results = [*family(31, batches=(8,)), *launch_bound()[:7], failed(cell("1.0x", 10, backend="torch-eager"))]
    run = recorded(results, **ENVIRONMENT)
    first, second = (draw(run, folder) for folder in (tmp_path, _new(tmp_path / "again")))
    groups = [group for group in analyse(run.results, {}) if group.measured]
    assert {path.name for path in first} == {file_name(kind, group) for group in groups for kind in SHOWN}
    assert len(first) == 6
    for one, other in zip(first, second, strict=True):
        content = one.read_bytes()
        assert content == other.read_bytes()
        assert len(content) < LARGEST_BYTES
        with Image.open(one) as picture:
            assert picture.format == "PNG" and picture.width >= 1200


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_nothing_global_changes(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib\n"
        "from pathlib import Path\n"
        "from tests.support.shown_results import family, recorded\n"
        "from benchmarks.report.plots.pictures import draw\n"
        "before = matplotlib.rcParams.copy()\n"
        "draw(recorded(family(2, batches=(1,))), Path(sys.argv[1]))\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams.copy() == before)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False True"), done.stderr


def test_without_matplotlib_nothing_is_drawn_and_the_reason_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingBackend, match=r"pip install 'slimmable-deploy\[plots\]'") as error:
        draw(recorded(family(2, batches=(1,))), tmp_path)
    assert error.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SHOWN)
def test_what_was_measured_with_a_warning_has_a_ring_and_nothing_else(kind: str) -> None:
    results = family(5)
    doubtful = [replace(one, warnings=("noisy",)) if place in (1, 7) else one for place, one in enumerate(results)]
    for members, expected in ((results, 0), (doubtful, 2)):
        (sheet,) = sheets(analyse(members, {}), ENVIRONMENT)
        figure: Any = figure_of(kind, sheet)
        rings = [line for axes in figure.axes for line in axes.lines if line.get_markersize() == RING["markersize"]]
        assert sum(len(line.get_xdata()) for line in rings) == expected
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("measured with a warning" in legend) is bool(expected)
    circled = {(x, y) for line in rings for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    marks = {(x, y) for axes in figure.axes for line in axes.lines for x, y in zip(*line.get_data(), strict=True)}
    assert circled <= marks


@pytest.mark.parametrize("name", ["3 widths", "31 widths", "one width"])
def test_the_front_is_in_the_legend_and_macs_begin_at_zero(name: str) -> None:
    figure = drawn(name, PARETO)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Pareto front" in names
    front = figure.legends[0].get_lines()[names.index("Pareto front")]
    bars = figure.legends[0].get_lines()[names.index("Pareto front") + 1]
    assert front.get_linewidth() > 2 * bars.get_linewidth()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert bool(low == 0) is axes.get_ylabel().startswith("MACs") and low < high
