"""What tests of slimexport start from, and do once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimtrain.checkpoints import untrained
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_helpers import write_checkpoint


@pytest.fixture(autouse=True, scope="module")
def _untrained_networks_are_made_once() -> Iterator[None]:
    """The statistics of 31 widths take over a second. Where making them again is what is tested, a fixture of the same name
    lets it be."""
    kept = functools.lru_cache(maxsize=3)(untrained.untrained_network)

    def untrained_network(name: str) -> SlimmableNetwork:
        return copy.deepcopy(kept(name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(untrained, "untrained_network", untrained_network)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("good") / "small.pt")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that has to be as empty after a failure as it was before."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True, scope="session")
def _the_users_cache_is_left_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Latencies and timings that tests measure are kept in a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
