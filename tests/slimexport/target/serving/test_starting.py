"""A start: which widths are opened, what their runs take, what is kept of that and what is believed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import MEASURED, Cell, Result, Round
from benchmarks.cells.records import Records
from slimexport.target.arrays import Array
from slimexport.target.backends import CUDA
from slimexport.target.errors import BundleError
from slimexport.target.serving import starting
from slimexport.target.serving.measuring import percentile
from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.runtime import Runtime
from slimexport.target.serving.starting import Start
from slimexport.target.timings.recorded import ProfileError
from tests.support.bundle_helpers import artifact, engine, manifest, with_file, write_manifest
from tests.support.onnx_outlines import outline
from tests.support.serving_helpers import (
    CLASSES,
    FOREVER_MS,
    PATIENCE_S,
    SIZE,
    Bench,
    images,
    toy_bundle,
)

MANY = tuple(0.1 * number for number in range(1, 11))


def labels(runtime: Runtime) -> list[str]:
    return [info.label for info in runtime.widths]


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Runs take what their width says, a millisecond an image times this, by label; no clock is read."""
    factors: dict[str, float] = {}

    def time_run(compute: Any, batch: Array, clock: Any = None) -> float:
        compute(batch)
        return len(batch) * factors.get(compute.label, 1.0)

    monkeypatch.setattr(starting, "time_run", time_run)
    monkeypatch.setattr("slimexport.target.serving.measuring.time_run", time_run)
    return factors


# ------------------------------------------------------------------------------------------------------------------ widths


def test_five_are_opened_that_spread_best(tmp_path: Path, bench: Bench, clockwork: dict[str, float]) -> None:
    """Of those that no other is as fast and as good as: by the logarithm of latency."""
    clockwork.update({f"{width:g}": 2.0**number for number, width in enumerate(MANY)})
    with Runtime(toy_bundle(tmp_path / "even", MANY), slo_ms=FOREVER_MS) as runtime:
        places = [round(10 * float(label)) for label in labels(runtime)]
    assert (places[0], places[-1]) == (1, 10)
    assert sorted(high - low for low, high in itertools.pairwise(places)) == [2, 2, 2, 3]
    accuracies = [0.1, 0.2, 0.15, 0.3, 0.25, 0.4, 0.35, 0.5, 0.45, 0.6]
    with Runtime(toy_bundle(tmp_path / "uneven", MANY, accuracies=accuracies)) as runtime:
        assert labels(runtime) == ["0.1", "0.4", "0.6", "0.8", "1"]
    opened = [toy for toy in bench.runners if toy.closed == 0]
    assert not opened, "those that were looked at are closed, and the others when the runtime was"


def test_all_are_opened_where_they_are_few_or_asked_for(tmp_path: Path, bench: Bench) -> None:
    with Runtime(toy_bundle(tmp_path / "few", MANY[:5])) as runtime:
        assert len(runtime.widths) == len(bench.runners) == 5
    with Runtime(toy_bundle(tmp_path / "b", MANY), widths=["0.9", 0.2, 0.5]) as runtime:
        assert labels(runtime) == ["0.2", "0.5", "0.9"], "from the narrowest to the widest"
    with Runtime(toy_bundle(tmp_path / "all", MANY), widths=MANY) as runtime:
        assert len(runtime.widths) == 10


def test_looking_ends_in_time_the_ends_first(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, clockwork: dict[str, float]
) -> None:
    monkeypatch.setattr(starting, "LOOKING_S", 0.0)
    with Runtime(toy_bundle(tmp_path / "b", MANY)) as runtime:
        assert len(runtime.widths) <= 5 and labels(runtime)[-1] == "1"
    runs = [1] * (1 + starting.LEAST_LOOKS)
    looked_at = {toy.file for toy in bench.runners if toy.runs == runs}
    assert len(looked_at) == 5 and {"net_x0_1.onnx", "net_x1.onnx", "net_x0_5.onnx"} <= looked_at


