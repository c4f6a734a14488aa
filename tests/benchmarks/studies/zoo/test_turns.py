"""Networks that are opened for each turn: their order, what is kept, and going on when interrupted, on a made-up machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells.cell import MEASURED, NOT_MEASURED, NotMeasured, Options
from benchmarks.cells.statistics import summary
from benchmarks.measure.method import Method
from benchmarks.measure.turns import CellSource
from benchmarks.studies.zoo.turns import Turns, settings_of, take_turns
from slimtrain.base.errors import UserError
from tests.support.bench_helpers import Behaviour, Machine, NoInputs, cell

METHOD = Method(duration_s=1.0, repeats=4, warmup_s=0.0, least_iterations=10)
CELLS = [cell("a"), cell("b"), cell("c")]
RUN: dict[str, Any] = {"command": "zoo", "settings": settings_of(METHOD, threads=2)}


def machine(**behaviours: Behaviour) -> Machine:
    fake = Machine()
    fake.networks = {"a": Behaviour(takes=0.125), "b": Behaviour(takes=0.125), "c": Behaviour(takes=0.125)} | behaviours
    return fake


def measured(fake: Machine, path: Path) -> Turns:
    turns = Turns.at(path)
    turns.begin(RUN)
    source = CellSource(lambda cell: path, fake.opener, lambda cell: NoInputs(), Options())
    take_turns(CELLS, source, METHOD, turns, lambda doing, done, total: None, clock=fake.clock)
    return turns


def opened(fake: Machine) -> list[str]:
    return [entry[1] for entry in fake.log if entry[0] == "open"]


def test_rounds_go_forth_and_back_one_network_open_at_a_time(tmp_path: Path) -> None:
    fake = machine()
    turns = measured(fake, tmp_path / "turns.jsonl")
    assert opened(fake) == list("abccbaabccba")
    kinds = [entry[0] for entry in fake.log if entry[0] != "run"]
    assert kinds == ["open", "close"] * 12
    for result in turns.results(CELLS):
        assert result.status == MEASURED and not result.warnings
        assert [list(of.samples_ms["wall"]) for of in result.rounds] == [[125.0] * 3] * 4


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    first = machine(b=Behaviour(takes=0.125, at_run={4: KeyboardInterrupt()}))  # in its second turn
    with pytest.raises(KeyboardInterrupt):
        measured(first, path)
    assert opened(first) == list("abccb")
    with path.open("a") as lines:
        lines.write('{"kind": "turn", "rou')  # as a kill leaves it
    second = machine()
    turns = measured(second, path)
    assert opened(second) == list("baabccba")
    assert [len(result.rounds) for result in turns.results(CELLS)] == [4, 4, 4]
    assert Turns.at(path).results(CELLS) == turns.results(CELLS)


def test_what_cannot_be_measured_is_tried_once_and_keeps_its_reason(tmp_path: Path) -> None:
    fake = machine(b=Behaviour(at_open=NotMeasured("no room")))
    turns = measured(fake, tmp_path / "turns.jsonl")
    assert opened(fake) == list("accaacca")
    one, refused, other = turns.results(CELLS)
    assert (refused.status, refused.reason, summary(refused)) == (NOT_MEASURED, "no room", None)
    assert one.status == other.status == MEASURED


def test_warnings_are_those_of_all_rounds_together(tmp_path: Path) -> None:
    """A round of three iterations alone would be warned of."""
    times = iter([0.125] * 9 + [0.25] * 3)
    fake = machine(a=Behaviour(takes=lambda now: next(times)))
    (result, *_) = measured(fake, tmp_path / "turns.jsonl").results(CELLS)
    assert [warning.split(":")[0] for warning in result.warnings] == ["noisy"]


@pytest.mark.parametrize("change", [{"threads": 1}, {"method": {"repeats": 9}}])
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    turns = Turns.at(tmp_path / "turns.jsonl")
    turns.begin(RUN)
    (name,) = change
    with pytest.raises(UserError, match=rf"other settings \({name} was .*Choose another --output-dir, or --again"):
        Turns.at(tmp_path / "turns.jsonl").begin({**RUN, "settings": {**RUN["settings"], **change}})


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="is no file of turns"):
        Turns.at(tmp_path / "turns.jsonl")
