"""A folder that takes another's place, and a system call of that which fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slimexport.target.serving.triton import repository
from slimtrain.base.folders import replacing


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException, swaps: bool) -> None:
    """Call `number` (from 0) of those that rename or exchange raises `error`. Without `swaps` the system exchanges no names,
    so that each takes two renames."""
    rename, exchange, calls = os.rename, replacing.exchange, iter(range(100))

    def failing_rename(source: Path, target: Path) -> None:
        if next(calls) == number:
            raise error
        rename(source, target)

    def failing_exchange(source: Path, target: Path) -> bool:
        if not swaps:
            return False
        if next(calls) == number:
            raise error
        return exchange(source, target)

    monkeypatch.setattr(os, "rename", failing_rename)
    monkeypatch.setattr(repository, "exchange", failing_exchange)
