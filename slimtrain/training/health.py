"""What goes wrong in a training, told before anything is spoiled: batches that cannot be computed, losses and weights that are
no longer finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimtrain.base.errors import TrainingError, UserError
from slimtrain.base.image_size import ImageSize, format_size
from slimtrain.models.channels import number_text
from slimtrain.training.optimizer import Schedule
from slimtrain.training.sampling import WidthSampler

CHECK_EVERY = 20  # steps, on a GPU: looking at every loss would make it wait


def smallest_part(batch: int, world: int, parts: int) -> int:
    """The images of the smallest part that a process divides its share of a `batch` into. UserError where it has none."""
    if batch // world < parts:
        raise UserError(
            f"accumulate {parts}: a batch of {batch} images over {world} processes leaves parts without images. Lower "
            "accumulate, or raise batch_size."
        )
    return batch // world // parts


def one_value_error(batch_size: int, image_size: ImageSize) -> UserError:
    """For a part of one image whose maps end as single values."""
    return UserError(
        f"batch_size {batch_size}: a part of one image of {format_size(image_size)} pixels leaves some norm one value per "
        "channel, which has no variance. Raise batch_size, lower accumulate, or drop an epoch's last, short batch (drop_last)."
    )


class Health:
    """Looks at a run's losses and weights. Nothing may be saved between a step and a look.

    `loss_sums` [plans], float64, are those of the epoch's steps that were looked at; of losses that are sums of `parts`, these
    follow, plan by plan. `last` is the checkpoint that a run which diverged goes on from. On the CPU every step is looked at,
    `at_once`.
    """

    def __init__(
        self, sampler: WidthSampler, schedule: Schedule, last: Path, *, at_once: bool, parts: Sequence[str] = ()
    ) -> None:
        self.sampler, self.schedule, self.last = sampler, schedule, last
        self.every = 1 if at_once else CHECK_EVERY
        self.loss_sums = torch.zeros(sampler.count * (1 + len(parts)), dtype=torch.float64)
        self.waiting: list[tuple[int, Tensor]] = []

    def note(self, step: int, losses: Tensor) -> None:
        """Take down a step's losses, as `loss_sums` has them, and look at them when it is time to."""
        self.waiting.append((step, losses))
        if len(self.waiting) >= self.every:
            self.check_losses()

    def check_losses(self) -> None:
        """TrainingError where a loss since the last look was not finite."""
        for step, losses in self.waiting:
            values = losses.double().cpu()
            self.loss_sums += values
            if not torch.isfinite(values).all():
                first = int((~torch.isfinite(values)).nonzero()[0])
                plan = self.sampler(step)[first]
                where = f"plan {plan.name}" if plan.width is None else f"width {number_text(plan.width)}"
                raise TrainingError(
                    f"step {step} (epoch {self.schedule.epoch(step)}): the loss at {where} is {values[first].item()}, "
                    f"expected a finite number. Training stopped. {self._advice(step)}"
                )
        self.waiting.clear()

    def check_weights(self, network: nn.Module, step: int) -> None:
        """TrainingError where weights are not finite after `step`: it may spoil them although its losses were finite."""
        named = list(network.named_parameters())
        sums = torch.stack([parameter.detach().sum() for _, parameter in named]).cpu()
        if not torch.isfinite(sums).all():
            name = named[int((~torch.isfinite(sums)).nonzero()[0])][0]
            raise TrainingError(
                f"step {step} (epoch {self.schedule.epoch(step)}): {name} is no longer finite. Training stopped, nothing was "
                f"saved over. {self._advice(step)}"
            )

    def epoch_means(self) -> Tensor:
        """The mean losses of an epoch's steps, as `loss_sums` has them, all of them looked at; begins the next epoch."""
        means = self.loss_sums / self.schedule.steps
        self.loss_sums.zero_()
        return means

    def _advice(self, step: int) -> str:
        """What to do about a training that diverged."""
        kept = "Begin again"
        if self.last.exists():
            kept = f"{self.last} holds the last good state: go on with --resume auto"
        return f"{kept}, and lower lr (the step's was {self.schedule(step):.4g}) or lengthen warmup_epochs."
