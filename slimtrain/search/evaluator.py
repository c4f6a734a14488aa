"""The error of every candidate of a search's step, on held-out images, with batch-norm statistics of the candidate's own.

A slimmed network has other statistics than those it was trained with. `batch`: every norm normalizes by the chunk of images
that it sees. `calibrated`: the candidate's statistics are first taken over calibration images (arXiv 1903.05134, sec. 3.1),
and all held-out images are normalized by these.

Candidates differ from the current network in one group, so what comes before its first layer is computed once per chunk
(prefix.py). Several processes share the pairs of chunk and candidate; every pair's sums are kept apart until all are
there, and added in one order, so that the result does not depend on how many processes there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.base.process.kept_memory import memory_kept
from slimtrain.config.config import STATISTICS
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.prefix import SharedPrefix
from slimtrain.slimmable.layout import memory_format
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.sync_norm import OneValueError
from slimtrain.training.distributed import Processes
from slimtrain.training.step import autocast

NO_IMAGES = "there are no held-out images to search with. Hold some out: --set search_holdout=N."
Chunk = tuple[Tensor, Tensor]  # images float32 [n, C, H, W], labels int64 [n]
Given = Any  # what a plan gives on a chunk, in whatever form its kind of evaluator adds up


class Chunks(Protocol):
    """Images in a fixed order, in chunks that are always the same."""

    def __len__(self) -> int:
        """The number of chunks."""
        ...

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """The chunks of ascending `numbers`, each with its number; one that holds nothing is left out."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells these images from others, in plain values."""
        ...


@dataclass(frozen=True)
class TensorChunks:
    """Chunks in memory."""

    chunks: Sequence[Chunk]

    def __len__(self) -> int:
        return len(self.chunks)

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Chunk]]:
        for number in numbers:
            yield number, self.chunks[number]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for images, labels in self.chunks:
            digest.update(f"{tuple(images.shape)}".encode() + images.numpy().tobytes() + labels.numpy().tobytes())
        return {"chunks": len(self.chunks), "images_sha256": digest.hexdigest()}


