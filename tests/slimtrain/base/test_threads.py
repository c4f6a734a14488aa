"""How torch's threads wait is told to them whichever way the package is used, and said where it is too late."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
# `python -m slimtrain --version`, then the environment that torch would read in that process.
COMMAND = (
    "import runpy, sys; sys.argv = ['slimtrain', '--version']\n"
    "try:\n    runpy.run_module('slimtrain', run_name='__main__')\nexcept SystemExit:\n    pass\n"
)
# What stands for torch: importing the real one takes seconds and changes nothing of this.
TORCH = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"


def shown(code: str, **settings: str) -> list[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    "code", ["import slimtrain\n", "import slimexport\n", "from slimtrain.config.config import Config\n", COMMAND]
)
def test_the_environment_is_the_same_whichever_way_it_is_used(code: str) -> None:
    assert shown(code + SHOW)[-1] == "5000 None"


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_what_the_user_chose_stays(chosen: dict[str, str]) -> None:
    expected = f"{chosen.get('GOMP_SPINCOUNT')} {chosen.get('OMP_WAIT_POLICY')}"
    assert shown("import slimtrain\n" + SHOW, **chosen) == [expected]


def test_it_is_said_where_torch_came_first() -> None:
    ask = "from slimtrain.base.threads import advice; print(advice())\n"
    assert shown(ask) == [""]
    (late,) = shown(TORCH + ask)
    assert "Import slimtrain first, or set GOMP_SPINCOUNT=5000" in late
    assert shown(TORCH + ask, GOMP_SPINCOUNT="5000") == [""]  # the advice, followed
