"""What cannot be measured is told and the rest goes on; wrong outputs are refused; Ctrl-C keeps what there is."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import (
    INTERRUPTED,
    MEASURED,
    NOT_MEASURED,
    Array,
    Cell,
    NotMeasured,
    OutOfMemory,
    Result,
)
from benchmarks.measure.output_check import Reference
from benchmarks.measure.turns import Interrupted, Method
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.reference import Probes
from tests.support.bench_helpers import CLASSES, GIB, PROBES, Behaviour, Machine, cell, logits_of

TWO_ROUNDS = Method(duration_s=1, repeats=2, warmup_s=0.25, least_iterations=1)
EIGHTH = 0.125
# With TWO_ROUNDS and iterations of an EIGHTH: 2 of warm-up and 4 measured ones in every turn.
PER_TURN = 6


def group(*names: str) -> list[Cell]:
    return [cell(name) for name in names]


def machine_of(**networks: Behaviour) -> Machine:
    machine = Machine()
    machine.networks = {name: Behaviour(takes=EIGHTH) for name in "abcd"} | networks
    return machine


def statuses(results: list[Result]) -> dict[str, tuple[str, str]]:
    return {result.cell.name: (result.status, result.reason) for result in results}


def test_what_cannot_be_opened_is_told_and_costs_no_time() -> None:
    errors: list[Exception] = [NotMeasured("no plan"), BundleError("damaged"), MissingBackend("no GPU"), MemoryError()]
    machine = machine_of(**{name: Behaviour(at_open=error) for name, error in zip("abcd", errors, strict=True)})
    results = machine.measure(group(*"abcd"), TWO_ROUNDS)
    assert [result.reason for result in results] == ["no plan", "damaged", "no GPU", "the host's memory ran out"]
    assert {result.status for result in results} == {NOT_MEASURED}
    assert machine.clock.now == 0
    assert machine.reported == results


def test_a_failing_network_is_closed_and_the_others_go_on() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={PER_TURN + 3: NotMeasured("CUDA error 700")}))
    results = machine.measure(group(*"abc"), TWO_ROUNDS)
    assert statuses(results) == {"a": (MEASURED, ""), "b": (NOT_MEASURED, "CUDA error 700"), "c": (MEASURED, "")}
    assert results[1].rounds == ()
    assert results[1].settings == {"threads": 1}
    assert [len(samples) for samples in results[2].latency_ms] == [4, 4]
    closed = machine.log.index(("close", "b"))
    assert any(entry[:2] == ("run", "a") for entry in machine.log[closed:])  # at once, not in the end
    assert machine.open == []


@pytest.mark.parametrize("when", [{"at_open": TypeError("a bug")}, {"at_run": {3: ValueError("a bug")}}])
def test_errors_of_programs_are_not_hidden(when: Mapping[str, Any]) -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, **when))
    with pytest.raises((TypeError, ValueError), match="a bug"):
        machine.measure(group("a", "b"), TWO_ROUNDS)
    assert machine.open == []


def test_what_was_measured_before_a_bug_is_reported() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={3: TypeError("a bug")}))
    with pytest.raises(TypeError):
        machine.measure(group("a", "b"), TWO_ROUNDS)
    assert statuses(machine.reported)["a"] == (INTERRUPTED, "interrupted in round 2 of 2")


def test_groups_are_measured_apart_and_results_keep_the_order_of_the_cells() -> None:
    machine = machine_of()
    cells = [cell("a"), cell("b", batch=8), cell("c"), cell("d", batch=8)]
    results = machine.measure(cells, TWO_ROUNDS)
    assert [result.cell for result in results] == cells
    assert [result.cell.name for result in machine.reported] == ["a", "c", "b", "d"]
    assert machine.log.index(("close", "c")) < machine.log.index(("open", "b"))


@pytest.mark.parametrize("said", [0.0, -1.0, math.nan, math.inf])
def test_times_that_cannot_be_are_refused(said: float) -> None:
    machine = machine_of(a=Behaviour(takes=EIGHTH, timer=lambda seconds: said))
    results = machine.measure(group("a", "b"), TWO_ROUNDS)
    assert statuses(results)["a"] == (NOT_MEASURED, "a clock gave a time of zero or less, or none at all")
    assert statuses(results)["b"] == (MEASURED, "")


def test_networks_without_room_beside_the_others_are_measured_after_them() -> None:
    machine = machine_of(**{name: Behaviour(takes=EIGHTH, needs_bytes=400) for name in "abcde"})
    machine.memory_bytes = 1000
    results = machine.measure(group(*"abcde"), TWO_ROUNDS)
    assert {result.status for result in results} == {MEASURED}
    opened = [entry[1] for entry in machine.log if entry[0] in ("open", "close")]
    assert opened == list("abbacddcee")  # each as many as there is room for
    said = "memory ran out with 2 networks open"
    assert [any(said in warning for warning in result.warnings) for result in results] == [False, False, True, True, True]


def test_a_network_too_large_for_the_machine_is_tried_alone_and_told() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, needs_bytes=2 * GIB))
    results = machine.measure(group(*"abc"), TWO_ROUNDS)
    reason = f"the host's memory ran out: {2 * GIB} bytes"
    assert statuses(results) == {"a": (MEASURED, ""), "b": (NOT_MEASURED, reason), "c": (MEASURED, "")}


def test_a_network_that_runs_out_of_memory_beside_others_is_tried_alone() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={3: OutOfMemory("no workspace")}))
    results = machine.measure(group(*"abc"), TWO_ROUNDS)
    assert {result.status for result in results} == {MEASURED}
    assert machine.log.index(("close", "a")) < [at for at, entry in enumerate(machine.log) if entry == ("open", "b")][1]
    alone = [any("was measured alone" in warning for warning in result.warnings) for result in results]
    assert alone == [False, True, False]
    assert [len(samples) for samples in results[1].latency_ms] == [4, 4]


def test_a_network_that_runs_out_of_memory_alone_too_is_told() -> None:
    every = {count: OutOfMemory("no workspace") for count in range(100)}
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run=every))
    results = machine.measure(group("a", "b"), TWO_ROUNDS)
    assert statuses(results) == {"a": (MEASURED, ""), "b": (NOT_MEASURED, "no workspace")}
    assert machine.networks["b"].runs == 2  # in the group and alone


def test_too_little_host_memory_is_seen_before_the_kernel_sees_it() -> None:
    machine = machine_of(**{name: Behaviour(takes=EIGHTH, needs_bytes=300) for name in "abc"})
    machine.memory_bytes, machine.held = 2000, 900
    results = machine.measure(group(*"abc"), TWO_ROUNDS)
    assert {result.status for result in results} == {MEASURED}
    opened = [entry[1] for entry in machine.log if entry[0] in ("open", "close")]
    assert opened == list("abbacc")  # 500 bytes are left beside a and b, less than twice what one takes


def interrupted(machine: Machine, cells: list[Cell], method: Method = TWO_ROUNDS, **changes: Any) -> dict[str, Result]:
    with pytest.raises(Interrupted) as caught:
        machine.measure(cells, method, **changes)
    assert machine.open == []
    assert [result.cell for result in caught.value.results] == cells
    assert sorted(map(id, machine.reported)) == sorted(map(id, caught.value.results))
    return {result.cell.name: result for result in caught.value.results}


BEFORE = (NOT_MEASURED, "interrupted before it was measured")


def test_ctrl_c_while_opening() -> None:
    machine = machine_of(b=Behaviour(at_open=KeyboardInterrupt()))
    results = interrupted(machine, group(*"abc"))
    assert statuses(list(results.values())) == {"a": BEFORE, "b": BEFORE, "c": BEFORE}


def test_ctrl_c_during_a_warm_up() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={1: KeyboardInterrupt()}))
    results = interrupted(machine, group(*"abc"))
    assert statuses(list(results.values())) == {"a": (INTERRUPTED, "interrupted in round 2 of 2"), "b": BEFORE, "c": BEFORE}
    assert results["a"].latency_ms == [[1e3 * EIGHTH] * 4]


def test_ctrl_c_during_a_round_keeps_its_samples() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={PER_TURN + 2 + 3: KeyboardInterrupt()}))
    results = interrupted(machine, [*group(*"abc"), cell("d", batch=8)])
    assert statuses(list(results.values())) == {
        "a": (INTERRUPTED, "interrupted in round 2 of 2"),
        "b": (INTERRUPTED, "interrupted in round 2 of 2"),
        "c": (MEASURED, ""),
        "d": BEFORE,
    }
    assert [len(samples) for samples in results["b"].latency_ms] == [4, 3]
    assert [len(samples) for samples in results["c"].latency_ms] == [4, 4]


def test_ctrl_c_while_results_are_written_loses_none() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH))
    written: list[str] = []

    def write(result: Result) -> None:
        written.append(result.cell.name)
        if len(written) == 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        machine.measure(group(*"abc"), TWO_ROUNDS, on_result=write)
    assert statuses(stopped.value.results) == dict.fromkeys("abc", (MEASURED, ""))
    assert written == ["a", "b", "c"]


def test_ctrl_c_in_the_first_iteration_of_a_round_leaves_no_empty_round() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={PER_TURN + 2: KeyboardInterrupt()}))
    results = interrupted(machine, group(*"ab"))
    assert [len(samples) for samples in results["b"].latency_ms] == [4]


def test_ctrl_c_in_half_a_round() -> None:
    three = Method(duration_s=6, repeats=3, warmup_s=0, least_iterations=1)
    machine = machine_of(a=Behaviour(takes=EIGHTH, at_run={16 + 8 + 3: KeyboardInterrupt()}))
    results = interrupted(machine, group(*"ab"), three)
    assert [len(samples) for samples in results["a"].latency_ms] == [16, 8 + 3]
    assert results["a"].reason == "interrupted in round 2 of 3"


def test_ctrl_c_leaves_finished_groups_and_the_collector_as_they_were() -> None:
    machine = machine_of(b=Behaviour(takes=EIGHTH, at_run={4: KeyboardInterrupt()}))
    results = interrupted(machine, [cell("a", batch=8), cell("b")])
    assert statuses(list(results.values()))["a"] == (MEASURED, "")
    assert gc.isenabled()


def reference_of(cell: Cell) -> Reference:
    return Reference(Probes.of(PROBES, logits_of(PROBES)))


def test_right_outputs_are_measured_without_a_word() -> None:
    machine = machine_of()
    (result,) = machine.measure(group("a"), TWO_ROUNDS, reference_of=reference_of)
    assert result.status == MEASURED
    assert not any("output" in warning for warning in result.warnings)
    assert ("logits", "a", 1) in machine.log


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (lambda images: logits_of(images) + 1, "off the bundle's reference by"),
        (lambda images: np.full((len(images), CLASSES), np.nan), "not finite"),
        (lambda images: np.full((len(images), CLASSES), np.inf), "not finite"),
        (lambda images: logits_of(images)[:, :-1], r"\[2, 4\], the bundle's reference \[2, 5\]"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_wrong_outputs_are_refused(logits: Callable[[Array], Array], said: str, precision: str) -> None:
    if precision == "int8" and "off" in said:  # what is added to all classes decides nothing
        logits, said = (lambda images: logits_of(images)[:, ::-1]), "has a cosine of"
    machine = machine_of(b=Behaviour(takes=EIGHTH, logits=logits))
    cells = [cell(name, precision=precision) for name in "ab"]
    right, wrong = machine.measure(cells, TWO_ROUNDS, reference_of=reference_of)
    assert right.status == MEASURED
    assert wrong.status == NOT_MEASURED
    assert re.search(said, wrong.reason)
    assert machine.networks["b"].runs == 0


def test_probes_that_prove_nothing_are_a_warning() -> None:
    same = np.repeat(PROBES[:1], 2, 0)
    machine = machine_of()
    (result,) = machine.measure(group("a"), TWO_ROUNDS, reference_of=lambda cell: Reference(Probes.of(same, logits_of(same))))
    assert result.status == MEASURED
    assert "not proven right" in result.warnings[0]


def test_a_cell_without_reference_is_a_warning() -> None:
    (result,) = machine_of().measure(group("a"), TWO_ROUNDS, reference_of=lambda cell: None)
    assert result.status == MEASURED
    assert "was not checked" in result.warnings[0]


def test_running_out_of_memory_in_the_check_is_running_out_of_memory() -> None:
    machine = machine_of(b=Behaviour(at_logits=OutOfMemory("no workspace")))
    results = machine.measure(group(*"abc"), TWO_ROUNDS, reference_of=reference_of)
    assert statuses(results) == {"a": (MEASURED, ""), "b": (NOT_MEASURED, "no workspace"), "c": (MEASURED, "")}
