"""Batches against brute force: the union over processes, the tail of an uninterrupted run, every refusal."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.data import loader
from slimtrain.data.loader import Batch, steps_per_epoch, training_batches
from slimtrain.data.opening import ImageRefused
from tests.support import ROOT


class Numbered:
    """Sample i is an image of is; those in `broken` cannot be opened."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def label(self, index: int) -> int:
        return index

    def image(self, index: int) -> torch.Tensor:
        if index in self.broken:
            raise OSError("broken")
        return torch.full((3, 2, 2), index)

    def name(self, index: int) -> str:
        return f"sample {index}"


class Deadly(Numbered):
    """Ends the process that opens an image."""

    def image(self, index: int) -> torch.Tensor:
        os._exit(1)


class Killed(Numbered):
    """The process that opens an image is killed, as the kernel does where memory is short, while the main one waits."""

    def image(self, index: int) -> torch.Tensor:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Full(Numbered):
    """The process that opens an image has no room for shared memory."""

    def image(self, index: int) -> torch.Tensor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().image(index)


def noisy(image: Any) -> torch.Tensor:
    """The image and a random draw, which shows the generator's state."""
    return image + torch.rand(3, 2, 2)


def train(samples: Any, **options: Any) -> list[Batch]:
    values = {"epochs": 3, "batch_size": 5, "seed": 7} | options
    return list(training_batches(samples, noisy, **values))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        assert (a.step, a.epoch, a.total, a.unreadable) == (b.step, b.epoch, b.total, b.unreadable)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("count", [5, 19, 20, 24])
