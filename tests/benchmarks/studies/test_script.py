"""What the scripts share: how they show themselves, and where their results go."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.listing import scripts
from benchmarks.studies.script import image_size, parse, script_parser, whole_number, write_result
from slimtrain.base.errors import UserError
from tests.support.export_helpers import python

NAMES = [command.rpartition(".")[2] for command in scripts() if command.startswith("python -m benchmarks.studies.")]


def module_of(name: str) -> str:
    """Where a script's `main` is: in its file, or in the `__main__` of its folder."""
    module = f"benchmarks.studies.{name}"
    spec = importlib.util.find_spec(module)
    assert spec is not None
    return f"{module}.__main__" if spec.submodule_search_locations else module


def test_results_are_written_where_somebody_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(None, {"a": 1})
    monkeypatch.setattr(sys, "argv", ["script", "--json", str(tmp_path / "new" / "result.json")])
    path = parse(script_parser("what it does")).json
    write_result(path, {"a": [1, "ü"]})
    assert json.loads(path.read_text()) == {"a": [1, "ü"]} and path.read_text().endswith("}\n")
    with pytest.raises(UserError, match="cannot be written"):
        write_result(path / "below", {})


@pytest.mark.parametrize(
    ("type_", "text", "value"), [(whole_number, "3", 3), (image_size, "320x544", (320, 544)), (image_size, "224", 224)]
)
def test_numbers_and_sizes_are_read(type_: Any, text: str, value: object) -> None:
    assert type_(text) == value


@pytest.mark.parametrize(("option", "text"), [("--rounds", "0"), ("--rounds", "two"), ("--size", "320x"), ("--size", "0")])
def test_what_is_no_number_or_size_is_a_line(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = script_parser("what it does")
    parser.add_argument("--rounds", type=whole_number)
    parser.add_argument("--size", type=image_size)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([option, text])
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and f"argument {option}: " in line and f"'{text}': expected" in line


def test_help_says_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser = script_parser("what it does")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["one", "two"], help="in turn")
    parser.add_argument("--share", default="50%", help="of them")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="no pictures")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.print_help()
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "--repeats REPEATS [default: 3]",
        "--ways WAYS [WAYS ...] in turn [default: one,two]",
        "--share SHARE of them [default: 50%]",
        "--no-plots no pictures --threads THREADS of torch",
    ):
        assert expected in text


def test_without_torch_scripts_show_their_help_and_say_what_to_install(tmp_path: Path) -> None:
    """All of them in one process; what needs no torch goes on to its own refusal."""
    code = """
import contextlib, importlib, io, json
outcomes = {}
modules = json.loads(sys.argv[1])
for name in modules:
    for words in (["--help"], ["nowhere"], ["--ckpt", "none"], []):
        out = io.StringIO()
        sys.argv = [name, *words]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                importlib.import_module(modules[name]).main()
            code = 0
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            code = repr(error)
        outcomes[f"{name} {' '.join(words)}"] = (code, out.getvalue())
print(json.dumps(outcomes))
"""
    names = [name for name in NAMES if name not in ("networks", "search_seeds")]  # which run commands that say so
    done = python(
        code,
        json.dumps({name: module_of(name) for name in names}),
        without=("torch", "torchvision", "onnx", "onnxruntime"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert {key: code for key, (code, _) in outcomes.items() if code not in (0, 2, 3)} == {}
    assert all(outcomes[f"{name} --help"][0] == 0 for name in names)
    for name in ("training", "export_speed", "search_speed"):
        code, text = outcomes[f"{name} "]
        assert code == 3 and text.startswith(f"{name}: the package torch is not installed") and text.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_script_shows_its_own_description(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(module_of(name))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert f"python -m benchmarks.studies.{name}" in capsys.readouterr().out
