"""A training run, from its configuration to a calibrated, tested checkpoint.

Everything that is drawn depends on the seed and the step alone, and `last.pt` holds all that changes: a run that was
killed anywhere and resumed ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.base.files import RUN, remove_partials, write_atomically
from slimtrain.base.image_size import sides
from slimtrain.base.text import count
from slimtrain.base.threads import advice as spinning_advice
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_configured
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config, dump_config, run_settings
from slimtrain.config.run_folder import BEST, LAST, PROBE_FOLDER, RESOLVED
from slimtrain.data.datasets import Data
from slimtrain.data.loader import shortest_batch, steps_per_epoch
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import ordinary_torch
from slimtrain.slimmable.sync_norm import OneValueError
from slimtrain.tracing.starting import Start, spec_of, starting
from slimtrain.training import distributed
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result, calibrate_on, check_followed, evaluate, followed_error, logit_spread
from slimtrain.training.fitting import fitted, resumed, started
from slimtrain.training.health import Health, one_value_error, smallest_part
from slimtrain.training.inputs import (
    Images,
    RunImages,
    UnreadableImages,
    carried_images,
    data_of,
    normalized,
)
from slimtrain.training.optimizer import Schedule
from slimtrain.training.records.curves import draw_curves
from slimtrain.training.records.logbook import Clock, EpochBar, Logbook
from slimtrain.training.report import (
    LOSS,
    USUAL,
    describe_epoch,
    describe_losses,
    describe_parts,
    describe_run,
    describe_step,
    export_command,
    probes_for,
    results_table,
    summary_rows,
)
from slimtrain.training.resume import (
    RunState,
    check_classes,
    claimed_run,
    finished_content,
    lengthened,
    move_aside,
    network_content,
    restore,
    run_to_resume,
    training_state,
)
from slimtrain.training.step import split_losses, torch_smoothing
from slimtrain.training.trainer import Trainer

log = logging.getLogger(__name__)

TELLING = 0.015  # of logits' scale: what images must differ by; slimexport asks for 0.01
NO_FEATURES = (
    "no pretrained weights: training begins with random ones, which takes many more images and epochs than a trained network "
    "does. Give one: --pretrained CHECKPOINT."
)


@ordinary_torch()
def train(config: Config, processes: Processes | None = None, notes: Sequence[str] = ()) -> Path:
    """Train the classifier that `config` says, calibrate and test it; the finished checkpoint's path. `processes`, `notes` and
    errors as of `slimtrain.train`."""
    if processes is None:
        with distributed.processes(config.device) as joined:
            return train(config, joined, notes)
    last = run_to_resume(config.resume, Path(config.output_dir), config.pretrained)
    if last is not None:
        config = resumed(config, last[1]["training"]["config"])
    data = data_of(config)
    start = starting(config, len(data.classes), None if last is None else last[1])
    config, lines = fitted(config, spec_of(config, len(data.classes), start), len(data.train), processes)
    config, line = started(config)
    lines.append(line)
    run = Run(config, processes, data, start)
    if last is not None:
        run.restore(*last)
    elif start is not None and start.loaded:
        lines += [start.line, run.described_teacher(Path(config.pretrained).name)]
    elif config.pretrained:
        lines.append(run.start_from(open_pretrained(config)))
    elif config.reset_classifier:
        lines.append(NO_FEATURES)
    return run.conduct(last, (*lines, *notes))


def open_pretrained(config: Config) -> Checkpoint:
    """The checkpoint that a run starts from. CheckpointError for a file that cannot be read."""
    return open_configured(config.pretrained, config, weights=config.pretrained_weights or None)


class Run:
    """A training run on one process: steps, the tests between them, and what is written.

    Its parts: `trainer` changes the network, `images` gives batches, `schedule` the learning rate, `health` looks whether all
    is finite, `state` are the figures so far, `logbook` is where lines go.
    """

    def __init__(self, config: Config, processes: Processes, data: Data, start: Start | None = None) -> None:
        """UserError for what can be told to fail before the first image is read."""
        self.config, self.processes = config, processes
        self.folder = Path(config.output_dir)
        self.images = self.images_of(data)
        self.spec = spec_of(config, len(data.classes), start)
        steps = steps_per_epoch(len(data.train), config.batch_size, config.drop_last)
        self.trainer = self.trainer_of(steps, start)
        self.schedule = self.schedule_of(steps)
        on_cpu = processes.device.type == "cpu"
        self.health = Health(self.trainer.sampler, self.schedule, self.folder / LAST, at_once=on_cpu, parts=self.trainer.parts)
        self.state = RunState()
        self.unreadable = UnreadableImages()
        self.logbook = Logbook(None)
        shortest = shortest_batch(len(data.train), config.batch_size, config.drop_last)
        self.check_parts(smallest_part(shortest, processes.world, config.accumulate))
        check_followed(config.best_by, self.spec.plans)

    # What of a run is a classifier's, and another's with other networks.

    def images_of(self, data: Any) -> Images:
        """Batches of what a data set holds."""
        return RunImages(self.config, data, self.processes)

    def trainer_of(self, steps: int, start: Start | None) -> Trainer:
        """What changes the network, in epochs of so many steps."""
        return Trainer(self.spec, self.config, self.processes, steps, None if start is None else start.network)

    def schedule_of(self, steps: int) -> Schedule:
        """The learning rate of every step, in epochs of so many."""
        config = self.config
        return Schedule(
            config.lr, config.schedule, config.epochs, steps, config.milestones, config.gamma, config.warmup_epochs
        )

    def check_parts(self, smallest: int) -> None:
        """UserError where the losses, or the smallest part that a batch is computed in, cannot be trained on."""
        config, synchronized = self.config, self.config.sync_norm and self.processes.world > 1
        torch_smoothing(config.label_smoothing, self.spec.classes)
        if smallest == 1 and max(sides(config.image_size)) <= self.spec.stride and not synchronized:
            raise one_value_error(config.batch_size, config.image_size)  # the last maps are of 1 x 1

    def carried(self) -> Tensor | None:
        """Test images that the finished checkpoint carries."""
        return carried_images(self.config, self.images.data.test)

    # ------------------------------------------------------------------------------------------------------ the run

    def start_from(self, checkpoint: Checkpoint, classes: Sequence[str] | None = None) -> str:
        """Begin with a checkpoint's weights, whose classes are to be the data's, or these; what `described_teacher` says.
        CheckpointError where they do not fit."""
        config, trainer = self.config, self.trainer
        check_classes(
            checkpoint, self.images.data.classes if classes is None else classes, reset_classifier=config.reset_classifier
        )
        trainer.start_from(checkpoint, reset_classifier=config.reset_classifier)
        return self.described_teacher(checkpoint.file)

    def described_teacher(self, file: str) -> str:
        """What is to be said of a frozen teacher that has the weights of `file`, nothing where there is none. It gets
        statistics where the file lacks them; WidthError where there are no batches for them."""
        config, trainer = self.config, self.trainer
        if trainer.teacher is None:
            return ""
        plan = trainer.teacher.plan
        name = f"{number_text(plan.width or 0)} of {file}"
        line = f"teacher: width {name}, frozen; {config.teacher_share:g} of the loss of every width"
        if not trainer.teacher_lacks_statistics:
            return line
        if not config.calibration_batches:
            remedy = "A frozen teacher needs them: set calibration_batches to take them from training images (as in 20)"
            raise missing_statistics(trainer.network, plan, file, remedy)
        trainer.calibrate_teacher(self.images.calibrating(), self.processes)
        return f"{line}; its batch-norm statistics, which the file lacks, are of {self.images.describe_calibration()}"

    def conduct(self, last: tuple[Path, dict[str, Any]] | None, lines: Sequence[str]) -> Path:
        """All of the run, or what is left of it after the `last` checkpoint, which it was restored from; the finished
        checkpoint's path. `lines` are said before it begins."""
        with claimed_run(self.folder, self.processes):
            self.begin(None if last is None else last[0])
            longer = "" if last is None else lengthened(last[1]["training"]["config"], self.schedule, self.state.step)
            waiting = spinning_advice() if self.processes.device.type == "cpu" else ""
            for line in filter(None, (*lines, longer, waiting)):
                self.logbook.say(line)
            self.train()
            return self.finish()

    def begin(self, resumed: Path | None) -> None:
        """Make the folder, and say what is going to happen. Going on with the checkpoint `resumed` of this folder keeps
        what is in it; any other run is moved aside."""
        config, processes, steps = self.config, self.processes, self.schedule.steps
        processes.wait()  # others may still read a checkpoint in the folder
        if processes.first:
            if resumed is None or resumed.resolve().parent != self.folder.resolve():
                moved = move_aside(self.folder)
                if moved:
                    click.echo(f"{self.folder} held a run already: it is now {moved}")
            remove_partials(self.folder)
            write_atomically(self.folder / RESOLVED, dump_config(config).encode(), RUN)
            self.logbook = Logbook(self.folder, config.tensorboard)
        processes.wait()
        self.logbook.say(describe_run(self.spec, self.images.data, config, processes, self.trainer.sampler.count, steps))
        if resumed is not None:
            step = self.state.step
            self.logbook.say(f"resumed {resumed} after step {step}, epoch {step / max(steps, 1):.2f}")

    def train(self) -> None:
        """All steps that are left."""
        config, schedule = self.config, self.schedule
        clock = Clock(self.state.step, schedule.total, config.batch_size)
        with contextlib.closing(EpochBar(schedule.steps, config.epochs, shown=self.processes.first)) as bar:
            self._steps(clock, bar)

    def _steps(self, clock: Clock, bar: EpochBar) -> None:
        config, schedule, began = self.config, self.schedule, self.state.step
        stages = self.trainer.sampler.stages
        for batch in clock.watch(self.images.training(self.state.step)):
            if stages and (batch.step == began or stages.begins(batch.step)):
                self.logbook.say(stages.describe(batch.step))
            losses = self.train_step(batch)
            bar.advance(self.state.step)
            self.unreadable.note_replaced(batch)
            clock.done()
            step = self.state.step
            ends = step % schedule.steps == 0
            saves = config.checkpoint_every and step % config.checkpoint_every == 0
            logs = step % config.log_every == 0
            if ends or saves or logs:
                self.health.check_losses()
            if logs and not ends:
                self.logbook.say(describe_step(step, schedule, self._described(losses, step - 1), clock))
            if ends or saves:
                self.health.check_weights(self.trainer.network, step - 1)
            if ends:
                self.end_epoch(clock)
            if ends or saves:
                self.save_last()

    def _described(self, losses: Tensor, step: int) -> str:
        """What a step's losses were, or means of some."""
        sampler, names = self.trainer.sampler, self.trainer.parts
        parts = split_losses(losses, len(names))[1][: len(sampler(step))]
        return describe_losses(sampler, losses.tolist(), step) + describe_parts(names, parts)

    def train_step(self, batch: Any) -> Tensor:
        """One step; the mean loss of each of its plans [plans], and what these are sums of."""
        try:
            losses = self.trainer.compute(batch)
        except OneValueError as error:
            raise one_value_error(self.config.batch_size, self.config.image_size) from error
        self.health.note(batch.step, losses)
        self.trainer.apply(self.schedule(batch.step))
        self.state.step = batch.step + 1
        return losses

    # -------------------------------------------------------------------------------------------- testing and saving

    def test(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> Sequence[Result]:
        """What `plans` are worth on the test images."""
        config = self.config
        batches = (batch.labeled for batch in self.unreadable.note_left_out(self.images.testing()))
        scores = evaluate(network, plans, batches, self.processes, amp=config.amp, channels_last=self.trainer.channels_last)
        if not scores[0].images:
            raise UserError("there are no readable images to test with.")
        return scores

    def end_epoch(self, clock: Clock) -> None:
        """Test, where it is time to; keep the figures, and the best network: of those whose widths are all trained."""
        config, schedule, state, trainer = self.config, self.schedule, self.state, self.trainer
        sampler, last = trainer.sampler, state.step - 1
        means = self.health.epoch_means()
        head, epoch = describe_epoch(state.step, schedule, clock), schedule.epoch(state.step)
        if not (config.test_every and epoch % config.test_every == 0) and epoch < config.epochs:
            self.logbook.say(f"{head}  loss {self._described(means, last)}")
            return
        sums, parts = split_losses(means, len(trainer.parts))
        single = [dict(zip(trainer.parts, of_plan, strict=True)) for of_plan in parts.tolist()]
        mean_of = dict(zip(sampler.fixed_at(last), zip(sums.tolist(), single, strict=True), strict=False))
        plans = sorted((plan for plan in self.spec.plans if plan in mean_of), key=lambda plan: plan.width or 0)
        scores = self.test(trainer.tested, plans)
        trained = [{LOSS: mean_of[plan][0], **mean_of[plan][1]} for plan in plans]
        state.rows += summary_rows(state.step, schedule, plans, scores, trained, clock)
        self.logbook.say(f"{head}\n{results_table(plans, scores, trained)}")
        if sampler.trains_all(last):
            self.keep_best(followed_error(config.best_by, plans, scores))
        clock.restart(state.step)

    def keep_best(self, error: float) -> None:
        """Write `best.pt` where the `error` that it follows is smaller than before."""
        if error < self.state.best:
            self.state.best = error
            if self.processes.first:
                save(self._content(self.trainer.tested), self.folder / BEST)

    def _content(self, network: SlimmableNetwork, training: dict[str, Any] | None = None) -> dict[str, Any]:
        settings, averaged = run_settings(self.config), network is not self.trainer.network
        return network_content(network, self.config, self.images.data.classes, training, settings, averaged=averaged)

    def save_last(self) -> None:
        """Write `last.pt`: all that a resumed run needs."""
        self.logbook.record(self.state.rows, self.state.step)
        if self.processes.first:
            training = training_state(self.state, self.health.loss_sums, self.trainer, self.config, self.images.data)
            save(self._content(self.trainer.network, training), self.folder / LAST)

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        """Go on from the content of a `last.pt`. CheckpointError where it is of another network or damaged."""
        restore(path, content, self.config, self.images.data, self.trainer, self.state, self.health.loss_sums)

    # ----------------------------------------------------------------------------------------------------- the end

    def finish(self) -> Path:
        """Calibrate, test every width, write the finished checkpoint, and say how to export it."""
        config, network = self.config, self.trainer.tested
        plans = list(self.spec.plans)
        wanted = [self.spec.plan(width) for width in config.test_widths]
        if config.calibration_batches:
            plans = list(dict.fromkeys([*plans, *wanted]))
            self.logbook.say(f"calibrating {count(len(plans), 'width')} over {self.images.describe_calibration()}")
        elif wanted:
            log.warning("calibration_batches is 0: test_widths have no statistics, and are not tested")
        plans.sort(key=lambda plan: plan.width or 0)
        if config.calibration_batches:
            self.calibrate(network, plans)
        scores = self.test(network, plans)
        path = self.folder / (config.weights or f"{self.spec.name}.pt")
        if self.processes.first:
            images = self.carried()
            rest = (run_settings(config), images, bool(config.ema))
            save(finished_content(network, config, self.images.data.classes, *rest), path)
            if images is not None:
                self.logbook.say(f"{path} carries {count(len(images), 'test image')} for the proof of exports (probe_images)")
        self.logbook.say(f"{path}, on {count(scores[0].images, 'test image')}\n{results_table(plans, scores)}")
        if self.unreadable.names:
            self.logbook.say(f"{count(len(self.unreadable.names), 'image')} could not be read")
        if self.processes.first:
            draw_curves(self.folder, self.state.rows, f"{self.spec.name}, {self.folder.name}")
            proof = self.proof(network, plans, images)
            self.logbook.say(export_command(path, plans, self.spec.name, config.layout, proof))
        return path

    def proof(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan], carried: Tensor | None = None) -> list[str]:
        """How `slimexport` is to verify the files of `plans`: by itself, on the first images that the checkpoint carries, or
        on noise; on all of the former, or on test images, where these say nothing; not at all, where none do."""
        if carried is None:
            samples, folder = self.images.data.test, self.folder / PROBE_FOLDER
            proof = probes_for(self.config, samples, folder, lambda images: logit_spread(network, plans, images) > TELLING)
        else:
            images = normalized(carried, self.config)
            counts = {USUAL: [], len(images): ["--probes", str(len(images))]}
            telling = (words for most, words in counts.items() if logit_spread(network, plans, images[:most]) > TELLING)
            proof = next(telling, None)
        if proof is not None:
            return proof
        self.logbook.say(
            "the network hardly tells images apart, so that no test of its files would show a defect: it needs more training"
        )
        return ["--no-verify"]

    def calibrate(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
        """Statistics of `plans` from training images, augmented as in training."""
        last, synchronized = self.trainer.channels_last, self.config.sync_norm
        batches = self.images.calibrating()
        calibrate_on(network, plans, batches, self.processes, channels_last=last, sync_norm=synchronized)
