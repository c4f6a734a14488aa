"""Readers under atheris, a fuzzer that is guided by the lines that a file reaches (`pip install atheris`; Python 3.8 to 3.13).

A kind's reader gets whatever bytes atheris makes of the whole file. It stops at the first error that is none of ours, hang or
leak, and leaves the bytes. `python -m tests.soak.guided KIND ORIGINALS FOLDER SECONDS` is the process that it runs in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.soak.outcomes import REFUSED, RIGHT, ROOT, WRONG, Outcome

GUIDED = (
    "results.jsonl",
    "yaml",
    "manifest.json",
    "reference.npz",
    "latency tables",
    "plan files",
    "checkpoint zip",
    "checkpoint legacy",
)
MISSING = "atheris is not installed: pip install atheris"
FIGURES, UNCAUGHT = "figures.json", "Uncaught Python exception: ==="
EVERY = 50  # inputs between two writings of the figures


def missing() -> str:
    """Why it cannot be done here; nothing where it can."""
    return "" if importlib.util.find_spec("atheris") else MISSING


def guided(name: str, originals: Path, seconds: int, keep: Path | None, scratch: Path) -> tuple[dict[str, int], list[Outcome]]:
    """The figures of a kind after so many seconds, and what was wrong."""
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = Path(place)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "tests.soak.guided", name, str(originals), place, str(seconds)]
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, errors="replace", check=False)
        path = folder / FIGURES
        figures = json.loads(path.read_text()) if path.exists() else {}
        crashes = sorted(file for pattern in ("crash-*", "timeout-*", "oom-*") for file in folder.glob(pattern))
        if done.returncode and not crashes:
            raise RuntimeError(f"atheris ended with {done.returncode}: {done.stderr[-2000:]}")
        outcomes = []
        for number, file in enumerate(crashes):
            said = (done.stdout + done.stderr).partition(UNCAUGHT)[2].strip().splitlines()
            what = f"{file.name.partition('-')[0]}: {said[0] if said else 'no exception'}"[:200]
            outcomes.append(Outcome(f"guided {name}", number, WRONG, what, "\n".join(said[:20])[:2000], file.name))
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, keep / f"guided_{name.replace(' ', '_')}_{file.name}")
        return figures, outcomes


def _serve(name: str, originals: Path, folder: Path, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["slimtrain", "slimexport", "benchmarks"]):
        from slimtrain.base.errors import UserError
        from tests.soak.kinds.bundles import BundleKind
        from tests.soak.kinds.kind import Case
        from tests.soak.kinds.registry import KINDS

        kind: Any = KINDS[name]
        kind.open(originals)
        place = folder / "case"
        place.mkdir()
        if isinstance(kind, BundleKind):
            shutil.copytree(kind.bundle, place / "b")
            file, given = place / "b" / kind.file, place / "b"
        else:
            file = given = place / Path(kind.file).name
        original = (originals / (kind.folder if isinstance(kind, BundleKind) else "") / kind.file).read_bytes()
        file.write_bytes(original)
        kind.judge(Case(given, "whole"))  # what is loaded late is loaded now, and instrumented
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "whole").write_bytes(original)
    figures = {"tried": 0, REFUSED: 0, RIGHT: 0}

    def one_input(content: bytes) -> None:
        file.write_bytes(content)
        outcome = RIGHT
        try:
            kind.judge(Case(given, "guided"))
        except UserError:
            outcome = REFUSED
        finally:
            figures["tried"] += 1
            figures[outcome] += 1
            if figures["tried"] % EVERY == 1:
                (folder / FIGURES).write_text(json.dumps(figures))

    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=4096", f"-max_len={2 * len(original)}", "-seed=1"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
