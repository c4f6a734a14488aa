"""`pretrained` of images with other channels: what the first convolution begins with, said on one line, or a refusal."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.adopt import CONVERSIONS, adopt, for_channels
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.models.spec import NetworkSpec
from tests.support.run_helpers import US2, network_of

SHUFFLE = NetworkSpec("shufflenet", "s", (0.5, 1.0), 10)


@pytest.mark.parametrize("spec", [US2, SHUFFLE], ids=lambda spec: spec.name)
@pytest.mark.parametrize(("theirs", "ours"), list(CONVERSIONS))
def test_the_network_begins_as_the_other_one_was(
    spec: NetworkSpec, theirs: int, ours: int, caplog: pytest.LogCaptureFixture
) -> None:
    source, network = (network_of(replace(spec, in_channels=n), seed) for seed, n in enumerate((theirs, ours)))
    with caplog.at_level(logging.INFO):
        adopt(network, Checkpoint("theirs.pt", "0" * 64, source))
    assert [record.getMessage() for record in caplog.records] == [f"theirs.pt: {CONVERSIONS[theirs, ours]}"]
    one = torch.randn(2, 1, 64, 64)
    color = torch.randn(2, 3, 64, 64)
    seen = {(3, 1): (one.expand(2, 3, 64, 64), one), (1, 3): (one, one.expand(2, 3, 64, 64))}
    before, now = seen.get((theirs, ours), (color, torch.cat([color, one], 1)))
    for plan in spec.plans:
        with torch.no_grad(), source.at(plan), network.at(plan):
            torch.testing.assert_close(network(now), source(before), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("theirs", "ours"), [(4, 3), (4, 1), (1, 4), (2, 1)])
def test_other_channels_are_refused_with_the_way_on(theirs: int, ours: int) -> None:
    source, network = (network_of(replace(US2, in_channels=n)) for n in (theirs, ours))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    advice = rf"theirs\.pt: is for images of {theirs} channels?, the configuration for {ours}\. Set in_channels={theirs}, or"
    with pytest.raises(CheckpointError, match=advice):
        adopt(network, Checkpoint("theirs.pt", "0" * 64, source))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_kernels_are_summed_shared_or_left_without_a_fourth() -> None:
    weight = torch.arange(2 * 3 * 1 * 1, dtype=torch.float32).reshape(2, 3, 1, 1)
    assert for_channels(weight, 1).flatten().tolist() == [0 + 1 + 2, 3 + 4 + 5]
    assert for_channels(weight[:, :1], 3).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert for_channels(weight, 4).flatten().tolist() == [0, 1, 2, 0, 3, 4, 5, 0]
