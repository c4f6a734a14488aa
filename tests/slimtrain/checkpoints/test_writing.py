"""Writing checkpoints: files are no larger than what they hold, and hold it as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from tests.support.run_helpers import US1, calibrated_network, network_of, raw


def test_views_do_not_drag_their_storage_into_the_file(tmp_path: Path) -> None:
    network = calibrated_network(US1)
    large = torch.zeros(3_000_000)
    for path, pair in network.calibrated[US1.plans[0]].items():
        views = [large[: len(t)].copy_(t) if i else large[7 : 7 + len(t)].copy_(t) for i, t in enumerate(pair)]
        network.calibrated[US1.plans[0]][path] = (views[0], views[1])
    content = own_content(
        network, 16, (0.5,) * 3, (0.5,) * 3, training={"nested": [{"view": large[:3], "pair": [large[9:10]]}]}
    )
    save(content, tmp_path / "a.pt")
    held = list(network.state_dict().values())
    held += [t for statistics in network.calibrated.values() for pair in statistics.values() for t in pair]
    size = sum(t.numel() * t.element_size() for t in held)
    assert size < (tmp_path / "a.pt").stat().st_size < size + 500 * len(held)
    assert torch.equal(raw(tmp_path / "a.pt")["training"]["nested"][0]["view"], large[:3])


def test_channels_last_weights_are_kept_as_they_are(tmp_path: Path) -> None:
    network = network_of(US1).to(memory_format=torch.channels_last)
    save(own_content(network, 16, (0.5,) * 3, (0.5,) * 3), tmp_path / "a.pt")
    plain = network_of(US1).state_dict()
    for key, value in open_checkpoint(tmp_path / "a.pt").network.state_dict().items():
        assert torch.equal(value, plain[key])
