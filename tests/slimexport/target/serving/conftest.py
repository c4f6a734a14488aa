"""What tests of serving start from: a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.serving_helpers import bench, toy_bundle

__all__ = ["bench"]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latencies are kept in a folder of the test, and none are there."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Three widths, of files that hold nothing."""
    return toy_bundle(tmp_path / "b")
