"""Probe images are run alone, in pairs and all at once."""

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.proof.running import partitions, run_probes
from slimexport.target.reference import Probes

IMAGES = np.random.default_rng(3).normal(size=(5, 1, 2, 2)).astype(np.float32)


class _Runner:
    backend = "test"

    def __init__(self, coupled: float = 0.0, fixed: int = 0) -> None:
        self.coupled, self.fixed = coupled, fixed
        self.sizes: list[int] = []

    def __call__(self, images: Array) -> Array:
        self.sizes.append(len(images))
        own = images.reshape(len(images), -1).astype(np.float64)
        if self.fixed and len(images) > self.fixed:
            own = own[: self.fixed].repeat(len(images), 0)[: len(images)]
        return np.asarray(own + self.coupled * own.mean(0))


PROBES = Probes.of(IMAGES, IMAGES.reshape(5, -1).astype(np.float64))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_every_partition_holds_every_image_once_in_order(count: int) -> None:
    parts = partitions(count)
    assert all(np.concatenate(batches).tolist() == list(range(count)) for batches in parts)
    assert {max(map(len, batches)) for batches in parts} == {1, min(2, count), count}


def test_a_right_file_runs_alone_in_pairs_and_all_at_once() -> None:
    runner = _Runner()
    assert run_probes(runner, PROBES).max_rel_error == 0
    assert sorted(set(runner.sizes)) == [1, 2, 5]


@pytest.mark.parametrize("runner", [_Runner(coupled=-0.5), _Runner(fixed=2), _Runner(fixed=1)], ids=["coupled", "two", "one"])
def test_images_that_change_each_other_are_wrong(runner: _Runner) -> None:
    assert run_probes(runner, PROBES).max_rel_error > 0.1
