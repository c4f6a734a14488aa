"""A detector's training run, from its configuration to a calibrated, tested checkpoint: the course of any run, with what is a
detector's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import read_own
from slimtrain.config.config import Config
from slimtrain.config.detector import FROZEN_NORMS, SWITCHABLE, DetectorConfig
from slimtrain.data.catalog import SCENES
from slimtrain.data.detection.coco import DetectionData
from slimtrain.detection.building import build, freeze_configured, load_pretrained
from slimtrain.detection.freezing import NOTHING
from slimtrain.detection.halves import Halves
from slimtrain.detection.training.inputs import DetectionImages, carried_scenes, data_of, detector_of
from slimtrain.detection.training.testing import DetectionResult, evaluate_detector
from slimtrain.detection.training.trainer import DetectionTrainer
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import ordinary_torch
from slimtrain.tracing.starting import Start
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import calibrate_on
from slimtrain.training.fitting import fitted, resumed
from slimtrain.training.optimizer import Schedule
from slimtrain.training.resume import run_to_resume
from slimtrain.training.run import Run

FROM_RANDOM = (
    "no pretrained weights: a detector learns from random ones, which takes many more images and epochs. Give it a classifier "
    "that is trained: --pretrained CHECKPOINT."
)


@ordinary_torch()
def train_detector(config: Config, processes: Processes, notes: Sequence[str] = ()) -> Path:
    """Train, calibrate and test the detector that `config` says; the finished checkpoint's path.

    Raises UserError and its subclasses for anything wrong with configuration, data or files, TrainingError where the
    loss is no longer finite.
    """
    last = run_to_resume(config.resume, Path(config.output_dir), config.pretrained)
    if last is not None:
        config = resumed(config, last[1]["training"]["config"])
    data = data_of(config)
    start = detector_start(config, data, None if last is None else last[1])
    config, lines = fitted(config, start.network.spec, len(data.train), processes)
    run = DetectorRun(config, processes, data, start)
    if last is not None:
        run.restore(*last)
    return run.conduct(last, [*lines, start.line, *notes])


def detector_start(config: Config, data: DetectionData, resumed: Mapping[str, Any] | None = None) -> Start:
    """The detector that a run of `config` on `data` begins with. `resumed`: the content of the `last.pt` that it goes on from,
    which holds it. UserError where what is frozen would be random numbers."""
    own = detector_of(config)
    if resumed is not None:
        network = read_own(resumed, config.network)
        freeze_configured(network, own)
        return Start(network, loaded=True)
    network = build(
        own,
        len(data.classes),
        config.model_widths,
        config.family,
        config.image_size,
        config.mean,
        config.std,
        config.seed,
        len(data.keypoints),
        config.planned_lists,
    )
    if config.pretrained:
        line = load_pretrained(network, config.pretrained, weights=config.pretrained_weights or None)
        return Start(network, loaded=True, line=line)
    _check_frozen(own)
    return Start(network, line=FROM_RANDOM if config.data != SCENES else "")


def _check_frozen(own: DetectorConfig) -> None:
    """UserError for norms or stages of random weights that would stay as they are."""
    if own.norms == FROZEN_NORMS:
        what = f"norms: {FROZEN_NORMS}: norms would keep a mean of 0 and a variance of 1, which no map has"
        instead = f"norms: {SWITCHABLE}"
    elif own.frozen_stages > NOTHING:
        what = f"frozen_stages: {own.frozen_stages}: these stages would keep random weights"
        instead = f"frozen_stages: {NOTHING}"
    else:
        return
    raise UserError(
        f"detector.{what}, as pretrained names none to freeze. Give them (--pretrained CHECKPOINT, of a slimmable classifier "
        f"with these widths), or set detector.{instead}."
    )


def settings_of(network: SlimmableNetwork) -> DetectorSettings:
    """What a detector is beside its graph."""
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    return spec.detector


class DetectorRun(Run):
    """A detector's run on one process."""

    def __init__(self, config: Config, processes: Processes, data: DetectionData, start: Start) -> None:
        self.settings = settings_of(start.network)
        super().__init__(config, processes, data, start)  # type: ignore[arg-type]  # of it `images_of` makes batches

    def images_of(self, data: DetectionData) -> DetectionImages:
        return DetectionImages(self.config, data, self.processes, self.settings.image_stride)

    def trainer_of(self, steps: int, start: Start | None) -> DetectionTrainer:
        assert start is not None
        return DetectionTrainer(start.network.spec, self.config, self.processes, steps, start.network)

    def schedule_of(self, steps: int) -> Schedule:
        config, own = self.config, detector_of(self.config)
        epochs = own.warmup_steps / steps if steps and own.warmup_steps else config.warmup_epochs
        share = own.warmup_from if own.warmup_steps else 0.0
        return Schedule(config.lr, config.schedule, config.epochs, steps, config.milestones, config.gamma, epochs, share)

    def check_parts(self, smallest: int) -> None:
        """A part of one image will do: its maps have many places."""

    def carried(self) -> Tensor | None:
        return carried_scenes(self.config, self.images.data.test)

    def test(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> list[DetectionResult]:
        config = self.config
        batches: Iterable[Any] = self.unreadable.note_left_out(self.images.testing())
        return evaluate_detector(
            network,
            self.settings,
            plans,
            batches,
            self.processes,
            amp=config.amp,
            channels_last=self.trainer.channels_last,
        )

    def proof(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan], carried: Tensor | None = None) -> list[str]:
        """By the images that the checkpoint carries, or by what `slimexport` draws; precision is of the same scenes."""
        return ["--accuracy-data", SCENES] if self.config.data == SCENES else []

    def calibrate(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
        """Statistics of `plans` from training images: norms are in what comes before regions."""
        calibrate_detector(network, plans, self.images, self.processes, self.trainer.channels_last)


def calibrate_detector(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    images: DetectionImages | Any,
    processes: Processes,
    channels_last: bool = False,
) -> None:
    """Give `plans` of a detector the statistics of training images, augmented as in training."""
    calibrate_on(
        network,
        plans,
        images.calibrating(),
        processes,
        channels_last=channels_last,
        sync_norm=images.config.sync_norm,
        forward=Halves(network).first,
    )
