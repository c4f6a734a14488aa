"""A network in training: its weights, what a step runs and changes, and the average of the weights."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from slimtrain.checkpoints.adopt import adopt, adopt_norms
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import FROZEN, INPLACE, Config
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.layout import memory_format, takes_channels_last
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.compiling import CompiledForward, check_compiler, check_compiling
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import calibrate_on, to_device
from slimtrain.training.optimizer import initialize, sgd
from slimtrain.training.sampling import Stages, WidthSampler
from slimtrain.training.step import FrozenTeacher, Gradients, Stepper


class Trainer:
    """Trains `network` on one of `processes`, at the plans that `sampler` gives for a step."""

    def __init__(
        self, spec: WidthSpec, config: Config, processes: Processes, steps: int = 1, start: SlimmableNetwork | None = None
    ) -> None:
        """`steps` are an epoch's, by which the range of widths grows. `start`: the network to begin with, in place of one of
        `spec` with random weights."""
        self.device = processes.device
        synchronized = config.sync_norm and processes.world > 1
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.network = copy.deepcopy(start) if start is not None else SlimmableNetwork(spec)
        if start is None:
            initialize(self.network, config.seed)
        # A user's module may draw what it drops: from the seed, the step and the process.
        self.draws = f"{config.seed}:{processes.rank}" if isinstance(spec, GraphSpec) else None
        self.network.train()
        self.channels_last = takes_channels_last(self.network, processes.device, config.amp, config.channels_last)
        layout = memory_format(self.channels_last)
        self.network.to(processes.device, memory_format=layout)  # type: ignore[call-overload]
        self.network.synchronize(synchronized)
        stages = Stages(config.grow, config.grow_epochs or config.epochs, steps) if config.grow else None
        self.sampler = WidthSampler(spec, config.seed, config.sandwich, config.nonuniform, config.width_step, stages)
        self.teacher: FrozenTeacher | None = None
        if config.taught_by == FROZEN:
            self.teacher = FrozenTeacher(self.network, self.sampler.fixed[0], config.amp)
        self.parts = self.parts_of_losses(spec)
        gradients = Gradients(self.network, self.sampler.count * (1 + len(self.parts)), processes, config.sync_norm)
        forward = None
        if config.compile:
            check_compiling(synchronized)
            check_compiler(processes.device)
            forward = CompiledForward(self.network, self.sampler.returning)
        self.optimizer = sgd(self.network, config.lr, config.momentum, config.nesterov, config.weight_decay)
        self.stepper = self.stepper_of(config, gradients, forward)
        self.averaged: AveragedModel | None = None
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)

    def parts_of_losses(self, spec: WidthSpec) -> tuple[str, ...]:
        """The names of what a plan's loss is the sum of, where each is told."""
        return ()

    def stepper_of(self, config: Config, gradients: Gradients, forward: CompiledForward | None) -> Stepper:
        """What a step computes and changes."""
        return Stepper(
            self.network,
            self.optimizer,
            gradients,
            smoothing=config.label_smoothing,
            distill=config.taught_by == INPLACE,
            amp=config.amp,
            parts=config.accumulate,
            forward=forward,
            frozen=self.teacher,
            share=config.teacher_share,
        )

    @property
    def tested(self) -> SlimmableNetwork:
        """The network that is tested and shipped: the averaged one, where there is one."""
        if self.averaged is None:
            return self.network
        module = self.averaged.module
        assert isinstance(module, SlimmableNetwork)
        return module

    def start_from(self, checkpoint: Checkpoint, *, reset_classifier: bool = False) -> None:
        """Begin with a checkpoint's weights. CheckpointError where they do not fit."""
        adopt(self.network, checkpoint, reset_classifier=reset_classifier)
        if self.teacher is not None:
            self.teacher.load(self.network)

    @property
    def teacher_lacks_statistics(self) -> bool:
        """Whether there is a frozen teacher, of weights without batch-norm statistics for the full network."""
        return self.teacher is not None and not self.teacher.network.has_statistics(self.teacher.plan)

    def calibrate_teacher(self, batches: Iterable[Tensor], processes: Processes) -> None:
        """Give the teacher, and the full network that is trained, the statistics of `batches` of images."""
        assert self.teacher is not None
        network, plan = self.teacher.network, self.teacher.plan
        calibrate_on(network, [plan], batches, processes, channels_last=self.channels_last)
        adopt_norms(self.network, network, plan)
        network.replace_calibrated({})
        self.teacher.load(self.network)

    def compute(self, batch: Any) -> Tensor:
        """The gradients of a step, of a `Batch`; the mean loss of each of its plans [plans]."""
        self.seed(batch.step)
        images = to_device(batch.images, self.device, self.channels_last)
        labels = batch.labels.to(self.device, non_blocking=True)
        return self.stepper.compute(self.sampler(batch.step), images, labels, batch.total).clone()

    def seed(self, step: int) -> None:
        """Before a step that draws: other images drop other things, and a resumed step drops what it would have."""
        if self.draws is not None:
            torch.manual_seed(random.Random(f"{self.draws}:{step}").getrandbits(63))  # noqa: S311 (no secret)

    def apply(self, lr: float) -> None:
        """Change the weights by what `compute` left, and their average."""
        self.stepper.apply(lr)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
            for average, current in zip(self.tested.buffers(), self.network.buffers(), strict=True):
                if not current.is_floating_point():  # positions, tables of indices: an average of whole numbers is cut off
                    average.copy_(current)

    def state(self) -> dict[str, Any]:
        """All beside the network that the next steps depend on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            **({} if self.teacher is None else {"teacher": self.teacher.network.state_dict()}),
        }

    def restore(self, network: SlimmableNetwork, state: dict[str, Any]) -> None:
        """Go on from the weights of `network` and a `state`. Raises what torch does where these are of another training."""
        self.network.load_state_dict(network.state_dict())
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run so far did without one
            self.stepper.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])
        if self.teacher is not None:
            self.teacher.network.load_state_dict(state["teacher"])
