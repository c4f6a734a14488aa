"""A small network at one width in fp32 and fp16, exported once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slimexport import export
from tests.support.bench_exports import IMAGE_SIZE


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network at one width in fp32 and fp16."""
    folder = tmp_path_factory.mktemp("exports") / "us_mobilenet_v1"
    export("random:us_mobilenet_v1", widths=[0.25], image_size=IMAGE_SIZE, precisions=["fp32", "fp16"], output_dir=folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "us_mobilenet_v1"))
