"""The trace on disk: what it holds, a search that is killed and goes on, and another search's trace."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.costs.cost_model import cost_model
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.greedy import CandidateScore, SearchOutcome, run_search
from slimtrain.search.slimming import Slimming
from slimtrain.search.trace import CANDIDATES, SEARCH, TRACE, Candidate, SearchStep, Trace, read_trace
from slimtrain.training.distributed import Processes
from tests.support.run_helpers import tree
from tests.support.search_toys import V1, evaluator, small_network
from tests.support.slimtrain_processes import METHOD, in_processes

SIZE = 32
SHARES = (0.85, 0.6)  # of the start's MACs
Whole = tuple[Path, list[SearchOutcome]]  # a search's folder and what it found


def search(folder: Path, resume: bool = False, **options: Any) -> list[SearchOutcome]:
    """A search of some 10 steps."""
    torch.set_num_threads(1)
    network = options.pop("network", None) or small_network()
    measure = options.pop("measure", None) or evaluator(network, **options.pop("evaluation", {}))
    slimming, cost = Slimming(V1, options.pop("groups", 3)), cost_model("macs", V1, SIZE)
    targets = [share * cost(slimming.start) for share in options.pop("shares", SHARES)]
    trace = Trace(folder, resume=resume, write=options.pop("write", True))
    return run_search(network, slimming, cost, targets, measure, image_size=SIZE, trace=trace, **options)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def plans(outcomes: list[SearchOutcome]) -> list[tuple[str, dict[str, int]]]:
    return [(outcome.plan.name, dict(outcome.plan.channels)) for outcome in outcomes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted search."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, search(folder)


# ----------------------------------------------------------------------------------------------------------- the files


def test_a_line_per_step_and_one_per_candidate(whole: Whole) -> None:
    folder, outcomes = whole
    steps, candidates = rows(folder, TRACE), rows(folder, CANDIDATES)
    assert len(steps) == outcomes[-1].step > 5
    plan = Slimming(V1, 3).start
    for number, step in enumerate(steps, 1):
        own = [row for row in candidates if row["step"] == str(number)]
        assert len(own) == int(step["candidates"]) == len(Slimming(V1, 3).steps(plan))
        (chosen,) = [row for row in own if row["chosen"] == "1"]
        assert (chosen["group"], chosen["channels_after"]) == (step["group"], step["channels_after"])
        assert (chosen["error"], chosen["loss"], chosen["cost"]) == (
            step["error_after"],
            step["loss_after"],
            step["cost_after"],
        )
        assert float(chosen["error"]) == min(float(row["error"]) for row in own)
        plan = ChannelPlan("p", {**plan.channels, step["group"]: int(step["channels_after"])})
    assert plan == outcomes[-1].plan
    identity = json.loads((folder / SEARCH).read_text())
    assert (identity["network"], identity["cost"], identity["criterion"]) == ("us_mobilenet_v1", "macs", "error")


def test_numbers_keep_all_their_digits(whole: Whole) -> None:
    folder, outcomes = whole
    last = read_trace(folder)[outcomes[-1].step - 1]
    assert (last.cost_after, last.error_after, last.loss_after) == (outcomes[-1].cost, outcomes[-1].error, outcomes[-1].loss)


# -------------------------------------------------------------------------------------------------------------- killed


class KilledWhileMeasuring:
    """Dies once the candidates of the 4th step are measured, before any of it is on disk."""

    percent = True

    def __init__(self) -> None:
        self.inner, self.calls = evaluator(small_network()), 0

    def __call__(self, current: ChannelPlan, candidates: list[ChannelPlan]) -> list[CandidateScore]:
        measured = self.inner(current, candidates)
        self.calls += 1
        if self.calls == 5:  # the first is of the start
            os.kill(os.getpid(), signal.SIGKILL)
        return measured

    def identity(self) -> dict[str, Any]:
        return self.inner.identity()


def killed_while_measuring(folder: Path) -> None:
    search(folder, measure=KilledWhileMeasuring())


def killed_while_writing(folder: Path) -> None:
    """Dies with half of the 3rd step's line in trace.csv: candidates.csv has all of the step."""
    append = Trace._append

    def half(self: Trace, name: str, lines: Any) -> None:
        if name == TRACE and lines[0].step == 3:
            whole_line = ",".join(map(str, dataclasses.astuple(lines[0])))
            with (self.folder / name).open("a") as file:
                file.write(whole_line[: len(whole_line) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        append(self, name, lines)

    Trace._append = half  # type: ignore[method-assign,assignment]
    search(folder)


def killed_while_writing_candidates(folder: Path) -> None:
    """Dies before trace.csv is there, with the first step's candidates half written."""

    def half(self: Trace, name: str, lines: Any) -> None:
        (self.folder / name).write_text("step,group,channels_before,channels_after,cost,error,loss,chosen\n1,features.0,8,")
        os.kill(os.getpid(), signal.SIGKILL)

    Trace._append = half  # type: ignore[method-assign,assignment]
    search(folder)


def kill(function: Callable[[Path], None], folder: Path) -> None:
    """Run `function` in a process that kills itself."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload(["torch", "pytest", "slimtrain.training.run"])
    process = context.Process(target=function, args=(folder,))  # type: ignore[attr-defined]
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("function", "done"), [(killed_while_measuring, 3), (killed_while_writing, 2), (killed_while_writing_candidates, 0)]
)
def test_a_killed_search_goes_on_to_the_same_plans(
    function: Callable[[Path], None], done: int, tmp_path: Path, whole: Whole
) -> None:
    kill(function, tmp_path)
    assert len(read_trace(tmp_path)) == done
    lines: list[str] = []
    outcomes = search(tmp_path, resume=True, say=lines.append)
    folder, expected = whole
    assert outcomes == expected
    assert plans(outcomes) == plans(expected)
    assert rows(tmp_path, TRACE) == rows(folder, TRACE)
    assert rows(tmp_path, CANDIDATES) == rows(folder, CANDIDATES)
    assert (tmp_path / SEARCH).read_bytes() == (folder / SEARCH).read_bytes()
    assert sum(line.startswith("step ") for line in lines) == expected[-1].step - done
    assert any(line.startswith(f"going on after {done} steps") for line in lines) == (done > 0)


def test_a_finished_search_is_read_and_not_measured_again(whole: Whole) -> None:
    folder, outcomes = whole
    before = tree(folder, ["trace.png"])

    class Never:
        percent = True

        def __call__(self, *arguments: Any) -> list[CandidateScore]:
            raise AssertionError

        def identity(self) -> dict[str, Any]:
            return evaluator(small_network()).identity()

    assert search(folder, resume=True, measure=Never()) == outcomes
    assert tree(folder, ["trace.png"]) == before


# ------------------------------------------------------------------------------------------------------ another search


def test_a_search_is_not_written_over(whole: Whole) -> None:
    before = tree(whole[0])
    with pytest.raises(UserError, match=r"holds a search already. Go on with --resume auto"):
        search(whole[0])
    assert tree(whole[0]) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"groups": 4}, "groups was 3 and is 4"),
        ({"criterion": "error-per-cost"}, "criterion was 'error' and is 'error-per-cost'"),
        ({"shares": (0.85, 0.5)}, r"targets was \[.*\] and is \["),
        ({"evaluation": {"amp": "bf16"}}, "amp was 'none' and is 'bf16'"),
    ],
)
def test_another_searchs_trace_is_refused(changes: dict[str, Any], message: str, whole: Whole) -> None:
    before = tree(whole[0])
    with pytest.raises(UserError, match=f"belongs to another search: {message}[^,]*. A resumed|belongs.*{message}"):
        search(whole[0], resume=True, **changes)
    assert tree(whole[0]) == before


def test_other_weights_and_other_images_are_refused(whole: Whole) -> None:
    network = small_network()
    network.get_parameter("features.3.body.3.weight").data[0, 0] += 1e-3
    with pytest.raises(UserError, match=r"weights_sha256 was '.*' and is '"):
        search(whole[0], resume=True, network=network, measure=evaluator(small_network()))
    shifted = evaluator(small_network())
    images, labels = shifted.chunks.chunks[0]  # type: ignore[attr-defined]
    shifted.chunks.chunks[0] = (images + 1, labels)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"images_sha256 was '.*' and is '"):
        search(whole[0], resume=True, measure=shifted)


def copied(folder: Path, to: Path) -> None:
    for name, content in tree(folder).items():
        (to / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (TRACE, "step,group", "stufe,group", "trace.csv: is damaged behind line 1 .other columns"),
        (TRACE, "\n2,", "\ntwo,", "trace.csv: is damaged behind line 2"),
        (TRACE, "\n2,", "\n7,", "its steps do not count from 1"),
        (TRACE, "\n2,features.", "\n2,feature.", "step 2 of the trace does not follow"),
        (SEARCH, "{", "[", "search.json: cannot be read"),
        (CANDIDATES, "\n1,", "\n", "candidates.csv: is damaged behind line 1"),
    ],
)
def test_damaged_files(name: str, old: str, new: str, message: str, whole: Whole, tmp_path: Path) -> None:
    copied(whole[0], tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        search(tmp_path, resume=True)


def test_a_step_that_was_changed_by_hand(whole: Whole, tmp_path: Path) -> None:
    """Another group that exists, so that only what follows from the steps before tells."""
    copied(whole[0], tmp_path)
    steps = read_trace(tmp_path)
    step = dataclasses.replace(steps[3], channels_after=steps[3].channels_after - 8)
    lines = (tmp_path / TRACE).read_text().splitlines()
    lines[4] = ",".join(map(str, dataclasses.astuple(step)))
    (tmp_path / TRACE).write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"step 4 of the trace does not follow"):
        search(tmp_path, resume=True)


def test_a_trace_without_its_search(whole: Whole, tmp_path: Path) -> None:
    copied(whole[0], tmp_path)
    (tmp_path / SEARCH).unlink()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"has a trace.csv but no search.json"):
            search(tmp_path, resume=resume)


def test_a_disk_that_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    trace = Trace(tmp_path)
    trace.begin({})
    step = SearchStep(1, "a", 16, 8, 2.0, 1.0, 2, 1, 1.0, 2.0, 3.0, 4.0, 12, 1, 0.1)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"candidates.csv: no space left on its disk.*--resume auto"):
        trace.add(step, [Candidate(1, "a", 16, 8, 1.0, 2.0, 4.0, 1)])


# ------------------------------------------------------------------------------------------------------- several processes


def searched_together(processes: Processes, folder: Path, resume: bool) -> list[SearchOutcome]:
    network = small_network()
    measure = dataclasses.replace(evaluator(network), processes=processes)
    return search(folder, resume, network=network, measure=measure, write=processes.first)


def test_two_processes_find_what_one_does(whole: Whole, tmp_path: Path) -> None:
    folder, expected = whole
    kill(killed_while_writing, tmp_path)
    assert in_processes(2, searched_together, tmp_path, True) == [expected] * 2
    assert rows(tmp_path, TRACE) == rows(folder, TRACE)
    assert rows(tmp_path, CANDIDATES) == rows(folder, CANDIDATES)


@pytest.mark.parametrize("value", ["9" * 5000, "1" * 30, "x" * 200_000, "٣", "1.5"])
def test_numbers_that_no_search_writes_are_told_short(tmp_path: Path, value: str) -> None:
    trace = Trace(tmp_path)
    trace.begin({"a": 1})
    trace.add(
        SearchStep(1, "g", 10, 8, 1.5, 1.2, 100, 10, 1.0, 2.0, 0.1, 0.2, 10, 2, 0.5), [Candidate(1, "g", 10, 8, 1, 1, 1, 1)]
    )
    (tmp_path / TRACE).write_text((tmp_path / TRACE).read_text().replace(",100,10,", f",{value},10,"))
    with pytest.raises(UserError, match="is damaged behind line 1") as caught:
        read_trace(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_costs_and_errors_are_finite_and_losses_may_not_be(tmp_path: Path, value: str) -> None:
    step = SearchStep(1, "g0", 8, 6, 10.0, 9.0, 10, 10, 9.5, 10.0, 1.4, 1.5, 64, 3, 0.25)
    for field in dataclasses.fields(SearchStep):
        if field.type != "float":
            continue
        trace = Trace(tmp_path / field.name)
        trace.folder.mkdir()
        changes: dict[str, Any] = {field.name: float(value)}
        trace.add(dataclasses.replace(step, **changes), [Candidate(1, "g0", 8, 6, 9.0, 10.0, 1.5, 1)])
        if field.name.startswith("loss"):
            assert repr(getattr(read_trace(trace.folder)[0], field.name)) == value
        else:
            with pytest.raises(UserError, match="no cost and no error"):
                read_trace(trace.folder)
