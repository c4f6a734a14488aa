"""What tests of the tool share: a bundle that is exported once, and what makes a session take milliseconds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ceilings.probe import SIZES
from benchmarks.cells.backends import CPU
from benchmarks.machine import environment


@pytest.fixture(autouse=True, scope="module")
def young_objects_only() -> Iterator[None]:
    """What was loaded before is not looked through again by every `gc.collect()` of the tool: a second, with torch."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def two_widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of us_mobilenet_v1 at 0.25 and 0.5, in fp32 and for images of 32 px; to read only."""
    from slimexport import export  # loads torchvision, which most tests need not

    folder = tmp_path_factory.mktemp("exports") / "us_mobilenet_v1"
    export("random:us_mobilenet_v1", widths=[0.25, 0.5], image_size=32, output_dir=folder)
    return folder


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session looks at the machine for milliseconds, and measures ceilings on small matrices."""
    monkeypatch.setattr(environment, "LOOK_S", 0.01)
    monkeypatch.setitem(SIZES, CPU, (64, 256))
