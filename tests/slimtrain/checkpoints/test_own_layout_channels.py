"""Our own files tell the channels of their network's images, and sizes that are no squares; what older versions read stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from tests.support.run_helpers import SPECS, US1, network_of, same_state


@pytest.mark.parametrize("channels", [1, 4, 16])
@pytest.mark.parametrize("name", list(SPECS))
def test_what_was_saved_comes_back(name: str, channels: int, tmp_path: Path) -> None:
    network = network_of(replace(SPECS[name], in_channels=channels))
    save(own_content(network, (48, 32), [0.1] * channels, [0.2] * channels), tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert opened.spec == network.spec and opened.spec.in_channels == channels
    assert (opened.image_size, opened.mean, opened.std) == ((48, 32), (0.1,) * channels, (0.2,) * channels)
    same_state(network.state_dict(), opened.network.state_dict())


def test_files_of_square_color_images_are_what_they_were() -> None:
    """Earlier versions refuse keys that they do not know, and sizes that are no numbers."""
    content = own_content(network_of(US1), 32, [0.1] * 3, [0.2] * 3)
    known = {
        key: [*value] if isinstance(value, tuple) else value for key, value in asdict(US1).items() if key != "in_channels"
    }
    assert content["network"] == known and content["input"]["image_size"] == 32
    assert own_content(network_of(US1), (32, 24), [0.1] * 3, [0.2] * 3)["input"]["image_size"] == [32, 24]


def put(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].update({key: value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("network", "in_channels", 0), "images of 0 channels"),
        (put("network", "in_channels", 17), "images of 17 channels"),
        (put("network", "in_channels", "1"), "images of 1 channels"),
        (put("network", "in_channels", True), "images of True channels"),
        (put("network", "in_channels", 3), "does not fit it"),
        (put("input", "mean", [0.1] * 3), "does not say which images it takes"),
        (put("input", "image_size", [48, 32, 1]), "does not say which images it takes"),
        (put("input", "image_size", [48, 0]), "does not say which images it takes"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path) -> None:
    content = own_content(network_of(replace(US1, in_channels=1)), (48, 32), [0.1], [0.2])
    change(content)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"a\.pt: .*{reason}"):
        open_checkpoint(tmp_path / "a.pt")
