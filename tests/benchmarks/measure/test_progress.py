"""Progress on standard error."""

from __future__ import annotations

import pytest

from benchmarks.measure.progress import RoundProgress


def test_progress_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with RoundProgress() as progress:
        for done in range(101):
            progress("a cell", done, 100)
    assert capsys.readouterr().err.splitlines() == [f"{done} of 100 rounds, a cell" for done in range(10, 101, 10)]
