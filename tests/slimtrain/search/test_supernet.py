"""The training of the network that a search slims."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config.reading import read_config
from slimtrain.search.supernet import supernet_config, with_epochs


def test_a_short_training_runs_through_the_whole_schedule() -> None:
    resnet = supernet_config(read_config("autoslim_resnet50", ["warmup_epochs=10"]), Path("s"))
    assert (resnet.epochs, resnet.milestones, resnet.warmup_epochs) == (15, (4.5, 9.0, 13.5), 1.5)
    config = read_config("s_mobilenet_v1", ["search_holdout=10"])
    supernet = supernet_config(config, Path("s"))
    assert supernet.epochs == 72
    assert supernet.gamma**supernet.epochs == pytest.approx(config.gamma**config.epochs)
    assert supernet_config(config, Path("s")).network == "us_mobilenet_v1"


def test_the_holdout_of_a_configuration_serves_the_search_too() -> None:
    assert supernet_config(read_config("digits", ["search_holdout=0", "holdout=99"]), Path("s")).holdout == 99
    with pytest.raises(UserError, match="no training images are held out"):
        supernet_config(read_config("digits", ["search_holdout=0"]), Path("s"))


def test_a_shorter_training_takes_the_same_course(tmp_path: Path) -> None:
    config = read_config("autoslim_resnet50", ["warmup_epochs=5"])
    half = with_epochs(config, 50)
    assert (config.epochs, config.milestones) == (100, (30, 60, 90))
    assert (half.epochs, half.milestones, half.warmup_epochs) == (50, (15, 30, 45), 2.5)
    decaying = read_config("autoslim_resnet50", ["schedule=exponential", "milestones=[]", "gamma=0.98"])
    assert with_epochs(decaying, 25).gamma == pytest.approx(0.98**4)
    assert with_epochs(config, 100) == config


def test_a_share_of_the_images_may_be_held_out() -> None:
    assert supernet_config(read_config("digits", ["search_holdout=0", "holdout=0.2"]), Path("s")).holdout == 0.2
    with pytest.raises(UserError, match=r"holdout is the share 0.2, search_holdout the number 300. Set .*search_holdout to 0"):
        supernet_config(read_config("digits", ["holdout=0.2"]), Path("s"))
