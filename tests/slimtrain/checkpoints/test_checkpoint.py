"""Opening a checkpoint: what it says of its file, and what options may change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import State, random_state, saved

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


def test_a_checkpoint_tells_its_file_and_holds_its_weights(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path, state)
    for source in (path, str(path)):
        checkpoint = open_checkpoint(source)
        assert (checkpoint.file, checkpoint.spec, checkpoint.untrained) == ("us_mbv1.pt", SPEC, False)
        assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (checkpoint.image_size, checkpoint.mean, checkpoint.std) == (224, IMAGENET_MEAN, IMAGENET_STD)
        assert not checkpoint.network.training
        held = checkpoint.network.state_dict()
        assert list(held) == list(state)
        assert all(torch.equal(held[key], value) for key, value in state.items())


def test_an_untrained_network_is_marked_as_such() -> None:
    checkpoint = open_checkpoint("random:s_mobilenet_v1")
    assert (checkpoint.file, checkpoint.sha256, checkpoint.untrained) == ("random:s_mobilenet_v1", None, True)
    with pytest.raises(UserError, match="did you mean 's_mobilenet_v1'"):
        open_checkpoint("random:s_mobilenetv1")
    with pytest.raises(UserError, match="The networks are"):
        open_checkpoint("random:")


def test_a_configuration_brings_image_size_and_normalization(state: State, tmp_path: Path) -> None:
    config = tmp_path / "us.yml"
    config.write_text("model: models.us_mobilenet_v1\nimage_size: 160\ndata_transforms: imagenet1k_inception\n")
    checkpoint = open_checkpoint(saved(tmp_path, state), config=config)
    assert (checkpoint.image_size, checkpoint.mean, checkpoint.std) == (160, (0.5,) * 3, (0.5,) * 3)
    assert checkpoint.spec == SPEC


def test_options_that_contradict_the_file_are_refused(state: State, tmp_path: Path) -> None:
    path, config = saved(tmp_path, state), tmp_path / "s.yml"
    config.write_text("model: models.s_mobilenet_v1\nwidth_mult_list: [0.25, 0.5]\n")
    for options in ({"config": config}, {"network": "s_mobilenet_v1"}, {"switches": (0.3, 0.5)}, {"switches": (0.25,)}):
        with pytest.raises(UserError, match=r"us_mbv1\.pt"):
            open_checkpoint(path, **options)
    with pytest.raises(UserError, match=r"nowhere\.yml: no such file"):
        open_checkpoint(path, config=tmp_path / "nowhere.yml")
    assert open_checkpoint(path, config=config, network="us_mobilenet_v1").spec.family == "us"  # the option wins


def test_opening_reads_the_file_once_it_is_complete_and_leaves_it_alone(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path, state)
    before = path.read_bytes()
    checkpoint = open_checkpoint(path)
    with torch.no_grad():
        for parameter in checkpoint.network.parameters():
            parameter.zero_()
    assert path.read_bytes() == before
