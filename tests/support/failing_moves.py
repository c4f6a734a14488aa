"""A folder's replacement that breaks off: at a rename, or at an exchange of two folders."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import ModuleType

import pytest

from slimtrain.base.folders import replacing


def fail_at(monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: int, error: BaseException, swaps: bool = True) -> None:
    """`error` comes instead of the call of number `call`, from 0, of those of `os.rename` and of `module`'s `exchange`
    together; the others do what they do. Without `swaps` the file system exchanges nothing, which is no call."""
    rename, exchange, calls = os.rename, replacing.exchange, itertools.count()

    def failing_rename(source: Path, target: Path) -> None:
        if next(calls) == call:
            raise error
        rename(source, target)

    def failing_exchange(source: Path, target: Path) -> bool:
        if not swaps:
            return False
        if next(calls) == call:
            raise error
        return exchange(source, target)

    monkeypatch.setattr(os, "rename", failing_rename)
    monkeypatch.setattr(module, "exchange", failing_exchange)
