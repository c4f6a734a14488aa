"""A command whose locale is not UTF-8 begins anew in Python's UTF-8 mode; a program that calls one does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

C = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAME = "ü中.yml"


def run(*words: bytes | str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **C, **variables}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False)


def test_a_command_in_c_names_files_in_utf8(tmp_path: Path) -> None:
    done = run("-m", "slimtrain", "profile", f"{tmp_path}/{NAME}")
    assert done.returncode == 2 and f"{tmp_path}/{NAME}" in done.stderr.decode()


@pytest.mark.parametrize("name", ["slimbench", "tool.py"])
def test_only_our_scripts_begin_anew(name: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_text(
        "import sys\nprint('begun', file=sys.stderr, flush=True)\nfrom benchmarks.cli import main\n"
        "try:\n    main()\nfinally:\n    print(sys.getfilesystemencoding(), file=sys.stderr)\n",
        encoding="utf-8",
    )
    done = run(str(script), "--version")
    lines = done.stderr.decode().split()
    assert done.returncode == 0 and done.stdout.startswith(b"benchmarks ")
    assert lines == (["begun", "begun", "utf-8"] if name == "slimbench" else ["begun", "ascii"])


def test_modes_that_were_asked_for_are_not_asked_twice() -> None:
    done = run("-X", "utf8=0", "-m", "benchmarks", "--version")
    assert done.returncode == 0 and done.stdout.startswith(b"benchmarks ")