@dataclass(frozen=True)
class Evaluator:
    """`evaluator(current, candidates)` scores plans of `network`, a classifier, on `chunks`.

    `statistics` is one of STATISTICS, `calibration` the images that `calibrated` takes them from; `amp` as in training.
    Without `reuse` every candidate is computed from the image on, without `keep_memory` large tensors are allocated anew, both
    with the same result and for comparison only. Norms are not synchronized between processes: a chunk is seen by one process
    as a whole.
    """

    network: SlimmableNetwork
    chunks: Chunks
    processes: Processes
    statistics: str = "batch"
    calibration: Chunks | None = None
    amp: str = "none"
    channels_last: bool = True
    reuse: bool = True
    keep_memory: bool = True

    def __post_init__(self) -> None:
        if self.statistics not in STATISTICS:
            raise UserError(f"statistics is {self.statistics!r}, expected {' or '.join(STATISTICS)}.")
        if self.statistics == "calibrated" and not (self.calibration is not None and len(self.calibration)):
            raise UserError("statistics is calibrated, but there are no images to calibrate with. Choose batch, or give some.")
        if not len(self.chunks):
            raise UserError(NO_IMAGES)

    @property
    def percent(self) -> bool:
        """Whether errors are percents; else they are losses."""
        return True

    def identity(self) -> dict[str, Any]:
        """What the result depends on, in plain values."""
        identity = {"statistics": self.statistics, "amp": self.amp, **self.chunks.identity()}
        if self.statistics == "calibrated" and self.calibration is not None:
            identity |= {f"calibration_{key}": value for key, value in self.calibration.identity().items()}
        return identity

    def __call__(self, current: ChannelPlan, candidates: Sequence[ChannelPlan]) -> list[CandidateScore]:
        """The candidates' scores, in their order; the same on every process. `current` is what they are compared with to
        find what they share.

        Raises UserError where a chunk leaves a norm one value per channel, and where no held-out image can be read.
        """
        network, device = self.network, self.processes.device
        calibrated, training = network.calibrated, network.training
        network.eval()
        network.synchronize(False)
        try:
            kept = memory_kept(device.type) if self.keep_memory else nullcontext()
            with torch.inference_mode(), self._computing(), kept:
                network.replace_calibrated({})  # so that norms follow no statistics that are to stay
                return self._measure(current, candidates)
        except OneValueError as error:
            raise UserError(
                "a chunk of held-out or calibration images leaves some norm one value per channel, which has no variance. "
                "Raise search_batch, or search with more images."
            ) from error
        finally:
            network.replace_calibrated(calibrated)
            network.train(training)

    def _measure(self, current: ChannelPlan, candidates: Sequence[ChannelPlan]) -> list[CandidateScore]:
        prefix = self._prefix()
        # Neighbors share most: by first difference, the deepest last.
        order = sorted(range(len(candidates)), key=lambda i: prefix.first_difference(current, candidates[i]))
        plans = [candidates[i] for i in order]
        by_batch = self.statistics == "batch"
        if not by_batch:
            self._calibrate(prefix, current, plans)
        processes = self.processes
        total = len(self.chunks) * len(plans)
        pairs: dict[int, Given] = {}
        own = range(processes.rank * total // processes.world, (processes.rank + 1) * total // processes.world)
        parts = {chunk: [pair % len(plans) for pair in group] for chunk, group in groupby(own, lambda i: i // len(plans))}
        with self.network.averaging(1.0) if by_batch else nullcontext():  # no plan has statistics that could follow
            for number, chunk in self.chunks.read(list(parts)):
                for i, given in self._given(prefix, current, [plans[i] for i in parts[number]], chunk):
                    pairs[number * len(plans) + parts[number][i]] = given
        scores = self._scores(pairs, len(self.chunks), len(plans))
        return [scores[order.index(i)] for i in range(len(candidates))]

    # What of it is a classifier's.

    def _computing(self) -> AbstractContextManager[Any]:
        """Within which all of it is computed."""
        return autocast(self.processes.device, self.amp)

    def _prefix(self) -> Any:
        """What knows where plans begin to differ, and computes what they share once."""
        return SharedPrefix(self.network)

    def _given(
        self, prefix: Any, current: ChannelPlan, plans: Sequence[ChannelPlan], chunk: Any
    ) -> Iterator[tuple[int, Given]]:
        """The number of every plan, in any order, and what it gives on a chunk."""
        images, labels = chunk
        targets = labels.to(self.processes.device)
        for number, logits in self._logits(prefix, current, plans, images):
            yield number, _sums(logits, targets)

    def _scores(self, pairs: Mapping[int, Given], chunks: int, plans: int) -> list[CandidateScore]:
        """The score of every plan, the same on all processes, from what each has: a chunk and a plan are pair
        `chunk * plans + plan`."""
        sums = torch.zeros(chunks * plans, 3, dtype=torch.float64, device=self.processes.device)
        for pair, given in pairs.items():
            sums[pair] = given
        return [_score(of_plan) for of_plan in self.processes.sum(sums).cpu().reshape(chunks, plans, 3).unbind(1)]

    def _run(self, prefix: Any, current: ChannelPlan, plans: Sequence[ChannelPlan], chunk: Any) -> None:
        """Let a chunk through every norm at all `plans`."""
        images, _ = chunk
        for _ in self._logits(prefix, current, plans, images):
            pass

    def _logits(
        self, prefix: SharedPrefix, current: ChannelPlan, plans: Sequence[ChannelPlan], images: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """The number and logits of every plan, in any order."""
        placed = images.to(self.processes.device, memory_format=memory_format(self.channels_last))
        if self.reuse:
            yield from prefix.sweep(current, plans, placed)
            return
        for number, plan in enumerate(plans):
            with self.network.at(plan):
                logits = self.network(placed)
            yield number, logits

    def _calibrate(self, prefix: Any, current: ChannelPlan, plans: Sequence[ChannelPlan]) -> None:
        """Give `plans` and `current` the statistics of the calibration images. Of a plan these are only those of norms from
        its first difference on: the ones before are the current plan's."""
        assert self.calibration is not None
        network, processes = self.network, self.processes
        own = range(processes.rank * len(plans) // processes.world, (processes.rank + 1) * len(plans) // processes.world)
        # The current plan's statistics are needed by all, up to where the last candidate begins to differ.
        wanted = list(dict.fromkeys([*(plans[i] for i in own), *plans[-1:]]))
        network.replace_calibrated({plan: network.blank_statistics(plan) for plan in (*plans, current)})
        for seen, (_, chunk) in enumerate(self.calibration.read(range(len(self.calibration))), 1):
            with network.averaging(1 / seen):  # the k-th of k values moves their average by a k-th of its distance
                self._run(prefix, current, wanted, chunk)
        if processes.world > 1 and network.norms:
            self._exchange(plans, own)

    def _exchange(self, plans: Sequence[ChannelPlan], own: range) -> None:
        """Statistics of all plans on every process, each from the process that has taken them."""
        for i, plan in enumerate(plans):
            kept = [tensor for pair in self.network.calibrated[plan].values() for tensor in pair]
            flat = torch.cat([tensor.flatten() for tensor in kept])
            self.processes.sum(flat if i in own else flat.zero_())
            for tensor, value in zip(kept, torch.split(flat, [tensor.numel() for tensor in kept]), strict=True):
                tensor.copy_(value)


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Float64 [3]: summed cross entropy, wrong images, images."""
    values = logits.double()
    loss = F.cross_entropy(values, labels, reduction="sum")
    wrong = (values.argmax(1) != labels).sum()
    return torch.stack([loss, wrong.double(), loss.new_tensor(len(labels))])


def _score(chunks: Tensor) -> CandidateScore:
    """The score of one plan from its sums per chunk [chunks, 3], added in their order."""
    loss = errors = images = 0.0
    for row in chunks.tolist():
        loss, errors, images = loss + row[0], errors + row[1], images + row[2]
    if not images:
        raise UserError("none of the held-out images can be read.")
    return CandidateScore(100 * errors / images, loss / images, int(images))
