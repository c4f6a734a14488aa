"""A run of the study from bundles to results, on a small real bundle: measured once, drawn again, measured anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cells.cell import MEASURED
from benchmarks.cells.inputs import assumed_cache
from benchmarks.cells.plan_cells import open_bundle
from benchmarks.cells.records import RESULTS
from benchmarks.measure.method import Method
from benchmarks.studies.zoo import run
from benchmarks.studies.zoo.run import TURNS, Asked, zoo_results
from slimtrain.base.errors import UserError

ASKED = Asked(("us_mobilenet_v1",), (1, 2), "onnxruntime-cpu", "fp32", 1, Method(0.004, 2, 0.001, 2), 32)


@pytest.fixture
def exports(two_widths: Path, monkeypatch: pytest.MonkeyPatch, hasty: None) -> Iterator[list[tuple[str, ...]]]:
    calls: list[tuple[str, ...]] = []

    def export(networks: tuple[str, ...], *rest: object) -> object:
        calls.append(networks)
        return [open_bundle(two_widths)]

    monkeypatch.setattr(run, "export", export)
    with assumed_cache(1 << 16):
        yield calls


def results(folder: Path, asked: Asked = ASKED, again: bool = False) -> tuple[object, list[str]]:
    said: list[str] = []
    return zoo_results(asked, folder, "python -m zoo", said.append, lambda *doing: None, again), said


def test_a_finished_run_is_not_measured_again(tmp_path: Path, exports: list[tuple[str, ...]]) -> None:
    first, said = results(tmp_path)
    assert [result.status for result in first.results] == [MEASURED] * 4  # type: ignore[attr-defined]
    assert [(of.cell.batch, of.cell.width) for of in first.results] == [(1, 0.25), (1, 0.5), (2, 0.25), (2, 0.5)]  # type: ignore[attr-defined]
    assert all(len(result.rounds) == 2 for result in first.results)  # type: ignore[attr-defined]
    assert not any("was not checked" in warning for of in first.results for warning in of.warnings)  # type: ignore[attr-defined]
    assert said == ["4 cells in 2 rounds: more than 0:00, and the loading"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS]
    again, said = results(tmp_path)
    assert again == first and exports == [("us_mobilenet_v1",)]
    assert "--again measures anew" in said[0]
    results(tmp_path, again=True)
    assert len(exports) == 2


def test_other_settings_than_the_results_are_refused(tmp_path: Path, exports: list[tuple[str, ...]]) -> None:
    results(tmp_path)
    with pytest.raises(UserError, match=r"other settings \(batches was \[1, 2\] and is \[1\]"):
        results(tmp_path, replace(ASKED, batches=(1,)))


def test_an_interrupted_run_says_what_it_goes_on_from(
    tmp_path: Path, exports: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run, "_keep", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            results(tmp_path)
    assert (tmp_path / TURNS).exists() and not (tmp_path / RESULTS).exists()
    _, said = results(tmp_path)
    assert said[0].endswith("goes on after 8 turns of an interrupted run")


@pytest.mark.parametrize("batches", [(), (0,), (1, -2)])
def test_batches_that_are_none_are_refused(batches: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="expected whole numbers from 1"):
        replace(ASKED, batches=batches)
