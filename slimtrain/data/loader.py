"""Batches, in an order that depends on the seed alone.

The order of an epoch is a permutation drawn from (seed, epoch); the augmentation of a sample is drawn from (seed, epoch,
sample). So a run sees the same images however many processes train and load, and a resumed run sees those that the
uninterrupted one would have seen.
"""
# ruff: noqa: PT028 (test_batches is no test)

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.process.memory import tells_of_memory
from slimtrain.data.opening import ImageRefused
from slimtrain.data.samples import Picture, Pictures, Samples
from slimtrain.data.transforms import Transform

UNREADABLE_RUN = 100  # so many unreadable images in a row are no accident
NOT_HANDED_OVER = 74  # exit code of a process that could not hand a batch over
REMEDY = (
    "Load images without such processes, --workers 0, or with fewer; or give a container more memory, and more shared memory, "
    "as in docker run --shm-size=8g."
)
T = TypeVar("T")  # what is a batch


class Batch(NamedTuple):
    """This process's share of one step's images."""

    step: int  # counted over all epochs
    epoch: int
    images: Tensor  # float32 [n, C, H, W]
    labels: Tensor  # int64 [n]
    total: int  # images of the step over all processes; in testing, n
    unreadable: tuple[str, ...]  # images that were replaced (training) or left out (testing)

    @property
    def labeled(self) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        return self.images, self.labels


class Job(NamedTuple):
    """What a batch is to hold."""

    step: int
    epoch: int
    indices: tuple[int, ...]
    total: int


class Failed(NamedTuple):
    """What a worker could not do. As a value: an exception would come back wrapped in the worker's traceback."""

    message: str


class _Raised(NamedTuple):
    """An error that a worker met while it made a batch: a defect, not a lack of anything. As a value, so that whatever the
    loader itself raises is of the processes and what they hand over."""

    trace: str


