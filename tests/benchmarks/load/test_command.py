"""The command's options, and that it is one of `python -m benchmarks`."""

from __future__ import annotations

import pytest

from benchmarks.cli import main
from benchmarks.listing import scripts
from benchmarks.load.command import command
from tests.support.help_texts import silent_options


def test_it_is_a_command_of_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "python -m benchmarks load exports/us_mobilenet_v1" in shown
    assert "python -m benchmarks load BUNDLE_OR_URL" in scripts()


def test_every_option_says_its_default() -> None:
    assert silent_options(command) == []
