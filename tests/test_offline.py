"""Nothing here asks the network for anything: the quick start's commands, where every connection is refused."""

from __future__ import annotations

from pathlib import Path

from tests.support.export_helpers import python
from tests.support.run_helpers import config_file

REFUSING = """
import socket
def refused(*arguments, **options):
    raise AssertionError(f"asks the network: {arguments!r}")
inner = socket.socket.connect
def connect(self, address):
    return refused(address) if self.family in (socket.AF_INET, socket.AF_INET6) else inner(self, address)
socket.socket.connect = socket.socket.connect_ex = connect
socket.socket.sendto = socket.getaddrinfo = socket.create_connection = refused
import subprocess
commands = (
    ("slimtrain", "slimtrain.cli", ["train", sys.argv[1], "--data-dir", "", "--set", "output_dir=run"]),
    ("slimexport", "slimexport.cli", ["--ckpt", "run/us_mobilenet_v1.pt", "--output-dir", "b", "--no-verify"]),
    ("slimexport", "slimexport.cli", ["--bundle", "b", "--verify-only"]),
    ("slimexport", "slimexport.cli", ["--env"]),
    ("benchmarks", "benchmarks.cli", ["--list"]),
)
import importlib
for name, module, words in commands:
    sys.argv = [name, *words]
    try:
        importlib.import_module(module).main()
    except SystemExit as error:
        print("code", error.code)
"""


def test_the_quick_start_opens_no_connection(tmp_path: Path) -> None:
    config_file(tmp_path / "tiny.yml", epochs=1)
    done = python(REFUSING, tmp_path / "tiny.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # verified by two images that such a network hardly tells apart: whether that proves anything is no question here
    assert [line for line in done.stdout.splitlines() if line.startswith("code ")][:2] == ["code 0"] * 2, (
        done.stdout + done.stderr
    )
    assert "asks the network" not in done.stdout + done.stderr
