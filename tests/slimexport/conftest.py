"""What tests of the command's refusals start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.export_helpers import write_checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("good") / "small.pt")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that has to be as empty after a failure as it was before."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
