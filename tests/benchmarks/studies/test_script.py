"""What the scripts share: how they show themselves, and where their results go."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks.listing import scripts
from benchmarks.studies.script import parse, script_parser, write_result
from slimtrain.base.errors import UserError

NAMES = [command.rpartition(".")[2] for command in scripts() if command.startswith("python -m benchmarks.studies.")]


def test_results_are_written_where_somebody_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(None, {"a": 1})
    monkeypatch.setattr(sys, "argv", ["script", "--json", str(tmp_path / "new" / "result.json")])
    path = parse(script_parser("what it does")).json
    write_result(path, {"a": [1, "ü"]})
    assert json.loads(path.read_text()) == {"a": [1, "ü"]} and path.read_text().endswith("}\n")
    with pytest.raises(UserError, match="cannot be written"):
        write_result(path / "below", {})


def test_help_says_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser = script_parser("what it does")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["one", "two"], help="in turn")
    parser.add_argument("--share", default="50%", help="of them")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="no pictures")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.print_help()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for expected in (
        "--repeats REPEATS [default: 3]",
        "--ways WAYS [WAYS ...] in turn [default: one,two]",
        "--share SHARE of them [default: 50%]",
        "--no-plots no pictures",
        "--threads THREADS of torch",
    ):
        assert expected in lines


@pytest.mark.parametrize("name", NAMES)
def test_every_script_shows_its_own_description(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.studies.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert f"python -m benchmarks.studies.{name}" in capsys.readouterr().out
