"""Weights read from a file as the package reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.weights import find_weights


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Bare key -> CPU tensor, in file order; prefixes and wrappings are taken off. Raises CheckpointError."""
    return dict(find_weights(read_content(path), Path(path).name).state)


def rewrite(path: Path, pickled: bytes) -> None:
    """Put another pickle into a torch.save file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
