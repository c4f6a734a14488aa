"""A training run, from its configuration to a calibrated, tested checkpoint.

Everything that is drawn depends on the seed and the step alone, and `last.pt` holds all that changes: a run that was
killed anywhere and resumed ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from slimtrain.base.errors import CheckpointError, TrainingError, UserError
from slimtrain.base.files import RUN, remove_partials, write_atomically
from slimtrain.base.text import count
from slimtrain.checkpoints.adopt import adopt
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own import own_content, save
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.config.config import Config, dump_config, plain, run_settings
from slimtrain.config.run_folder import BEST, LAST, RESOLVED
from slimtrain.data.datasets import Data
from slimtrain.data.loader import Batch, steps_per_epoch, test_batches, training_batches
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.sync_norm import OneValueError
from slimtrain.training.calibrating import calibrate_on
from slimtrain.training.clock import Clock
from slimtrain.training.compiling import CompiledForward, check_compiling
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result, evaluate, to_device
from slimtrain.training.gradients import Gradients
from slimtrain.training.inputs import data_of, test_transform_of, train_transform_of
from slimtrain.training.logbook import Logbook, Row
from slimtrain.training.losses import torch_smoothing
from slimtrain.training.optimizer import initialize, learning_rate, sgd
from slimtrain.training.report import export_command, results_table
from slimtrain.training.resume import generators, move_aside, read_run, run_to_resume, set_generators
from slimtrain.training.sampling import Sampler
from slimtrain.training.step import Stepper

log = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps, on a GPU: looking at every loss would make it wait


def train(config: Config, processes: Processes, notes: Sequence[str] = ()) -> Path:
    """Train what `config` says, calibrate and test it; the finished checkpoint's path. `notes` are lines for the log, of
    what the configuration was made of.

    Raises UserError and its subclasses for anything wrong with configuration, data or files, TrainingError where the
    loss is no longer finite.
    """
    resumed = run_to_resume(config) if config.resume not in ("none", "") else None
    run = Run(config, processes, data_of(config))
    if resumed is not None:
        run.restore(*resumed)
    elif config.pretrained:
        adopt(run.network, open_checkpoint(config.pretrained), reset_classifier=config.reset_classifier)
    run.begin(None if resumed is None else resumed[0])
    for note in notes:
        run.logbook.say(note)
    run.train()
    return run.finish()


class Run:
    """The state of a training run on one process."""

    def __init__(self, config: Config, processes: Processes, data: Data) -> None:
        self.config, self.processes, self.data = config, processes, data
        self.folder = Path(config.output_dir)
        self.spec = config.spec(len(data.classes))
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.network = SlimmableNetwork(self.spec)
        initialize(self.network, config.seed)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network.to(processes.device, memory_format=layout)  # type: ignore[call-overload]
        self.network.synchronize(config.sync_norm and processes.world > 1)
        self.sampler = Sampler(self.spec, config.seed, config.sandwich, config.nonuniform, config.width_step)
        gradients = Gradients(self.network, self.sampler.count, processes, config.sync_norm)
        forward = None
        if config.compile:
            check_compiling(config.sync_norm and processes.world > 1)
            grid = [self.spec.plan(width) for width in self.sampler.grid]
            forward = CompiledForward(self.network, [*self.sampler.fixed, *grid])
        self.optimizer = sgd(self.network, config.lr, config.momentum, config.nesterov, config.weight_decay)
        self.stepper = Stepper(
            self.network,
            self.optimizer,
            gradients,
            smoothing=config.label_smoothing,
            distill=config.distill,
            amp=config.amp,
            parts=config.accumulate,
            forward=forward,
        )
        self.averaged: AveragedModel | None = None
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.steps = steps_per_epoch(len(data.train), config.batch_size, config.drop_last)
        self.step = 0  # steps done
        self.rows: list[Row] = []
        self.best = math.inf
        self.loss_sums = torch.zeros(self.sampler.count, dtype=torch.float64)  # of this epoch's steps, per plan
        self.unchecked: list[tuple[int, torch.Tensor]] = []
        self.unreadable: set[str] = set()
        self.logbook = Logbook(None)
        self._check()

    def _check(self) -> None:
        """What can be told before the first image is read."""
        config = self.config
        torch_smoothing(config.label_smoothing, self.spec.classes)
        shortest = config.batch_size
        if not config.drop_last and len(self.data.train) % config.batch_size:
            shortest = len(self.data.train) % config.batch_size
        if shortest // self.processes.world < config.accumulate:
            raise UserError(
                f"accumulate {config.accumulate}: a batch of {shortest} images over {self.processes.world} processes leaves "
                "parts without images. Lower accumulate, or raise batch_size."
            )
        alone = shortest // self.processes.world // config.accumulate == 1
        if alone and config.image_size <= self.spec.stride and not (config.sync_norm and self.processes.world > 1):
            raise self._one_value()  # the last maps are of 1 x 1
        if config.best_by not in ("widest", "narrowest", "mean"):
            wanted = float(config.best_by)
            if wanted not in [plan.width for plan in self.spec.plans]:
                known = ", ".join(number_text(plan.width or 0) for plan in self.spec.plans)
                raise UserError(f"best_by {config.best_by}: while training, {known} are tested. Choose one of these.")

    def _one_value(self) -> UserError:
        return UserError(
            f"batch_size {self.config.batch_size}: a part of one image of {self.config.image_size} pixels leaves some norm "
            "one value per channel, which has no variance. Raise batch_size, lower accumulate, or drop an epoch's last, "
            "short batch (drop_last)."
        )

    # ------------------------------------------------------------------------------------------------------ the run

    def begin(self, resumed: Path | None) -> None:
        """Make the folder, and say what is going to happen. Going on with the checkpoint `resumed` of this folder keeps
        what is in it; any other run is moved aside."""
        config, processes = self.config, self.processes
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
        share = config.batch_size / processes.world / config.accumulate
        images = f"{len(self.data.train):,} images to train, {len(self.data.test):,} to test, {len(self.data.classes)} classes"
        self.logbook.say(f"{self.spec.name}, {self._widths()}: {images}")
        self.logbook.say(
            f"batch {config.batch_size} = {count(processes.world, 'process', 'processes')} x "
            f"{count(config.accumulate, 'part')} x {share:g} images, {self.sampler.count} widths each; "
            f"{count(self.steps, 'step')} an epoch, "
            f"{count(config.epochs, 'epoch')}, on {processes.describe()}"
        )
        if resumed is not None:
            self.logbook.say(f"resumed {resumed} after step {self.step}, epoch {self.step / max(self.steps, 1):.2f}")

    def _widths(self) -> str:
        if self.spec.family == "us":
            return "widths {} to {}".format(*map(number_text, self.spec.range))
        return self.spec.describe_widths()

    def train(self) -> None:
        """All steps that are left."""
        config, processes = self.config, self.processes
        batches = training_batches(
            self.data.train,
            train_transform_of(config),
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            drop_last=config.drop_last,
            start_step=self.step,
            rank=processes.rank,
            world=processes.world,
            workers=config.loaders,
            pin_memory=processes.device.type == "cuda",
        )
        clock = Clock(self.step, config.epochs * self.steps, config.batch_size)
        for batch in clock.watch(batches):
            losses = self.train_step(batch)
            self.note_unreadable(batch)
            clock.done()
            ends = self.step % self.steps == 0
            saves = config.checkpoint_every and self.step % config.checkpoint_every == 0
            if ends or saves or self.step % config.log_every == 0:
                self.check_losses()
            if self.step % config.log_every == 0 and not ends:
                self.logbook.say(self._progress(losses, clock))
            if ends or saves:
                self.check_weights()
            if ends:
                self.end_epoch(clock)
            if ends or saves:
                self.save_last()

    def train_step(self, batch: Batch) -> torch.Tensor:
        """One step; the mean loss of each of its plans [plans]."""
        images, labels = to_device(batch, self.processes, self.config.channels_last)
        plans = self.sampler(batch.step)
        try:
            losses = self.stepper.compute(plans, images, labels, batch.total).clone()
        except OneValueError as error:
            raise self._one_value() from error
        self.unchecked.append((batch.step, losses))
        if self.processes.device.type == "cpu" or len(self.unchecked) >= CHECK_EVERY:
            self.check_losses()
        self.stepper.apply(learning_rate(self.config, batch.step, self.steps))
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.step = batch.step + 1
        return losses

    def check_losses(self) -> None:
        """TrainingError where a loss since the last look was not finite. Nothing is saved before this look."""
        for step, losses in self.unchecked:
            found = losses.double().cpu()
            self.loss_sums += found
            if not torch.isfinite(found).all():
                first = int((~torch.isfinite(found)).nonzero()[0])
                plan = self.sampler(step)[first]
                where = f"plan {plan.name}" if plan.width is None else f"width {number_text(plan.width)}"
                raise TrainingError(
                    f"step {step} (epoch {step // self.steps}): the loss at {where} is {found[first].item()}, expected a "
                    f"finite number. Training stopped. {self._advice(step)}"
                )
        self.unchecked.clear()

    def check_weights(self) -> None:
        """TrainingError where weights are not finite: a step may spoil them although its losses were finite."""
        named = list(self.network.named_parameters())
        sums = torch.stack([parameter.detach().sum() for _, parameter in named]).cpu()
        if not torch.isfinite(sums).all():
            name = named[int((~torch.isfinite(sums)).nonzero()[0])][0]
            raise TrainingError(
                f"step {self.step - 1} (epoch {(self.step - 1) // self.steps}): {name} is no longer finite. Training stopped, "
                f"nothing was saved over. {self._advice(self.step - 1)}"
            )

    def _advice(self, step: int) -> str:
        """What to do about a training that diverged."""
        last = self.folder / LAST
        kept = "Begin again" if not last.exists() else f"{last} holds the last good state: go on with --resume auto"
        rate = learning_rate(self.config, step, self.steps)
        return f"{kept}, and lower lr (the step's was {rate:.4g}) or lengthen warmup_epochs."

    def note_unreadable(self, batch: Batch) -> None:
        """Name every unreadable image once."""
        for name in batch.unreadable:
            if name not in self.unreadable:
                self.unreadable.add(name)
                log.warning("%s: cannot be read, another image takes its place (%d so far)", name, len(self.unreadable))

    def shown(self, losses: Sequence[float]) -> str:
        """A loss per plan of a step, in the sampler's order."""
        names = [number_text(plan.width or 0) for plan in self.sampler.fixed]
        names += ["drawn"] * (self.sampler.count - len(names))
        return ", ".join(f"{name}: {loss:.3f}" for name, loss in zip(names, losses, strict=True))

    def _progress(self, losses: torch.Tensor, clock: Clock) -> str:
        epoch = (self.step - 1) // self.steps + 1
        position = (self.step - 1) % self.steps + 1
        rate = learning_rate(self.config, self.step - 1, self.steps)
        return (
            f"epoch {epoch}/{self.config.epochs} step {position}/{self.steps}  loss {self.shown(losses.tolist())}  "
            f"lr {rate:.4g}  {clock.describe(self.step)}"
        )

    # -------------------------------------------------------------------------------------------- testing and saving

    @property
    def tested(self) -> SlimmableNetwork:
        """The network that is tested and shipped: the averaged one, where there is one."""
        if self.averaged is None:
            return self.network
        module = self.averaged.module
        assert isinstance(module, SlimmableNetwork)
        return module

    def test(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> list[Result]:
        """Results of `plans` on the test images."""
        config, processes = self.config, self.processes
        batches = test_batches(
            self.data.test,
            test_transform_of(config),
            batch_size=config.test_batch_size or config.batch_size,
            rank=processes.rank,
            world=processes.world,
            workers=config.loaders,
            pin_memory=processes.device.type == "cuda",
        )
        results = evaluate(
            network, plans, self._noting(batches), processes, amp=config.amp, channels_last=config.channels_last
        )
        if not results[0].images:
            raise UserError("there are no readable images to test with.")
        return results

    def _noting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            for name in set(batch.unreadable) - self.unreadable:
                self.unreadable.add(name)
                log.warning("%s: cannot be read, left out of the test", name)
            yield batch

    def end_epoch(self, clock: Clock) -> None:
        """Test, where it is time to; keep the figures, and the best network."""
        config = self.config
        epoch = self.step // self.steps
        means = (self.loss_sums / self.steps).tolist()
        self.loss_sums.zero_()
        clock_text = clock.describe(self.step)
        rate = learning_rate(config, self.step - 1, self.steps)
        head = f"epoch {epoch}/{config.epochs}  lr {rate:.4g}  {clock_text}"
        if not (config.test_every and epoch % config.test_every == 0) and epoch < config.epochs:
            self.logbook.say(f"{head}  loss {self.shown(means)}")
            return
        plans = sorted(self.spec.plans, key=lambda plan: plan.width or 0)
        results = self.test(self.tested, plans)
        trained = dict(zip(self.sampler.fixed, means, strict=False))
        for plan, result in zip(plans, results, strict=True):
            self.rows.append(
                {
                    "epoch": epoch,
                    "step": self.step,
                    "plan": plan.name,
                    "width": plan.width or 0,
                    "train_loss": trained[plan],
                    "loss": result.loss,
                    "top1": result.top1,
                    "top5": result.top5,
                    "lr": rate,
                    "images_per_s": round(clock.images_per_s(self.step), 1),
                    "data_wait": round(clock.waiting, 4),
                }
            )
        self.logbook.say(f"{head}\n{results_table(plans, results, [trained[plan] for plan in plans])}")
        error = self._error(plans, results)
        if error < self.best:
            self.best = error
            if self.processes.first:
                save(self._content(self.tested), self.folder / BEST)
        clock.restart(self.step)

    def _error(self, plans: Sequence[ChannelPlan], results: Sequence[Result]) -> float:
        """The error that `best.pt` follows."""
        errors = {plan.width: 1 - result.top1 for plan, result in zip(plans, results, strict=True)}
        rule = self.config.best_by
        if rule == "mean":
            return sum(errors.values()) / len(errors)
        if rule in ("widest", "narrowest"):
            by_size = sorted(plans, key=lambda plan: sum(plan.channels.values()))
            return errors[by_size[-1 if rule == "widest" else 0].width]
        return errors[float(rule)]

    def _content(self, network: SlimmableNetwork, training: dict[str, Any] | None = None) -> dict[str, Any]:
        config = self.config
        images = config.image_size, config.mean, config.std, self.data.classes
        return own_content(network, *images, training, run_settings(config))

    def save_last(self) -> None:
        """Write `last.pt`: all that a resumed run needs."""
        self.logbook.record(self.rows, self.step)
        if not self.processes.first:
            return
        training = {
            "step": self.step,
            "config": plain(self.config),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            "generators": generators(self.processes.device),
            "loss_sums": self.loss_sums,
            "rows": self.rows,
            "best": self.best,
        }
        save(self._content(self.network, training), self.folder / LAST)

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        """Go on from the content of a `last.pt`. CheckpointError where it is of another network or damaged."""
        network, training = read_run(path, content, self.config, self.spec)
        self.network.load_state_dict(network.state_dict())
        try:
            self.optimizer.load_state_dict(training["optimizer"])
            if training["scaler"]:  # empty where the run so far did without one
                self.stepper.scaler.load_state_dict(training["scaler"])
            if self.averaged is not None:
                self.averaged.load_state_dict(training["ema"])
            self.loss_sums.copy_(training["loss_sums"])
            self.step, self.rows, self.best = int(training["step"]), list(training["rows"]), float(training["best"])
            if training["config"].get("best_by") != self.config.best_by:
                self.best = math.inf  # of another width's errors
            set_generators(training["generators"], self.processes.device)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: its training state is damaged ({error}). Take another checkpoint.") from error

    # ----------------------------------------------------------------------------------------------------- the end

    def finish(self) -> Path:
        """Calibrate, test every width, write the finished checkpoint, and say how to export it."""
        config = self.config
        network = self.tested
        plans = list(self.spec.plans)
        wanted = [self.spec.plan(width) for width in config.test_widths]
        if config.calibration_batches:
            plans = sorted(dict.fromkeys([*plans, *wanted]), key=lambda plan: plan.width or 0)
            self.logbook.say(f"calibrating {len(plans)} widths over {config.calibration_batches} batches")
            self.calibrate(network, plans)
        elif wanted:
            log.warning("calibration_batches is 0: test_widths have no statistics, and are not tested")
        plans.sort(key=lambda plan: plan.width or 0)
        results = self.test(network, plans)
        path = self.folder / (config.weights or f"{self.spec.name}.pt")
        if self.processes.first:
            if config.layout == "published":
                save(published_content(network), path)
            else:
                save(self._content(network), path)
        self.logbook.say(f"{path}, on {results[0].images} test images\n{results_table(plans, results)}")
        if self.unreadable:
            self.logbook.say(f"{len(self.unreadable)} images could not be read")
        self.logbook.say(export_command(config, path, plans))
        return path

    def calibrate(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
        """Statistics of `plans` from training images, augmented as in training."""
        calibrate_on(self.data, self.config, self.processes, network, plans)