def test_every_epoch_is_another_permutation(count: int, drop_last: bool) -> None:
    batches = train(Numbered(count), drop_last=drop_last)
    steps = steps_per_epoch(count, 5, drop_last)
    assert steps == (count // 5 if drop_last else (count + 4) // 5)
    assert [b.step for b in batches] == list(range(3 * steps))
    assert [b.epoch for b in batches] == [e for e in range(3) for _ in range(steps)]
    orders = []
    for epoch in range(3):
        labels = torch.cat([b.labels for b in batches if b.epoch == epoch]).tolist()
        assert len(set(labels)) == len(labels) == (count // 5 * 5 if drop_last else count)
        orders.append(tuple(labels))
    assert len(set(orders)) == 3 and (count == 5 or all(order != tuple(sorted(order)) for order in orders))
    for batch in batches:
        assert batch.total == len(batch.labels) == len(batch.images) and batch.images.dtype == torch.float32
        assert batch.labels.dtype == torch.int64 and torch.equal(batch.images[:, 0, 0, 0].long(), batch.labels)
    assert train(Numbered(count), seed=8, drop_last=drop_last)[0].labels.tolist() != batches[0].labels.tolist()


def test_a_sample_is_augmented_anew_in_every_epoch_and_run() -> None:
    draws = {
        (seed, batch.epoch, int(label)): tuple((image - label).flatten().tolist())
        for seed in (0, 1)
        for batch in train(Numbered(20), seed=seed)
        for image, label in zip(batch.images, batch.labels, strict=True)
    }
    assert len(set(draws.values())) == len(draws) == 2 * 3 * 20


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_shares_of_all_processes_are_the_batches_of_one(world: int, drop_last: bool) -> None:
    whole = train(Numbered(29, broken=(3,)), batch_size=10, drop_last=drop_last)
    shares = [
        train(Numbered(29, broken=(3,)), batch_size=10, drop_last=drop_last, rank=rank, world=world) for rank in range(world)
    ]
    for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert {(part.step, part.epoch, part.total) for part in parts} == {(batch.step, batch.epoch, batch.total)}
        assert tuple(itertools.chain(*(part.unreadable for part in parts))) == batch.unreadable
        assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_run_resumed_at_any_step_goes_on_as_if_never_interrupted(drop_last: bool) -> None:
    whole = train(Numbered(17), drop_last=drop_last)
    for start in range(len(whole) + 2):
        assert_same(train(Numbered(17), drop_last=drop_last, start_step=start), whole[start:])


def test_workers_make_the_same_batches_bit_for_bit() -> None:
    samples = Numbered(23, broken=(4, 5))
    assert_same(train(samples, workers=2), train(samples))
    tested = [list(loader.test_batches(samples, noisy, batch_size=4, workers=workers)) for workers in (0, 2)]
    assert [b.labels.tolist() for b in tested[0]] == [b.labels.tolist() for b in tested[1]]
    assert [b.unreadable for b in tested[0]] == [b.unreadable for b in tested[1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_training_processs_generators_are_left_alone(workers: int) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    plain = [[b.labels.tolist() for b in train(Numbered(10), epochs=1, workers=workers)] for _ in range(2)]
    random.seed(5), torch.manual_seed(5)
    state = torch.get_rng_state()
    assert [b.labels.tolist() for b in train(Numbered(10), epochs=1, workers=workers)] == plain[0] == plain[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    train(Numbered(10), epochs=1, workers=workers)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]


def test_an_unreadable_image_is_replaced_by_the_next_readable_one() -> None:
    whole, batches = train(Numbered(10), epochs=1), train(Numbered(10, broken=(3, 8, 9)), epochs=1)
    stand_ins = {3: 4, 8: 0, 9: 0}
    for a, b in zip(whole, batches, strict=True):
        assert b.labels.tolist() == [stand_ins.get(i, i) for i in a.labels.tolist()]
        assert b.unreadable == tuple(f"sample {i}" for i in a.labels.tolist() if i in stand_ins)
    images = torch.cat([b.images for b in batches])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 10  # a stand-in has its own augmentation


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("count", [3, 150])
def test_training_ends_where_no_image_can_be_read(count: int, workers: int) -> None:
    samples = Numbered(count, broken=tuple(range(count)))
    with pytest.raises(UserError, match=rf"^{min(count, 100)} images in a row, such as sample \d+, cannot be read") as caught:
        train(samples, batch_size=2, workers=workers)
    assert "Traceback" not in str(caught.value)


def test_a_transforms_own_error_is_not_taken_for_an_unreadable_image() -> None:
    def wrong(image: Any) -> torch.Tensor:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        list(training_batches(Numbered(5), wrong, epochs=1, batch_size=5, seed=0))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 30])
@pytest.mark.parametrize("count", [1, 23, 24])
def test_testing_takes_every_image_once(world: int, count: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        batches = list(loader.test_batches(Numbered(count), noisy, batch_size=8, rank=rank, world=world))
        labels = [label for batch in batches for label in batch.labels.tolist()]
        assert labels == list(range(rank, count, world))
        assert [b.step for b in batches] == list(range(len(batches)))
        assert all(b.total == len(b.images) <= max(8 // world, 1) for b in batches)
        seen += labels
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("broken", [(0,), (5, 6), (0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10), (0, 1, 2, 3, 4, 5, 6, 7, 10)])
def test_testing_leaves_unreadable_images_out_and_names_them(broken: tuple[int, ...]) -> None:
    batches = list(loader.test_batches(Numbered(11, broken), noisy, batch_size=4))
    assert [i for b in batches for i in b.labels.tolist()] == [i for i in range(11) if i not in broken]
    assert [name for b in batches for name in b.unreadable] == [f"sample {i}" for i in broken]
    assert all(b.total == len(b.images) > 0 for b in batches)


@pytest.mark.parametrize(("count", "broken"), [(4, range(4)), (300, range(40, 150)), (300, range(8, 120))])
@pytest.mark.parametrize("batch_size", [8, 300])
def test_testing_ends_where_a_hundred_or_all_cannot_be_read(count: int, broken: range, batch_size: int) -> None:
    with pytest.raises(UserError, match="images in a row, such as sample"):
        list(loader.test_batches(Numbered(count, tuple(broken)), noisy, batch_size=batch_size))


def test_what_cannot_be_shared_is_refused_at_once() -> None:
    values: dict[str, Any] = {"epochs": 1, "seed": 0}
    with pytest.raises(UserError, match=r"there are 9 training images, fewer than one batch of 10.*drop_last to false"):
        training_batches(Numbered(9), noisy, batch_size=10, **values)
    with pytest.raises(UserError, match=r"a batch of 2 of 12 training images \(batch_size 10\) cannot be shared by 3"):
        training_batches(Numbered(12), noisy, batch_size=10, drop_last=False, world=3, **values)
    with pytest.raises(UserError, match="a batch of 2 of 12"):
        training_batches(Numbered(12), noisy, batch_size=2, world=3, **values)
    for empty in (True, False):
        with pytest.raises(UserError, match="there are 0 training images"):
            training_batches(Numbered(0), noisy, batch_size=2, drop_last=empty, **values)
    assert len(list(training_batches(Numbered(13), noisy, batch_size=10, drop_last=False, world=3, **values))) == 2


def test_an_abandoned_iterator_leaves_no_processes() -> None:
    batches = training_batches(Numbered(1000), noisy, epochs=10**6, batch_size=2, seed=0, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert not multiprocessing.active_children()


def train_on(samples: Any) -> None:
    train(samples, workers=2)


def run_tests_on(samples: Any) -> None:
    list(loader.test_batches(samples, noisy, batch_size=4, workers=2))


def died(samples: Any, use: Callable[[Any], None]) -> str:
    """What the user is told of processes that died: exit code 3, with both ways out; no process is left."""
    with pytest.raises(ResourceError, match=r"--workers 0.*--shm-size") as caught:
        use(samples)
    assert caught.value.exit_code == 3
    assert not multiprocessing.active_children()
    return str(caught.value)


@pytest.mark.parametrize("use", [train_on, run_tests_on])
def test_a_process_that_dies_is_told_with_what_to_do(use: Callable[[Any], None]) -> None:
    assert "a process that loads images ended (" in died(Deadly(10), use)


@pytest.mark.parametrize("use", [train_on, run_tests_on])
def test_a_process_that_is_killed_is_told_with_what_to_do(use: Callable[[Any], None]) -> None:
    assert "was killed, as the kernel does where memory is short" in died(Killed(10), use)


@pytest.mark.parametrize("use", [train_on, run_tests_on])
def test_a_shared_memory_that_is_full_is_told_with_what_to_do(use: Callable[[Any], None]) -> None:
    """Left to itself, the thread that hands a batch over prints its error and drops the batch: the main process waits."""
    assert "could not hand a batch over: shared memory (/dev/shm) is full" in died(Full(10), use)


def test_any_error_of_handing_over_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", fail)  # the processes are forked with it
    assert "or too many files are open" in died(Numbered(10), train_on)


def test_a_machine_without_room_for_processes_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", fail)
    assert "cannot be started ([Errno 28] No space left on device)" in died(Numbered(10), train_on)


class Refused(Numbered):
    """Those in `broken` can be read, but are not to be."""

    def image(self, index: int) -> torch.Tensor:
        if index in self.broken:
            raise ImageRefused(self.name(index), "has 1 x 20,000 pixels", "Crop it.")
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refused_image_ends_training_by_its_name_and_is_left_out_of_tests(workers: int) -> None:
    samples = Refused(10, broken=(3,))
    with pytest.raises(UserError, match=r"^sample 3: has 1 x 20,000 pixels\. Crop it\.$"):
        train(samples, workers=workers)
    batches = list(loader.test_batches(samples, noisy, batch_size=4, workers=workers))
    assert [i for b in batches for i in b.labels.tolist()] == [i for i in range(10) if i != 3]
    assert [name for b in batches for name in b.unreadable] == ["sample 3 (has 1 x 20,000 pixels)"]


def failing(image: Any) -> torch.Tensor:
    raise RuntimeError("a defect of what a DataLoader worker is told to do")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_defect_in_a_process_that_lives_on_is_no_lack_of_memory(workers: int) -> None:
    with pytest.raises(RuntimeError, match="a defect") as caught:
        list(training_batches(Numbered(10), failing, epochs=1, batch_size=5, seed=0, workers=workers))
    assert not isinstance(caught.value, ResourceError)
    assert not multiprocessing.active_children()


def test_ctrl_c_is_quiet_and_leaves_no_processes() -> None:
    code = (
        "from tests.slimtrain.data.test_loader import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it would be ignored
        "batches = training_batches(Numbered(1000), noisy, epochs=10**6, batch_size=2, seed=0, workers=2)\n"
        "try:\n"
        "    for batch in batches:\n"
        "        if batch.step == 3: print('running', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    batches.close(); print('interrupted', len(multiprocessing.active_children()))\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes get it
        try:
            out, errors = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (out, errors) == ("interrupted 0\n", "")
