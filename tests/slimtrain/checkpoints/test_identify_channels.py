"""How many channels a published checkpoint's images have is read off its first convolutions; the network then runs on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.normalization import imagenet_normalization
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support.run_helpers import S2, network_of
from tests.support.slimtrain_states import PUBLISHED, State, empty_state, identified, random_state
from tests.support.slimtrain_states import network_of as network_holding

STEMS = {"shufflenet": [f"head_{i}.0.weight" for i in range(3)]}
SHUFFLE = NetworkSpec("shufflenet", "s", (0.5, 1.0), 10)
V1 = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))


def stems(spec: NetworkSpec) -> list[str]:
    return STEMS.get(spec.architecture, ["features.0.0.weight"])


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_convolutions_tell_the_channels(name: str, channels: int) -> None:
    spec = replace(published_spec(name), in_channels=channels)
    state = empty_state(spec)
    assert {state[key].shape[1] for key in stems(spec)} == {channels}
    assert identified(state) == spec


@pytest.mark.parametrize("spec", [V1, SHUFFLE], ids=lambda spec: spec.name)
def test_a_gray_network_computes_what_the_color_one_does_of_three_equal_channels(spec: NetworkSpec, tmp_path: Path) -> None:
    state = {key: t if t.dtype == torch.int64 else t.float() for key, t in random_state(spec).items()}
    gray = {**state, **{key: state[key].sum(1, keepdim=True) for key in stems(spec)}}
    torch.save(gray, tmp_path / "gray.pt")
    opened = open_checkpoint(tmp_path / "gray.pt")
    assert opened.spec == replace(spec, in_channels=1)
    assert (opened.mean, opened.std) == imagenet_normalization(1) and not opened.described
    images, color = torch.randn(2, 1, 64, 48), network_holding(spec, state)
    with torch.no_grad(), opened.network.at(spec.plans[0]), color.at(spec.plans[0]):
        torch.testing.assert_close(opened.network(images), color(images.expand(2, 3, 64, 48)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_published_layout_tells_them_and_how_images_are_normalized(channels: int, tmp_path: Path) -> None:
    spec = replace(S2, in_channels=channels)
    network = network_of(spec)
    image = {"image_size": [48, 32], "mean": [0.25] * channels, "std": [0.5] * channels}
    save(published_content(network, {"input": image}), tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert (opened.spec, opened.image_size, opened.described) == (replace(spec, switches=opened.spec.switches), (48, 32), True)
    assert (opened.mean, opened.std) == ((0.25,) * channels, (0.5,) * channels)
    save(published_content(network, {"input": {**image, "mean": [0.25] * 3}}), tmp_path / "b.pt")  # of another network
    assert open_checkpoint(tmp_path / "b.pt").mean == imagenet_normalization(channels)[0]


def test_more_channels_than_images_have_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"is a mobilenet_v1 for images of 17 channels, expected 1 to 16\."):
        identified(empty_state(replace(V1, in_channels=17)))


def test_stems_that_disagree_are_damage() -> None:
    state: State = {**empty_state(SHUFFLE), "head_1.0.weight": torch.empty(8, 1, 3, 3, device="meta")}
    with pytest.raises(CheckpointError, match=r"head_1\.0\.weight is \[8, 1, 3, 3\], expected \[\d+, 3, 3, 3\]"):
        identified(state)