@pytest.mark.parametrize("seed", range(5))
def test_a_disturbance_while_looking_changes_no_choice(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A neighbor makes runs in a row, more than one width has rounds, take several times as long; a little noise is always."""
    noise = np.random.default_rng(seed)
    widths = MANY[:-1]
    begins = int(noise.integers(3 * starting.LOOKS))
    disturbed = range(begins, begins + 2 * starting.LOOKS)
    numbers = itertools.count()

    def time_run(compute: Any, batch: Array, clock: Any = None) -> float:
        compute(batch)
        factor = 5.0 if next(numbers) in disturbed else 1.0
        return factor * float(noise.uniform(1.0, 1.02)) * 2.0 ** (10 * float(compute.label))

    monkeypatch.setattr(starting, "time_run", time_run)
    monkeypatch.setattr(starting, "LOOKING_S", float("inf"))
    with Runtime(toy_bundle(tmp_path / "b", widths), batches=[1]) as runtime:
        assert labels(runtime) == ["0.1", "0.3", "0.5", "0.7", "0.9"]


# --------------------------------------------------------------------------------------------------------------- kept


def test_the_second_start_measures_nothing(tmp_path: Path, bench: Bench, clockwork: dict[str, float]) -> None:
    folder = toy_bundle(tmp_path / "b", MANY)
    clockwork.update({f"{width:g}": width for width in MANY})
    with Runtime(folder) as runtime:
        first, runs = runtime.latencies, sum(len(toy.runs) for toy in bench.runners)
    bench.runners.clear()
    with Runtime(folder) as runtime:
        np.testing.assert_allclose(runtime.latencies.ms, first.ms, rtol=1e-5)
    assert len(bench.runners) == 5, "nothing is looked at again"
    assert sum(len(toy.runs) for toy in bench.runners) < runs / 5


@pytest.mark.parametrize(("factor", "anew"), [(1.0, False), (1.4, False), (0.7, False), (1.6, True), (0.6, True)])
def test_a_few_runs_tell_whether_what_was_kept_is_right(
    tmp_path: Path, bench: Bench, clockwork: dict[str, float], factor: float, anew: bool
) -> None:
    folder = toy_bundle(tmp_path / "b")
    Runtime(folder, batches=[1, 4]).close()
    clockwork["0.5"] = factor
    with Runtime(folder, batches=[1, 4]) as runtime:
        assert runtime.latencies.of(1, 4) == pytest.approx(4 * factor if anew else 4)
        assert runtime.latencies.of(0, 4) == 4
    clockwork["0.5"] = 1.0
    with Runtime(folder, batches=[1, 4]) as runtime:
        assert runtime.latencies.of(1, 4) == pytest.approx(4), "and what was measured anew is kept"


def test_a_longer_deadline_measures_what_a_shorter_one_did_not(
    tmp_path: Path, bench: Bench, clockwork: dict[str, float]
) -> None:
    folder = toy_bundle(tmp_path / "b")
    for slo_ms, largest, run in ((3, 2, 4), (2, 2, 4), (40, 32, 32), (5, 4, 32), (3, 2, 32)):
        bench.runners.clear()
        with Runtime(folder, slo_ms=slo_ms) as runtime:
            assert runtime.latencies.largest == largest
        assert {max(toy.runs) for toy in bench.runners} == {run}, "what is known is checked, what is not is measured"


def test_a_damaged_cache_is_measured_over(
    tmp_path: Path, bench: Bench, cache: Path, clockwork: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    folder = toy_bundle(tmp_path / "b")
    Runtime(folder).close()
    (file,) = (cache / "slimexport" / "serving").iterdir()
    file.write_text("{")
    with Runtime(folder) as runtime:
        assert runtime.latencies.of(0, 1) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    caplog.clear()
    Runtime(folder).close()
    assert not caplog.records


def test_a_file_that_was_exported_again_is_measured_again(
    tmp_path: Path, bench: Bench, clockwork: dict[str, float], cache: Path
) -> None:
    Runtime(toy_bundle(tmp_path / "b")).close()
    other = toy_bundle(tmp_path / "c", contents=[outline(b"x" * 200), outline(b"y" * 200), outline(b"z" * 200)])
    Runtime(other).close()
    Runtime(other, threads=1).close()
    Runtime(other, batches=[1]).close()
    assert len(list((cache / "slimexport" / "serving").iterdir())) == 4


# ------------------------------------------------------------------------------------------------------------ profiles


def profile(folder: Path, known: Mapping[str, Mapping[int, Sequence[float]]]) -> Path:
    """A `results.jsonl` with these samples by width's name and batch, written as benchmarks do."""
    path = folder / "results.jsonl"
    with Records(path) as records:
        records.run("python -m benchmarks b", {}, {})
        for name, row in known.items():
            for batch, samples in row.items():
                cell = Cell(
                    *("b", "net", name, name[4:], 0.5, "0.5x", f"{name}.onnx", "onnxruntime-cpu", "fp32"),
                    batch=batch,
                    image_size=SIZE,
                    macs=1,
                    params=1,
                    size_bytes=1,
                )
                records.add(Result(cell, MEASURED, rounds=(Round({"wall": samples}),)))
        records.end({}, 1.0)
    return path


TIMES = np.random.default_rng(0).lognormal(0, 0.3, 100).tolist()
KNOWN = {
    "net_x0_25": {1: TIMES, 8: [6.0]},
    "net_x0_5": {1: [2.0], 4: [5.0], 8: [9.0]},
    "net_x1": {1: [3.0], 8: [20.0]},
}


def test_a_profile_says_what_runs_take(tmp_path: Path, bench: Bench, cache: Path) -> None:
    folder = toy_bundle(tmp_path / "b")
    with Runtime(folder, profile=profile(tmp_path, KNOWN)) as runtime:
        assert runtime.latencies.batches == (1, 8), "those of all widths"
        np.testing.assert_allclose(runtime.latencies.ms, [[sorted(TIMES)[94], 6.0], [2.0, 9.0], [3.0, 20.0]], rtol=1e-6)
        assert runtime.submit(images(5), FOREVER_MS).result(timeout=PATIENCE_S).batch == 5
    with Runtime(folder, profile=str(tmp_path), batches=[8, 16], slo_ms=10) as runtime:
        assert runtime.latencies.batches == (8,)
    assert not (cache / "slimexport").exists(), "nothing is measured"


def test_widths_that_a_profile_does_not_know_are_not_served(tmp_path: Path, bench: Bench) -> None:
    folder = toy_bundle(tmp_path / "b")
    path = profile(tmp_path, {name: KNOWN[name] for name in ("net_x0_25", "net_x1")})
    with Runtime(folder, profile=path) as runtime:
        assert labels(runtime) == ["0.25", "1"]
    with pytest.raises(ProfileError, match=r"holds no latency of width 0\.5\. Measure it too, or choose of 0\.25"):
        Runtime(folder, profile=path, widths=[0.25, 0.5])
    with pytest.raises(ProfileError, match="has no batch of 2, 16 of every width"):
        Runtime(folder, profile=path, batches=[2, 16])
    with pytest.raises(ProfileError, match="not there"):
        Runtime(folder, profile=tmp_path / "none")


def test_widths_are_chosen_by_the_profile(tmp_path: Path, bench: Bench) -> None:
    folder = toy_bundle(tmp_path / "b", MANY)
    names = [f"net_x{width:g}".replace(".", "_") for width in MANY]
    times = [8.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0, 16.0, 16.0]
    path = profile(tmp_path, {name: {1: [ms]} for name, ms in zip(names, times, strict=True)})
    with Runtime(folder, profile=path) as runtime:
        assert labels(runtime) == ["0.2", "0.4", "0.6", "0.8", "1"], "the widest of those as fast"
    assert len(bench.runners) == 5


def test_a_profile_of_another_machine_is_told(
    tmp_path: Path, bench: Bench, clockwork: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    folder = toy_bundle(tmp_path / "b")
    known = {name: {1: [1.0]} for name in KNOWN}
    Runtime(folder, profile=profile(tmp_path, known)).close()
    assert not caplog.records
    clockwork["1"] = 4.0
    with caplog.at_level(logging.WARNING), Runtime(folder, profile=tmp_path) as runtime:
        assert runtime.latencies.of(2, 1) == 1.0
    (record,) = caplog.records
    assert "width 1 takes 4.00 times as long here" in record.message


# -------------------------------------------------------------------------------------------------------- batches


def test_an_engines_largest_batch_is_the_largest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the profile that it was built for."""
    folder = tmp_path / "b"
    entry = artifact("net_x0_5", format="trt", engine=engine(batch=(1, 4, 12)))
    write_manifest(folder, manifest(with_file(folder, entry), image_size=SIZE, classes=CLASSES))
    toys = Bench()
    monkeypatch.setattr(
        "slimexport.target.tensorrt.engine.TensorRTRunner", lambda path, artifact=None: toys.open(path), raising=True
    )
    monkeypatch.setattr("slimexport.target.serving.opening.artifact_path", lambda bundle, artifact: bundle / artifact.file)
    with Runtime(folder, backend="tensorrt", slo_ms=FOREVER_MS) as runtime:
        assert runtime.latencies.batches == (1, 2, 4, 8, 12)
    with pytest.raises(BundleError, match="1 to 12"):
        Runtime(folder, backend="tensorrt", batches=[13])


def test_threads_and_limits_of_first_runs_go_to_onnxruntime(tmp_path: Path, bench: Bench) -> None:
    with Runtime(toy_bundle(tmp_path / "b"), threads=1):
        assert {toy.options["threads"] for toy in bench.runners} == {1}
        assert all(toy.options["budget"].macs for toy in bench.runners)


def test_sessions_of_sizes_that_nothing_runs_are_closed_at_once(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest was too slow for eight images at once, so no width runs eight."""

    def samples(self: Start, files: Sequence[OpenFile], *rest: object) -> dict[str, dict[int, list[float]]]:
        for file in files:
            for size in (1, 4, 8):
                file(images(size))
        return {file.label: {size: [1.0] for size in (1, 4, 8) if (file.label, size) != ("1", 8)} for file in files}

    monkeypatch.setattr(Start, "_samples", samples)
    with Runtime(toy_bundle(tmp_path / "b"), slo_ms=FOREVER_MS, backend=CUDA, batches=[1, 4, 8]) as runtime:
        assert runtime.latencies.batches == (1, 4)
        assert {(size, runner.closed) for runner in bench.runners for size in runner.runs} == {(1, 0), (4, 0), (8, 1)}


def test_a_backend_that_had_no_time_for_all_sizes_begins_with_the_same_again(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To prepare is what takes the time, at every start: what was measured of some sizes is worth keeping."""
    asked: list[bool] = []

    def sample(widths: Sequence[Any], *rest: object, some: bool = False) -> dict[str, dict[int, list[float]]]:
        asked.append(some)
        return {name: {1: [1.0], 8: [2.0]} for name, _ in widths}

    monkeypatch.setattr(starting, "sample", sample)
    monkeypatch.setattr(starting, "OFF", float("inf"))
    bundle = toy_bundle(tmp_path / "b")
    for _ in range(2):
        with Runtime(bundle, slo_ms=FOREVER_MS, backend=CUDA) as runtime:
            assert runtime.latencies.batches == (1, 8)
            assert runtime.submit(images(5)).result(PATIENCE_S).output.shape[0] == 5
    assert asked == [True]
    with Runtime(bundle, slo_ms=60.0, backend=CUDA):
        assert asked == [True, True], "another deadline leaves room for other sizes"
    with Runtime(bundle, slo_ms=FOREVER_MS):
        assert asked == [True, True, False], "on a CPU a size costs nothing before it runs"


def test_the_percentile_is_of_all_samples() -> None:
    assert percentile(TIMES) == sorted(TIMES)[94]


def test_a_backend_that_prepares_for_every_batch_size_runs_those_of_the_start_alone(tmp_path: Path, bench: Bench) -> None:
    """On a GPU the first run of a size takes a hundred times as long as the next: queues are of any length."""
    with Runtime(toy_bundle(tmp_path / "b"), slo_ms=FOREVER_MS, backend=CUDA, batches=[1, 4, 8]) as runtime:
        begun = sorted((runner.file, *set(runner.runs)) for runner in bench.runners)
        assert begun == [(f"net_x{width}.onnx", size) for width in ("0_25", "0_5", "1") for size in (1, 4, 8)], "one for each"
        answers = [runtime.submit(images(count)).result(PATIENCE_S) for count in (1, 2, 3, 5, 7, 8)]
        table = runtime.latencies
    assert [len(answer.output) for answer in answers] == [1, 2, 3, 5, 7, 8]
    assert table.of(0, 5) == table.of(0, 8) and table.of(0, 3) == table.of(0, 4), "which is what the run takes"
    assert sorted((runner.file, *set(runner.runs)) for runner in bench.runners) == begun
    assert all(runner.closed == 1 for runner in bench.runners)
