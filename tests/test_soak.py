"""The long tests begin, count and judge: a few of each mode. What they show at length: benchmarks/results/robustness.json."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from slimtrain.base.errors import ResourceError, UserError
from tests.soak import exporting, hostile
from tests.soak.hurting import excused, judged_fault, judged_kill
from tests.soak.kinds.kind import Case, WrongResultError
from tests.soak.kinds.registry import KINDS
from tests.soak.outcomes import REFUSED, RIGHT, WRONG, Outcome, of_error
from tests.soak.processes import Ended, Job
from tests.soak.results import added, class_of, joined, with_newer
from tests.support import ROOT


def soak(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.soak WORDS`."""
    command = [sys.executable, "-m", "tests.soak", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_damaged_files_are_tried_counted_and_joined(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    usual = ("fuzz", "--count", "8", "--workers", "1", "--commands", "0", "--output", str(path))
    for more in (("--kinds", "search traces,images"), ("--kinds", "search traces", "--from", "8")):
        done = soak(*usual, *more)
        assert "Traceback" not in done.stderr, done.stderr
    first, second = json.loads(path.read_text())["runs"]
    assert [one["class"] for one in first["classes"]] == ["file: images"], "the traces' figures are with the last run's"
    assert second["command"].startswith("python -m tests.soak fuzz --count 8") and second["environment"]["cores"]
    for one, tried in ((first["classes"][0], 8), (second["classes"][0], 16)):
        assert one["tried"] == tried == one["refused"] + one["right"] + one["wrong"]
        assert one["refused"] and one["ranges"] == [[0, tried]], one
    assert second["classes"][0]["added"][0]["ranges"] == [[0, 8]]
    assert done.returncode == int(any(one["wrong"] for one in second["classes"]))
    again = soak(*usual, "--kinds", "search traces", "--from", "12")
    assert again.returncode == 2 and "12 to 15 are counted already" in again.stderr and "--from 16" in again.stderr
    assert json.loads(path.read_text())["runs"] == [first, second], "and nothing is written"


@pytest.mark.skipif(shutil.which("cc") is None, reason="the calls that fail are a C program's")
@pytest.mark.parametrize("mode", ["kill", "faults"])
def test_commands_are_hurt(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "r.json"
    done = soak(mode, "--scenarios", "serving", "--count", "6", "--workers", "1", "--output", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(path.read_text())["runs"]
    (figures,) = run["classes"]
    assert figures["tried"] == 6 and figures["wrong"] == 0 and figures["calls"] > 10
    assert figures["refused"] >= 2, "some of them came through to the command"


def test_what_a_process_holds_is_seen_to_grow(tmp_path: Path) -> None:
    def held(number: int, **changes: Any) -> exporting.Held:
        usual = {"memory_mib": 500.0, "files": 9, "threads": 3, "temporary": 0, "same": True, "hidden": 0}
        return exporting.Held(number, **{**usual, **changes})

    whole = [held(number) for number in range(1, 41)]
    assert {one.outcome for one in exporting.judged(whole)} == {RIGHT}
    for changes, word in (({"memory_mib": 520.0}, "memory"), ({"files": 10}, "files"), ({"same": False}, "another")):
        (*_, last) = exporting.judged([*whole, held(41, **changes)])
        assert (last.outcome, last.what) == (WRONG, word)


def test_exports_in_one_process_are_equal(tmp_path: Path) -> None:
    from slimtrain.checkpoints.own_layout import own_content
    from slimtrain.checkpoints.writing import save
    from tests.support.run_helpers import US1, calibrated_network

    save(own_content(calibrated_network(US1), exporting.SIZE, (0.5,) * 3, (0.25,) * 3), tmp_path / "own.pt")
    (tmp_path / "t").mkdir()
    (tmp_path / "e").mkdir()
    held = list(exporting.export_often(2, tmp_path / "own.pt", tmp_path / "e", tmp_path / "t"))
    assert [(one.exports, one.same, one.hidden) for one in held] == [(1, True, 0), (2, True, 0)]


def test_a_case_follows_from_its_seed(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, "text", {"b": None}], "c": {"d": [True]}}
    damaged = [repr(hostile.damaged_value(Random(seed), value, 2)) for seed in range(50)]
    assert damaged == [repr(hostile.damaged_value(Random(seed), value, 2)) for seed in range(50)]
    assert len(set(damaged)) > 40 and repr(value) not in damaged[:1]
    assert value == {"a": [1, 2.5, "text", {"b": None}], "c": {"d": [True]}}, "the whole one is left alone"
    content = bytes(range(256)) * 8
    assert len({hostile.damaged_bytes(Random(seed), content) for seed in range(50)}) > 40


def test_what_an_error_means() -> None:
    def caught(error: BaseException, cause: BaseException | None = None) -> tuple[str, str]:
        try:
            raise error from cause
        except BaseException as raised:
            return of_error(raised)

    assert caught(UserError("no")) == (REFUSED, "")
    assert caught(ResourceError("no"), ValueError("other")) == (REFUSED, "")
    assert caught(UserError("cannot be read"), MemoryError())[0] == WRONG
    assert caught(UserError(" "))[0] == WRONG
    assert caught(WrongResultError("3 is 4")) == (WRONG, "result")
    outcome, what = caught(KeyError("x"))
    assert outcome == WRONG and what.startswith("traceback: KeyError at test_soak.py:")


def test_how_a_hurt_command_is_judged() -> None:
    def ended(code: int, said: str = "slimexport: interrupted.") -> Ended:
        return Ended(code, said, 3, 0.1, False)

    killed, polite = Job((), "", value=9), Job((), "", value=15)
    assert judged_kill(ended(-9), "", killed) == (REFUSED, "")
    assert judged_kill(ended(0), "", polite) == (RIGHT, "")
    assert judged_kill(ended(130), "", polite) == (REFUSED, "")
    assert judged_kill(ended(1), "", polite)[0] == judged_kill(ended(130, "Traceback"), "", polite)[0] == WRONG
    assert judged_kill(ended(0), "no bundle", polite) == (WRONG, "no bundle")
    full, denied = Job((), "", value=28), Job((), "", value=13)
    assert judged_fault(ended(3), "", full) == judged_fault(ended(2), "", denied) == (REFUSED, "")
    assert judged_fault(ended(2), "", full)[0] == judged_fault(ended(3), "", denied)[0] == WRONG
    assert judged_fault(ended(2, ""), "", denied)[0] == WRONG
    lasting, message = Job((), "", value=28, lasting=True), "place/.b.partial-7: holds logs, which could not be moved back"
    assert excused(".b.lock", ended(3), full)
    assert excused(".b.partial-7", ended(3, message), lasting), "the run after it gives it back, or is wrong"
    assert not excused(".b.partial-7", ended(3), lasting) and not excused(".b.partial-7", ended(3, message), full)


def test_a_class_takes_the_place_of_the_one_before() -> None:
    def run(mode: str, *names: str) -> dict[str, Any]:
        return {"mode": mode, "classes": [class_of(name, [Outcome(name, 0, WRONG, "hang")], "") for name in names]}

    content = joined(joined(joined({}, run("fuzz", "a", "b")), run("kill", "a")), run("fuzz", "b"))
    assert [(one["mode"], [c["class"] for c in one["classes"]]) for one in content["runs"]] == [
        ("fuzz", ["a"]),
        ("kill", ["a"]),
        ("fuzz", ["b"]),
    ]
    assert content["runs"][0]["classes"][0]["wrong"] == 1


def test_numbered_cases_add_up_and_none_twice() -> None:
    def one(first: int, end: int, wrong: int = 0, **facts: Any) -> dict[str, Any]:
        outcomes = [Outcome("yaml", n, WRONG if n < first + wrong else REFUSED, "hang") for n in range(first, end)]
        return class_of(
            "file: yaml", outcomes, "", **{"ranges": [[first, end]], "readers": ["a"], "slowest_s": end / 10, **facts}
        )

    sum_ = added(added(one(0, 5, wrong=1), one(8, 10)), one(5, 8, wrong=2))
    assert (sum_["tried"], sum_["refused"], sum_["wrong"], sum_["ranges"], sum_["slowest_s"]) == (10, 7, 3, [[0, 10]], 1.0)
    assert [(group["what"], group["count"], group["first"]) for group in sum_["wrong_kinds"]] == [("hang", 3, 0)]
    assert added(one(0, 2), one(5, 6))["ranges"] == [[0, 2], [5, 6]]
    for first, end in ((0, 3), (9, 12), (4, 5)):
        with pytest.raises(UserError, match="counted already"):
            added(sum_, one(first, end))
    with pytest.raises(UserError, match="--other-readers"):
        added(one(0, 5), one(5, 6, readers=["b"]))
    assert added(one(0, 5), one(5, 6, readers=["b"]), other_readers=True)["readers"] == ["a", "b"]
    before = class_of("file: yaml", [Outcome("yaml", n, RIGHT) for n in range(5)], "")  # as files of before hold it
    assert added(before, one(5, 6), other_readers=True)["readers"] == ["not told", "a"]
    with pytest.raises(UserError, match="seed 1, these of 0"):
        joined(
            {"runs": [{"mode": "fuzz", "seed": 1, "classes": [before]}]}, {"mode": "fuzz", "seed": 0, "classes": [one(5, 6)]}
        )


def test_newer_figures_of_another_file_take_the_place_of_older_ones() -> None:
    def run(mode: str, date: str, *classes: dict[str, Any]) -> dict[str, Any]:
        return {"mode": mode, "date": date, "seed": 0, "command": f"{mode} {date}", "commit": date, "classes": list(classes)}

    def numbered(name: str, first: int, end: int, readers: str) -> dict[str, Any]:
        outcomes = [Outcome(name, number, RIGHT) for number in range(first, end)]
        return class_of(name, outcomes, "", ranges=[[first, end]], readers=[readers])

    def figures(content: dict[str, Any]) -> dict[str, tuple[str, int, int]]:
        return {one["class"]: (run["date"], one["tried"], one["wrong"]) for run in content["runs"] for one in run["classes"]}

    killed = class_of("killed: a", [Outcome("killed: a", 0, REFUSED)] * 3, "")
    here = {"runs": [run("fuzz", "2", numbered("a", 0, 5, "old"), numbered("b", 0, 5, "new")), run("kill", "5", killed)]}
    other = {
        "runs": [
            run("fuzz", "3", numbered("a", 0, 2, "new"), numbered("b", 5, 8, "new")),
            run("fuzz", "1", numbered("b", 0, 9, "older")),
            run("kill", "4", {**killed, "wrong": 3}),
        ]
    }
    content = with_newer(here, other)
    assert figures(content) == {"a": ("3", 2, 0), "b": ("3", 8, 0), "killed: a": ("5", 3, 0)}
    assert [(one["date"], len(one["classes"])) for one in content["runs"]] == [("5", 1), ("3", 2)], "one entry for one run"
    assert with_newer(content, other) == content == with_newer(content, content), "nothing counts twice"
    assert figures(with_newer({}, other)) == {"a": ("3", 2, 0), "b": ("3", 3, 0), "killed: a": ("4", 3, 3)}


def test_files_of_results_are_joined(tmp_path: Path) -> None:
    parts = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, first in zip(parts, ("0", "3"), strict=True):
        soak("fuzz", "--from", first, "--count", "3", "--commands", "0", "--kinds", "search traces", "--output", str(path))
    path = tmp_path / "all.json"
    done = soak("join", *map(str, parts), "--output", str(path))
    (run,) = json.loads(path.read_text())["runs"]
    assert done.returncode == 0 and "search traces" in done.stdout
    assert run["classes"][0]["ranges"] == [[0, 6]] and run["date"] == json.loads(parts[1].read_text())["runs"][0]["date"]
    for words, said in (((str(tmp_path / "none.json"),), "no such file"), ((), "join takes files")):
        done = soak("join", *words, "--output", str(path))
        assert done.returncode == 2 and said in done.stderr


def test_every_kind_says_what_is_right() -> None:
    assert len(KINDS) == 21
    for kind in KINDS.values():
        assert kind.right and callable(kind.judge)
    assert Case(Path("x"), "bytes").checked is False


def test_none_of_it_is_collected_or_installed() -> None:
    inside = [path.name for path in (ROOT / "tests" / "soak").rglob("*.py")]
    assert len(inside) > 10 and not [name for name in inside if name.startswith("test_")]
