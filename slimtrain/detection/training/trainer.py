"""A detector in training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slimtrain.config.config import Config
from slimtrain.config.detector import DetectorConfig
from slimtrain.detection.losses.two_stage import Sampling
from slimtrain.detection.training.step import DetectionStepper, loss_names, losses_of
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.training.compiling import CompiledForward
from slimtrain.training.evaluate import to_device
from slimtrain.training.step import Gradients
from slimtrain.training.trainer import Trainer


class DetectionTrainer(Trainer):
    """Trains a detector on one of `processes`; what a step draws depends on `drawn_by`, the configuration's seed."""

    stepper: DetectionStepper

    def parts_of_losses(self, spec: WidthSpec) -> tuple[str, ...]:
        assert isinstance(spec, GraphSpec) and spec.detector is not None
        return loss_names(spec.detector)

    def stepper_of(self, config: Config, gradients: Gradients, forward: CompiledForward | None) -> DetectionStepper:
        spec = self.network.spec
        assert isinstance(spec, GraphSpec) and spec.detector is not None and config.detector is not None
        self.drawn_by = config.seed
        return DetectionStepper(
            self.network,
            self.optimizer,
            gradients,
            losses_of(spec.detector, sampling_of(config.detector)),
            self.parts,
            amp=config.amp,
            parts=config.accumulate,
            clip=config.detector.clip,
        )

    def compute(self, batch: Any) -> Tensor:
        """The gradients of a step, of a `DetectionBatch`; the sum of losses at each of its plans [plans], and behind them the
        losses of each."""
        self.seed(batch.step)
        images = to_device(batch.images, self.device, self.channels_last)
        here = batch._replace(images=images, targets=tuple(target.to(self.device) for target in batch.targets))
        return self.stepper.detect(self.sampler(batch.step), here, self.drawn_by).clone()


def sampling_of(config: DetectorConfig) -> Sampling:
    """Which anchors and regions losses are of."""
    return Sampling(
        config.rpn_object,
        config.rpn_background,
        config.rpn_sampled,
        config.rpn_positive,
        config.train_level_proposals,
        config.train_proposals,
        config.box_object,
        config.box_sampled,
        config.box_positive,
    )
