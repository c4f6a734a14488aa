"""What the modes found, joined in one file: `benchmarks/results/robustness.json`.

    {"schema_version": 1, "runs": [RUN, ...]}
    RUN: {"mode", "command", "date", "seconds", "seed", "commit", "environment", "classes": [CLASS, ...]}
    CLASS: {"class", "tried", "refused", "right", "wrong", "right_means", "wrong_kinds", and what a mode adds}

`wrong_kinds` are {"what", "count", "first", "example"}. Classes of numbered cases have their `ranges`, [[first, end], ...]
with `end` behind the last, and the `readers` that they were tried on, a hash of the packages' sources. Such a class adds up
over runs of other numbers; numbers that a class has are refused, and so is what other readers were tried on, unless that is
asked for: then the class names all of them. Other classes take the place of the one before.

A file's runs can be taken over into another (`with_newer`): a clone that is tried for hours writes one of its own.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment, portable
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.base.text import table
from tests.soak.outcomes import ROOT, Outcome, counted, wrong_groups

SCHEMA_VERSION = 1
FIGURES = ("tried", "refused", "right", "wrong")


def class_of(name: str, outcomes: Sequence[Outcome], right: str, **facts: Any) -> dict[str, Any]:
    """The figures of a class."""
    return {"class": name, **counted(outcomes), "right_means": right, **facts, "wrong_kinds": wrong_groups(outcomes)}


def run_of(mode: str, words: Sequence[str], seconds: float, seed: int, classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A run of a mode, with where and when."""
    return {
        "mode": mode,
        "command": shlex.join(["python", "-m", "tests.soak", *map(portable, words)]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(seconds, 1),
        "seed": seed,
        "commit": commit(),
        "environment": environment(),
        "classes": list(classes),
    }


def commit() -> str | None:
    """The commit that is checked out; `-changed` behind it where files differ from it. None where git is not there."""
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("-changed" if changes else "")


def readers() -> str:
    """A hash of the sources that are tried: results of others say nothing of these."""
    digest = hashlib.sha256()
    for package in ("slimtrain", "slimexport", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "studies" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def ranges_of(one: Mapping[str, Any]) -> list[list[int]]:
    """The numbers that a class was tried on. Classes of before there were ranges began with the first."""
    return [list(numbers) for numbers in one.get("ranges", [[0, one["tried"]]])]


def added(old: Mapping[str, Any], new: Mapping[str, Any], other_readers: bool = False) -> dict[str, Any]:
    """Two runs of a class as one. UserError where a number would count twice, or other readers were tried and that is not
    asked for."""
    name, ranges = new["class"], sorted([*ranges_of(old), *ranges_of(new)])
    for before, after in itertools.pairwise(ranges):
        if after[0] < before[1]:
            twice = f"{after[0]} to {min(before[1], after[1]) - 1}"
            raise UserError(f"{name}: {twice} are counted already. Go on with --from {ranges_of(old)[-1][1]}.")
    known = list(dict.fromkeys([*_readers(old), *_readers(new)]))
    if len(known) > 1 and not other_readers:
        raise UserError(
            f"{name}: {old['tried']} were tried on other versions of the readers. Begin another file, or add to it with "
            "--other-readers, which it then says."
        )
    kinds = {group["what"]: dict(group) for group in old["wrong_kinds"]}
    for group in new["wrong_kinds"]:
        if group["what"] in kinds:
            kinds[group["what"]]["count"] += group["count"]
        else:
            kinds[group["what"]] = dict(group)
    merged = list[list[int]]()
    for first, end in ranges:
        if merged and merged[-1][1] == first:
            merged[-1][1] = end
        else:
            merged.append([first, end])
    slowest = [one["slowest_s"] for one in (old, new) if "slowest_s" in one]
    return {
        **new,
        **{figure: old[figure] + new[figure] for figure in FIGURES},
        **({"slowest_s": max(slowest)} if slowest else {}),
        "ranges": merged,
        "readers": known,
        "wrong_kinds": sorted(kinds.values(), key=lambda group: -group["count"]),
    }


def _readers(one: Mapping[str, Any]) -> list[str]:
    return list(one.get("readers", ["not told"]))


def joined(content: Mapping[str, Any], run: Mapping[str, Any], other_readers: bool = False) -> dict[str, Any]:
    """The content of a file of results with another run: classes with `ranges` are added to those of the same name, mode and
    seed, others take their place. What a class was added up from stays beside it, as `runs` of commands and commits."""
    runs: list[dict[str, Any]] = []
    mine = {one["class"]: dict(one) for one in run["classes"]}
    for old in content.get("runs", []):
        kept = []
        for one in old["classes"]:
            name = one["class"]
            if old["mode"] != run["mode"] or name not in mine:
                kept.append(one)
            elif "ranges" in mine[name]:
                if old["seed"] != run["seed"]:
                    raise UserError(f"{name}: the file's cases are of seed {old['seed']}, these of {run['seed']}.")
                earlier = one.get("added", [])
                said = {"command": old["command"], "commit": old["commit"], "ranges": ranges_of(one)}
                mine[name] = {**added(one, mine[name], other_readers), "added": [*earlier, said]}
        if kept:
            runs.append({**old, "classes": kept})
    return {"schema_version": SCHEMA_VERSION, "runs": [*runs, {**run, "classes": list(mine.values())}]}


def with_newer(content: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of results with another's classes, where they are newer: numbers that the same readers were not
    tried on yet are added, else the newer one takes the place. Dates, commits and environments stay those of the runs."""
    for run in other.get("runs", []):
        for one in run["classes"]:
            kept = [
                (old_run, old)
                for old_run in content.get("runs", [])
                for old in old_run["classes"]
                if (old_run["mode"], old["class"]) == (run["mode"], one["class"])
            ]
            add = "ranges" in one and all(_addable(old_run, old, run, one) for old_run, old in kept)
            if not add and any(run["date"] <= old_run["date"] for old_run, _ in kept):
                continue
            if not add:
                content = _without(content, run["mode"], one["class"])
            content = joined(content, {**run, "classes": [one]})
    return _one_entry_per_run(content)


def _addable(old_run: Mapping[str, Any], old: Mapping[str, Any], run: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    ranges = sorted([*ranges_of(old), *ranges_of(one)])
    apart = all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    return apart and _readers(old) == _readers(one) and old_run["seed"] == run["seed"]


def _without(content: Mapping[str, Any], mode: str, name: str) -> dict[str, Any]:
    runs = []
    for run in content.get("runs", []):
        kept = [one for one in run["classes"] if (run["mode"], one["class"]) != (mode, name)]
        if kept:
            runs.append({**run, "classes": kept})
    return {**content, "runs": runs}


def _one_entry_per_run(content: Mapping[str, Any]) -> dict[str, Any]:
    """Classes that came of one run, and were taken over one by one, together again."""
    runs: list[dict[str, Any]] = []
    for run in content.get("runs", []):
        same = [old for old in runs if all(old[key] == run[key] for key in run if key != "classes")]
        if same:
            same[0]["classes"] = [*same[0]["classes"], *run["classes"]]
        else:
            runs.append(dict(run))
    return {**content, "schema_version": SCHEMA_VERSION, "runs": runs}


def read(path: Path) -> dict[str, Any]:
    """What a file of results holds; nothing where there is none."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def write(path: Path, content: Mapping[str, Any], run: Mapping[str, Any], other_readers: bool = False) -> None:
    """Have a run in the file at `path`, beside the `content` that was there before it began."""
    write_atomically(path, text_of(joined(content, run, other_readers)))


def text_of(content: Mapping[str, Any]) -> bytes:
    """A file of results as it is written."""
    return (json.dumps(content, indent=1) + "\n").encode()


def shown(classes: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a table, and below it what is wrong."""
    lines = [[str(one["class"]), *(str(one[name]) for name in FIGURES)] for one in classes]
    parts = [table(["class", *FIGURES], lines)]
    for one in classes:
        parts += [f"{one['class']}: {group['count']} x {group['example']}" for group in one["wrong_kinds"]]
    return "\n".join(parts)
