"""The measurements behind `benchmarks.studies.search_statistics`: plans by the supernet's figures and by training them
alone, and what the search's choices lose.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.cells.rank_statistics import mean_interval
from benchmarks.cells.statistics import rank_correlation
from benchmarks.measure.progress import Say
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import CostModel
from slimtrain.data.datasets import Data
from slimtrain.data.samples import PartSamples, Samples
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import write_plan_file
from slimtrain.search.checks import cautions
from slimtrain.search.evaluator import Evaluator
from slimtrain.search.from_plans import plans_config
from slimtrain.search.greedy import CandidateScore, Option, choose
from slimtrain.search.held_out import HeldOut, draw_images
from slimtrain.search.request import PLANS
from slimtrain.search.slimming import Slimming
from slimtrain.search.supernet import supernet_config, with_epochs
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result
from slimtrain.training.inputs import data_of, test_transform_of
from slimtrain.training.run import Run
from slimtrain.training.testing import open_with_data

KEPT_BYTES = 2**30
LARGE = 300  # images of a chunk, where the result hardly depends on it


@dataclass(frozen=True)
class Way:
    """How statistics are taken: `batch` in chunks of `images` held-out images, or `calibrated` over `images` training
    images; 0 is all of them."""

    statistics: str
    images: int

    @property
    def name(self) -> str:
        return f"{self.statistics} {self.images or 'all'}"


@dataclass(frozen=True)
class Setting:
    """A trained supernet with its images: `data.train` trained it, `data.test` are held out of these; `unseen` are the data's
    own test images, which neither training nor search has seen. `config` is that of its training."""

    checkpoint: Checkpoint
    config: Config
    data: Data
    unseen: Samples
    processes: Processes

    def evaluator(self, way: Way, samples: Samples | None = None) -> Evaluator:
        """What measures plans on `samples`, by default the held-out images, as the search does it."""
        transform, seed = test_transform_of(self.config), self.config.seed
        images = draw_images(self.data.test if samples is None else samples, 0, seed)
        calibration = None
        if way.statistics == "calibrated":
            taken = draw_images(self.data.train, min(way.images, len(self.data.train)), seed)
            calibration = HeldOut(taken, transform, LARGE, kept_bytes=KEPT_BYTES)
        size = LARGE if calibration is not None else way.images or len(images)
        return Evaluator(
            self.checkpoint.network,
            HeldOut(images, transform, size, kept_bytes=KEPT_BYTES),
            self.processes,
            statistics=way.statistics,
            calibration=calibration,
            channels_last=bool(self.config.channels_last),
        )

    def halves(self) -> list[Samples]:
        """The held-out images in two halves that share none."""
        order = draw_images(self.data.test, 0, self.config.seed)
        return [PartSamples(order, np.arange(part, len(order), 2)) for part in (0, 1)]


def open_setting(config: Config, ckpt: Path, processes: Processes) -> Setting:
    """The supernet at `ckpt` and the images it was trained and is measured on. UserError for one that was trained in another
    way, or on images that are held out here."""
    checkpoint, opened, data = open_with_data(supernet_config(config, Path("unused")), processes, str(ckpt))
    if said := cautions(checkpoint, opened):
        raise UserError(f"{checkpoint.file}: {said[0]}")
    unseen = data_of(dataclasses.replace(opened, holdout=0)).test
    return Setting(checkpoint, opened, data, unseen, processes)


def by_supernet(setting: Setting, plans: Sequence[ChannelPlan], ways: Sequence[Way]) -> dict[str, Any]:
    """Per way, percent and mean cross entropy of every plan on the held-out images, and how well the rankings on its two
    halves agree."""
    start, halves, by_way = setting.checkpoint.spec.widest, setting.halves(), {}
    for way in ways:
        whole = setting.evaluator(way)(start, plans)
        first, second = (setting.evaluator(way, half)(start, plans) for half in halves)
        by_way[way.name] = {
            "error": [figure.error for figure in whole],
            "loss": [figure.loss for figure in whole],
            "halves_agree_by_error": rank_correlation([figure.error for figure in first], [figure.error for figure in second]),
            "halves_agree_by_loss": rank_correlation([figure.loss for figure in first], [figure.loss for figure in second]),
        }
    return by_way


def by_training(
    setting: Setting, config: Config, plans: Sequence[ChannelPlan], seeds: Sequence[int], epochs: int, folder: Path, say: Say
) -> dict[str, list[list[float]]]:
    """Error in percent and mean cross entropy on the unseen images, per seed and plan, of every plan trained alone and from
    scratch on the images that trained the supernet, for `epochs` with the rest of `config`."""
    spec = setting.checkpoint.spec
    by_seed: dict[str, list[list[float]]] = {"error": [], "loss": []}
    base = dataclasses.replace(
        with_epochs(config, epochs),
        test_every=0,
        threads=setting.config.threads,
        output_dir=str(folder / "run"),
        weights="",
    )
    count = CostCounter(spec, config.image_size)
    for plan in plans:
        write_plan_file(folder / PLANS / f"{plan.name}.yml", spec, plan, config.image_size, count(plan))
    data = Data(setting.data.train, setting.unseen, setting.data.classes)
    for seed in seeds:
        results: list[Result] = []
        began = time.perf_counter()
        for number, plan in enumerate(plans, 1):
            alone, _ = plans_config(base, folder / PLANS, plan.name)
            with contextlib.redirect_stdout(io.StringIO()):
                run = Run(dataclasses.replace(alone, seed=seed), setting.processes, data)
                run.begin(None)
                run.train()
                run.finish()
            results += run.test(run.trainer.tested, run.spec.plans)
            loss = results[-1].figures["loss"]
            say(
                f"trained {plan.name}, seed {seed}: error {100 * results[-1].error:.2f} %, loss {loss:.4f} "
                f"({(time.perf_counter() - began) / number:.1f} s each)"
            )
        by_seed["error"].append([100 * result.error for result in results])
        by_seed["loss"].append([result.figures["loss"] for result in results])
    return by_seed


def steps_compared(
    setting: Setting,
    slimming: Slimming,
    cost: CostModel,
    plans: Sequence[ChannelPlan],
    ways: Sequence[Way],
    references: Mapping[str, Evaluator],
    resamples: int,
) -> dict[str, Any]:
    """Per way, what the search's steps from `plans` would choose, judged by `references`, measured on other images.

    `agreement`: rank correlation with the reference over a step's candidates; `regret`: the reference's figure of the chosen
    one over that of the best. Means over steps, with 95 % intervals; `above`: how far above the first way's, step by step.
    `seconds` are per candidate.
    """
    candidates = {plan: slimming.steps(plan) for plan in plans}
    right = {name: {plan: evaluator(plan, candidates[plan]) for plan in plans} for name, evaluator in references.items()}
    figures: dict[str, Any] = {}
    for way in ways:
        evaluator = setting.evaluator(way)
        evaluator(plans[0], [plans[0]])  # not counted: images are opened
        seconds, measured = 0.0, {}
        for plan, steps in candidates.items():
            began = time.perf_counter()
            measured[plan] = evaluator(plan, steps)
            seconds += time.perf_counter() - began
        figures[way.name] = {"seconds": round(seconds / sum(map(len, candidates.values())), 5)}
        chosen = [_chosen(plan, candidates[plan], measured[plan], cost) for plan in plans]
        for name, reference in right.items():
            figures[way.name][name] = judged(
                [measured[plan] for plan in plans], [reference[plan] for plan in plans], chosen, resamples
            )
    add_differences(figures, list(right), ways[0].name, resamples)
    by_chance = {
        name: {
            kind: fmean(fmean(_figures(step, kind)) - min(_figures(step, kind)) for step in reference.values())
            for kind in ("error", "loss")
        }
        for name, reference in right.items()
    }
    return {"steps": len(plans), "ways": figures, "regret_by_chance": by_chance}


def _chosen(plan: ChannelPlan, steps: Sequence[ChannelPlan], measured: Sequence[CandidateScore], cost: CostModel) -> int:
    """The number of the candidate that the published rule goes to."""
    options = [Option(step, cost(step), figure.error, figure.loss) for step, figure in zip(steps, measured, strict=True)]
    current = Option(plan, cost(plan), 0.0, 0.0)  # of which the rule takes no figure
    return options.index(choose(current, options, "error", list(plan.channels)))


def judged(
    measured: Sequence[Sequence[CandidateScore]],
    right: Sequence[Sequence[CandidateScore]],
    chosen: Sequence[int],
    resamples: int,
) -> dict[str, Any]:
    """Agreement and regret, as in `steps_compared`, from the figures of every step's candidates, ours and the reference's,
    and the number of the candidate chosen."""
    judgement: dict[str, Any] = {}
    for kind in ("error", "loss"):
        pairs = [(_figures(ours, kind), _figures(theirs, kind)) for ours, theirs in zip(measured, right, strict=True)]
        agreement = [rank_correlation(ours, theirs) or 0.0 for ours, theirs in pairs]
        regret = [theirs[number] - min(theirs) for (_, theirs), number in zip(pairs, chosen, strict=True)]
        for name, values in (("agreement", agreement), ("regret", regret)):
            judgement[f"{name}_{kind}"] = fmean(values)
            judgement[f"{name}_{kind}_interval"] = mean_interval(values, resamples=resamples, seed=0)
            judgement[f"{name}_{kind}_steps"] = values
    return judgement


def add_differences(figures: dict[str, Any], references: Sequence[str], base: str, resamples: int) -> None:
    """Add to the figures of every way how far they are above those of the way `base` on the same steps."""
    for way in figures.values():
        for reference in references:
            ours, theirs = way[reference], figures[base][reference]
            for key in [key.removesuffix("_steps") for key in ours if key.endswith("_steps")]:
                values = [a - b for a, b in zip(ours[f"{key}_steps"], theirs[f"{key}_steps"], strict=True)]
                ours[f"{key}_above"] = fmean(values)
                ours[f"{key}_above_interval"] = mean_interval(values, resamples=resamples, seed=0)


def _figures(measured: Sequence[CandidateScore], kind: str) -> list[float]:
    return [getattr(figure, kind) for figure in measured]
