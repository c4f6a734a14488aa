"""Commands whose standard output or error is closed, full or no longer read end as they would have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slimtrain.base.process.streams import lasting_streams
from tests.support import ROOT

# What a command does: it says something on both streams, with text and a name that is none, writes a file, and fails or not.
COMMAND = """
import contextlib, logging, os
import click
from slimtrain.base.command import Command, messages
from slimtrain.base.errors import UserError

@click.command("tool", cls=Command)
@click.argument("end")
def tool(end):
    with messages("tool"):
        click.echo("result " * 2000)
        print(os.fsdecode(b"name \\xff"))
        logging.warning("noted")
        with open("made.bin", "wb") as file:
            for number in (1, 2):
                with contextlib.suppress(OSError):  # as libraries do
                    os.write(number, b"by number")
            file.write(b"content")
        if end == "fail":
            raise UserError("wrong.")

tool()
"""
STREAMS = {
    "closed": "<&- >&- 2>&-",
    "output closed": ">&-",
    "error closed": "2>&-",
    "full": ">/dev/full 2>&1",
    "output full": ">/dev/full",
    "error full": "2>/dev/full",
    "only read": "1</dev/null 2</dev/null",
    "gone": "2>&1 | true",
}


def run(folder: Path, streams: str, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The command's exit code is the shell's."""
    (folder / "tool.py").write_text(COMMAND, encoding="utf-8")
    line = f'"$0" "$@" {streams}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, "tool.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("streams", STREAMS)
def test_the_exit_code_is_that_of_the_work(streams: str, tmp_path: Path) -> None:
    for words, code in ((["go"], 0), (["fail"], 2), (["--help"], 0), (["--nothing"], 2)):
        done = run(tmp_path, STREAMS[streams], *words)
        shown = done.stdout + done.stderr
        assert done.returncode == code, shown.decode()
        assert b"Traceback" not in shown and b"Exception ignored" not in shown
        if streams.startswith("output") and words == ["fail"]:
            assert b"tool: wrong." in shown
        if words == ["go"]:  # nothing that was printed by number is in the file
            assert (tmp_path / "made.bin").read_bytes() == b"content"
    lost = b"standard output cannot be written (No space left on device)" in run(tmp_path, STREAMS[streams], "go").stderr
    assert lost == (streams == "output full")


@pytest.mark.parametrize("variables", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_name_that_is_no_text_is_printed_as_its_bytes(variables: dict[str, str], tmp_path: Path) -> None:
    done = run(tmp_path, "", "go", **variables)
    assert done.returncode == 0 and done.stdout.startswith(b"result ") and b"\nname \xff\n" in done.stdout


def test_what_else_cannot_be_encoded_is_an_escape(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(
        "import sys\nfrom slimtrain.base.process.streams import lasting_streams\nlasting_streams()\nlasting_streams()\n"
        "print('\\u4e2d \\udcff \\ud800')\nprint('\\u4e2d', file=sys.stderr)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "say.py"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\\u4e2d \xff \\ud800\n", b"\\u4e2d\n")


def test_streams_of_somebody_else_are_left_alone() -> None:
    before = sys.stdout, sys.stderr
    lasting_streams()  # pytest's are not the process's own
    assert (sys.stdout, sys.stderr) == before
