"""What the modes found, joined in one file: `benchmarks/results/robustness.json`.

    {"schema_version": 1, "runs": [RUN, ...]}
    RUN: {"mode", "command", "date", "seconds", "seed", "commit", "environment", "classes": [CLASS, ...]}
    CLASS: {"class", "tried", "refused", "right", "wrong", "right_means", "wrong_kinds", and what a mode adds}

`wrong_kinds` are {"what", "count", "first", "example"}. A class that is tried again takes the place of the one before.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
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
        "command": " ".join(["python -m tests.soak", *words]),
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


def joined(content: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of results with another run: its classes take the place of those of the same name and mode."""
    runs = []
    mine = {one["class"] for one in run["classes"]}
    for old in content.get("runs", []):
        kept = [one for one in old["classes"] if old["mode"] != run["mode"] or one["class"] not in mine]
        if kept:
            runs.append({**old, "classes": kept})
    return {"schema_version": SCHEMA_VERSION, "runs": [*runs, dict(run)]}


def write(path: Path, run: Mapping[str, Any]) -> None:
    """Have a run in the file at `path`, beside those that are there."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomically(path, (json.dumps(joined(content, run), indent=1) + "\n").encode())


def shown(classes: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a table, and below it what is wrong."""
    lines = [[str(one["class"]), *(str(one[name]) for name in FIGURES)] for one in classes]
    parts = [table(["class", *FIGURES], lines)]
    for one in classes:
        parts += [f"{one['class']}: {group['count']} x {group['example']}" for group in one["wrong_kinds"]]
    return "\n".join(parts)
