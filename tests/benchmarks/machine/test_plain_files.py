"""Values out of files and commands, whatever a machine lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.machine.plain_files import command, field, number, text, to_number
from tests.support.fake_machine import lay


def test_what_is_not_a_number_is_none(tmp_path: Path) -> None:
    assert [to_number(words) for words in (None, "", "x", "nan", "inf", "-inf", " 2.5\n")] == [None] * 6 + [2.5]
    assert (number(tmp_path), number(tmp_path / "none"), text(tmp_path), text(tmp_path / "none")) == (None,) * 4


def test_a_field_is_found_by_its_whole_name(tmp_path: Path) -> None:
    lay(tmp_path, {"f": "model name\t: Xeon : X\nmodel\t: 167\nmodel name : second\nempty :\nnothing"})
    assert [field(tmp_path / "f", name) for name in ("model name", "model", "empty", "nothing")] == [
        "Xeon : X",
        "167",
        None,
        None,
    ]


def test_commands_that_hang_or_fail_to_start_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2) is None
    assert command([sys.executable, "-c", "print('ü'); raise SystemExit(3)"]) == (3, "ü\n")
    assert command(["no-such-program"]) is None
    bad = tmp_path / "bad"
    bad.write_text("nothing that runs")
    bad.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(["bad"]) is None
