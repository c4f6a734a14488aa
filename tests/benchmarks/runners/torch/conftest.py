"""A bundle and its checkpoint, exported once; no slimmable network is left open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import slimexport
from benchmarks.runners.torch import slimmable as torch_slimmable
from slimtrain.checkpoints.checkpoint import open_checkpoint
from tests.support.bench_torch_bundle import RANDOM, WIDTHS, Exported
from tests.support.bench_torch_helpers import SIZE


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("torch_runners")
    checkpoint = folder / "us.pt"
    state = open_checkpoint(RANDOM).network.state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, checkpoint)
    arguments: Any = {"widths": WIDTHS, "image_size": SIZE, "precisions": ("fp32", "fp16")}
    slimexport.export(checkpoint, output_dir=folder / "bundle", **arguments)
    shutil.copytree(folder / "bundle", folder / "untrained")
    manifest = json.loads((folder / "untrained" / "manifest.json").read_text())
    manifest["source"].update(file=RANDOM, sha256=None)
    (folder / "untrained" / "manifest.json").write_text(json.dumps(manifest))
    return Exported(folder / "bundle", checkpoint, folder / "untrained")


@pytest.fixture(autouse=True, scope="module")
def nothing_opened() -> Iterator[None]:
    """No slimmable network is left for other tests."""
    yield
    torch_slimmable._Opened.key = torch_slimmable._Opened.network = None
