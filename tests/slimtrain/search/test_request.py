"""A search as it is asked for: its targets, its runs, and the command that comes after it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from slimtrain.config.reading import read_config
from slimtrain.costs.cost_model import cost_model
from slimtrain.search.request import SearchRequest
from slimtrain.search.slimming import Slimming, check_targets
from tests.support.search_helpers import SEARCH, search_file


def test_the_next_command_repeats_what_was_changed(tmp_path: Path) -> None:
    file = search_file(tmp_path / "tiny.yml")
    changes = ["seed=3", "mean=[0.1, 0.2, 0.3]", "data_dir=/a b/c", "search_groups=1"]
    config = read_config(str(file), changes, batch_size=4)
    words = shlex.split(SearchRequest(config, tmp_path / "s", None, str(file)).next_command())
    again = read_config(words[4], [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert (again.seed, again.mean, again.data_dir, again.batch_size) == (3, (0.1, 0.2, 0.3), "/a b/c", 4)
    assert again.search_groups == SEARCH["search_groups"]  # for the search alone


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("autoslim_mobilenet_v1", [572e6, 325e6, 150e6]),
        ("autoslim_mobilenet_v2", [505e6, 305e6, 207e6]),
        ("autoslim_mnasnet", [532e6, 315e6, 217e6]),
        ("autoslim_resnet50", [3e9, 2e9, 1e9, 570e6]),
    ],
)
def test_the_published_searches_are_configurations(name: str, targets: list[float]) -> None:
    config = read_config(name)
    search = SearchRequest(config, Path("runs/s"), None, name)
    assert search.targets == targets
    supernet = search.supernet
    assert supernet.network == name.replace("autoslim", "us") and supernet.nonuniform and supernet.distill
    assert (supernet.width_range, supernet.holdout) == ((0.15, 1.5), 50_000)
    assert 0.1 <= supernet.epochs / config.epochs <= 0.2
    spec = supernet.spec(1000)
    check_targets(cost_model("macs", spec, 224), Slimming(spec, config.search_groups), search.targets)
    assert (config.search_groups, config.search_criterion, config.search_cost) == (10, "error", "macs")


def test_the_digits_search_reaches_its_targets() -> None:
    config = read_config("digits")
    search = SearchRequest(config, Path("s"), None, "digits")
    spec = search.supernet.spec(10)
    check_targets(cost_model("macs", spec, 16), Slimming(spec, config.search_groups), search.targets)
    assert len(search.targets) == 3 and search.supernet.holdout > 0 and config.holdout == 0
