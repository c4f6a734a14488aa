"""What `python -m benchmarks --list` shows."""

from __future__ import annotations

import pytest

from benchmarks.cli import main
from benchmarks.listing import scripts


def test_the_list_is_read_off_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    shown = capsys.readouterr().out
    assert all(command in shown and what and what in shown for command, what in scripts().items())
    assert "python -m benchmarks.studies.trust" in scripts() and "python -m benchmarks.cells.cell" not in scripts()
    assert scripts()["python -m benchmarks.studies.consumers"].startswith("What runtimes other than ours read")
