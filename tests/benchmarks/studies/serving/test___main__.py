"""The command's parts, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.studies.serving import __main__ as command
from tests.support import ROOT


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["serving", *words])
    try:
        command.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_simulation_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    assert (
        run(monkeypatch, "simulation", "--seconds", "0.5", "--results", str(ROOT / command.RESULTS), "--json", str(path)) == 0
    )
    written = json.loads(path.read_text())
    assert len(written["traces"]) == 4 and "drain" in written["answers"] and "drain: at least" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("soak", "--minutes", "0"), "--minutes 0: expected a number above 0"),
        (("figures", "--slo-ms", "nan"), "--slo-ms nan"),
        (("simulation", "--results", "none"), "none: not there"),
        (("everything",), "invalid choice"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