def steps_per_epoch(samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch: the last, short one counts unless it is dropped."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def shortest_batch(samples: int, batch_size: int, drop_last: bool) -> int:
    """The images of an epoch's shortest batch."""
    return batch_size if drop_last or samples % batch_size == 0 else samples % batch_size


def training_batches(
    samples: Samples,
    transform: Transform,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    drop_last: bool = True,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of steps `start_step` to the end of all epochs: of each step's `batch_size` images, the share of
    process `rank` of `world`.

    An unreadable image is replaced by the next readable one. Raises UserError, at once, where an epoch has no batch or a
    process would get no image, and later, where an image is refused or none can be read; ResourceError where a process that
    loads images dies.
    """
    count = len(samples)
    steps = steps_per_epoch(count, batch_size, drop_last)
    if not steps:
        raise UserError(
            f"there are {count} training images, fewer than one batch of {batch_size}, and short batches are dropped. Set "
            f"batch_size to at most {count}, or drop_last to false."
        )
    shortest = shortest_batch(count, batch_size, drop_last)
    if shortest < world:
        raise UserError(
            f"a batch of {shortest} of {count} training images (batch_size {batch_size}) cannot be shared by {world} "
            "processes. Set drop_last to true, or batch_size to another number, at least that of the processes."
        )
    jobs = training_jobs(count, epochs * steps, steps, batch_size, seed, start_step, rank, world)
    return batches_of(_TrainingBatches(samples, transform, seed), jobs, workers, pin_memory)


def test_batches(
    samples: Samples,
    transform: Transform,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Every image once: process `rank` of `world` gets every world-th, in batches of about `batch_size` / `world`.

    Unreadable and refused images are left out. Raises UserError where all are, or 100 in a row within a batch or in whole
    batches; ResourceError where a process that loads images dies.
    """
    jobs = test_jobs(len(samples), max(batch_size // world, 1), rank, world)
    return _without_empty(batches_of(_TestBatches(samples, transform), jobs, workers, pin_memory))


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


def training_jobs(
    count: int, end: int, steps: int, batch_size: int, seed: int, start_step: int, rank: int, world: int
) -> Iterator[Job]:
    order, ordered = torch.empty(0), -1
    for step in range(start_step, end):
        epoch, position = divmod(step, steps)
        if epoch != ordered:
            draw = torch.Generator().manual_seed(seed_of(seed, epoch))
            order, ordered = torch.randperm(count, generator=draw), epoch
        batch = order[position * batch_size : (position + 1) * batch_size]
        total = len(batch)
        share = batch[rank * total // world : (rank + 1) * total // world]
        yield Job(step, epoch, tuple(share.tolist()), total)


def test_jobs(count: int, batch_size: int, rank: int, world: int) -> Iterator[Job]:
    own = range(rank, count, world)
    for step, start in enumerate(range(0, len(own), batch_size)):
        indices = tuple(own[start : start + batch_size])
        yield Job(step, 0, indices, len(indices))


def seed_of(*numbers: int) -> int:
    """A seed that differs in all bits between neighboring numbers. Torch's generator for the CPU uses 32 bits."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")


class _TrainingBatches(Dataset[Batch | Failed]):
    """Makes a job's batch; torch's global generator is left as it was."""

    def __init__(self, samples: Samples, transform: Transform, seed: int) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed

    def __getitem__(self, job: Job) -> Batch | Failed:
        images, labels, unreadable = [], [], []
        with torch.random.fork_rng(devices=[]):
            for index in job.indices:
                # Not torch.manual_seed: that would seed the GPU's generators, which training may use.
                torch.default_generator.manual_seed(seed_of(self.seed, job.epoch, index))
                nearest = opened_near(self.samples, index)
                if isinstance(nearest, Failed):
                    return nearest
                position, image = nearest
                if position != index:
                    unreadable.append(self.samples.name(index))
                images.append(self.transform(image))
                labels.append(self.samples.label(position))
        return Batch(job.step, job.epoch, torch.stack(images), torch.tensor(labels), job.total, tuple(unreadable))


class _TestBatches(Dataset[Batch | Failed]):
    """Makes a job's batch of what can be read, which may be nothing."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, job: Job) -> Batch | Failed:
        images, labels, unreadable, run = [], [], [], 0
        for index in job.indices:
            name = self.samples.name(index)
            try:
                image = open_or_none(self.samples, index)
            except ImageRefused as error:
                image, name = None, f"{name} ({error.reason})"
            if image is None:
                unreadable.append(name)
                run += 1
                if run == UNREADABLE_RUN:
                    return Failed(none_readable(unreadable[-1], run))
                continue
            run = 0
            images.append(self.transform(image))
            labels.append(self.samples.label(index))
        stacked = torch.stack(images) if images else torch.empty(0)
        return Batch(job.step, 0, stacked, torch.tensor(labels), len(labels), tuple(unreadable))


class _InProcess(Dataset[T | Failed | _Raised]):
    """Another dataset's batches as a worker hands them over."""

    def __init__(self, dataset: Dataset[T | Failed]) -> None:
        self.dataset = dataset

    def __getitem__(self, job: Job) -> T | Failed | _Raised:
        try:
            return self.dataset[job]
        except Exception:
            return _Raised(traceback.format_exc())


def opened_near(samples: Pictures, index: int) -> tuple[int, Picture] | Failed:
    """The image at `index`, or the next one that can be read, with its number; why there is none."""
    last = index + min(UNREADABLE_RUN, len(samples))
    positions = (candidate % len(samples) for candidate in range(index, last))
    try:
        opened = next(((at, image) for at in positions if (image := open_or_none(samples, at)) is not None), None)
    except ImageRefused as error:
        return Failed(str(error))
    return Failed(none_readable(samples.name(index), last - index)) if opened is None else opened


def open_or_none(samples: Pictures, index: int) -> Picture | None:
    """The image, or None where it cannot be read; ImageRefused where it is not to be."""
    try:
        return samples.image(index)
    except ImageRefused:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        if tells_of_memory(error):
            raise
        return None


def none_readable(name: str, count: int) -> str:
    return f"{count} images in a row, such as {name}, cannot be read. Check the disk and the files, or correct data_dir."


def _without_empty(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Leaves out batches without images; what was unreadable in them is told with a neighbor."""
    held: Batch | None = None
    names: tuple[str, ...] = ()
    for batch in batches:
        if not batch.total:
            names += batch.unreadable
            if len(names) >= UNREADABLE_RUN:
                raise UserError(none_readable(names[-1], len(names)))
            continue
        if held is not None:
            yield held
        held, names = batch._replace(unreadable=names + batch.unreadable), ()
    if held is not None:
        yield held._replace(unreadable=held.unreadable + names)
    elif names:
        raise UserError(none_readable(names[-1], len(names)))


def batches_of(dataset: Dataset[T | Failed], jobs: Iterable[Job], workers: int, pin_memory: bool) -> Iterator[T]:
    """The jobs' batches in their order, made by `workers` processes that live as long as the iterator."""
    loader = DataLoader(
        _InProcess(dataset) if workers else dataset,
        batch_size=None,  # a job makes a whole batch
        sampler=jobs,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory and torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # seeds the workers, else drawn from the global generator
    )
    before = multiprocessing.active_children()
    try:
        iterator = iter(loader)
    except OSError as error:  # no room for its locks, or for another process
        raise ResourceError(f"processes that load images cannot be started ({error}). {REMEDY}") from error
    processes = [child for child in multiprocessing.active_children() if child not in before]
    try:
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not workers:
                    raise
                raise ResourceError(f"a process that loads images {_ending(processes, error)}. {REMEDY}") from error
            if isinstance(batch, _Raised):
                raise RuntimeError(f"in a process that loads images:\n{batch.trace}")
            if isinstance(batch, Failed):
                raise UserError(batch.message)
            yield batch
    finally:
        # Not left to the iterator's own end: after Ctrl-C the exception's traceback still holds it.
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _as_it_is(batch: Any) -> Any:
    return batch


def _ending(processes: Sequence[multiprocessing.process.BaseProcess], error: BaseException) -> str:
    """How a process ended, as far as can be told."""
    deadline = time.monotonic() + 1  # the kernel may tell the main process of it a moment later
    while not (codes := [process.exitcode for process in processes if process.exitcode]) and time.monotonic() < deadline:
        time.sleep(0.01)
    code = codes[0] if codes else None
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does where memory is short"
    if code in (-signal.SIGBUS, NOT_HANDED_OVER):
        return "could not hand a batch over: shared memory (/dev/shm) is full, or too many files are open"
    return f"ended ({' '.join(str(error).split())})"


def _start_worker(_: int) -> None:
    """Ctrl-C is for the main process, which ends its workers. (torch has set this one to a single thread.)

    A batch is put into shared memory and handed over by a thread, which by itself drops what it cannot: the main process would
    wait for ever. So it ends the process, which is seen at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_not_handed_over)  # type: ignore[attr-defined]


def _not_handed_over(error: BaseException, _: Any) -> None:
    if not isinstance(error, ConnectionError):  # the main process has gone, or is ending this one
        os._exit(NOT_HANDED_OVER)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of a worker's threads, the one that hands images over meets a broken connection whenever the main process is
    interrupted while it takes them: nothing to tell."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
