"""A whole search (arXiv 1903.11728): train the network to slim, or take one; slim it on held-out training images; write what
was found. Killed anywhere and resumed, it ends with the same plans.

    config.yml                what was asked for
    supernet/                 the training run of the network to slim, unless one was given
    search.json, trace.csv, candidates.csv, trace.png
    plans/macs_150M.yml       a plan per target

With `search_finish` the found networks are then trained, tested and exported, see finishing.py.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from slimtrain.base.errors import UserError
from slimtrain.base.files import RUN, remove_partials, write_atomically
from slimtrain.base.text import table
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config, dump_config, plain
from slimtrain.config.reading import read_config
from slimtrain.config.rules import is_any
from slimtrain.config.run_folder import LAST, RESOLVED
from slimtrain.costs.cost import format_macs
from slimtrain.costs.cost_model import CostModel, LatencyCost, format_cost
from slimtrain.models.plan_file import write_plan_file
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.checks import cautions, check_request, module_of
from slimtrain.search.finishing import finish, stem_facts
from slimtrain.search.greedy import SearchOutcome, run_search
from slimtrain.search.kinds import Kind, OpenedWithData, kind_of
from slimtrain.search.plot import plot_search
from slimtrain.search.request import SearchRequest, search_folder
from slimtrain.search.slimming import Slimming
from slimtrain.search.supernet import held_out
from slimtrain.search.trace import Trace
from slimtrain.slimmable.ordinary import ordinary_torch
from slimtrain.training.distributed import Processes, processes
from slimtrain.training.fitting import fitted, fitted_for_searching, resumed_batch
from slimtrain.training.resume import check_settings, claimed_run, move_aside

log = logging.getLogger(__name__)

CALIBRATION_BATCHES = 5  # where the configuration, for networks that need none, names none


@ordinary_torch()
def search(
    config: Config,
    *,
    ckpt: str | Path | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    weights: str | None = None,
) -> list[Path]:
    """Find a network for every target of `config.search_targets`, as `python -m slimtrain search` does; the plan files that
    were written, by descending target.

    `ckpt` is a trained us_ network to slim (`weights` names one of several sets of weights in it); without one `config`'s
    is trained first. `output_dir` is the search's folder, by default beside the one that `config` trains in; with `resume`
    what it holds is gone on with, else moved aside. Progress is printed. In a process that `torchrun` started the work is
    shared with the others.

    Raises UserError and its subclasses for anything wrong with configuration, checkpoint, targets, data or files.
    """
    folder = Path(output_dir) if output_dir else search_folder(config)
    request = SearchRequest(config, folder, None if ckpt is None else str(ckpt), weights=weights)
    with processes(config.device) as joined:
        outcomes = run_whole_search(request, joined, resume=resume)
    return [request.plan_file(outcome.plan.name) for outcome in outcomes]


def run_whole_search(request: SearchRequest, processes: Processes, *, resume: bool) -> list[SearchOutcome]:
    """Do what `request` says, from training to plan files; what was found, by descending target.

    With `resume` the folder's own run is gone on with, else it is moved aside. UserError and its subclasses for anything
    wrong with configuration, checkpoint, targets, data or files.
    """
    kind = kind_of(request.config)
    module = kind.module(request.supernet)
    request = _fitted(request, module, processes, resume)
    opened = None if request.ckpt is None else kind.opened(request.supernet, processes, request.ckpt, request.weights)
    check_request(request, None if opened is None else opened[0], module)
    request = _with_search_batch(request, opened, module, processes, resume)
    processes.wait()  # a checkpoint may lie in the folder that is moved
    with claimed_run(request.folder, processes):
        return _search(request, processes, opened, resume)


def _search(request: SearchRequest, processes: Processes, opened: OpenedWithData | None, resume: bool) -> list[SearchOutcome]:
    """What `run_whole_search` does in its folder."""
    _begin(request, processes, resume)
    checkpoint, config, data = opened or _trained(request, processes, resume)
    if request.ckpt is not None and processes.first:
        for caution in cautions(checkpoint, request.supernet):
            log.warning("%s: %s", checkpoint.file, caution)
    outcomes, cost = _slim(request, config, processes, checkpoint, data, resume)
    if processes.first:
        click.echo(outcome_table(outcomes, cost, by_loss=request.by_loss))
    if request.config.search_finish:
        finish(request, checkpoint.spec, cost, outcomes, processes, config.image_size)
    elif processes.first:
        click.echo(request.next_command(module_of(checkpoint)))
    return outcomes


def _fitted(request: SearchRequest, module: WidthSpec | None, processes: Processes, resume: bool) -> SearchRequest:
    """The request with the batch that the training of the network to slim can have, which is the largest of its trainings; one
    that is gone on with keeps its own. ResourceError where that does not fit."""
    config, begun = request.config, request.folder / RESOLVED
    if is_any(config.network) and module is None and request.ckpt is not None:  # nothing is trained
        return request
    if resume and begun.exists():
        return dataclasses.replace(request, config=resumed_batch(config, plain(read_config(str(begun)))))
    data = kind_of(config).data(request.supernet)
    spec = module or request.supernet.spec(len(data.classes))
    fits, lines = fitted(request.supernet, spec, len(data.train), processes)
    for line in lines if processes.first else ():
        click.echo(line)
    changed = {key: getattr(fits, key) for key in ("batch_size", "lr", "calibration_batches", "fit_batch")}
    return dataclasses.replace(request, config=dataclasses.replace(config, **changed))


def _with_search_batch(
    request: SearchRequest,
    opened: OpenedWithData | None,
    module: WidthSpec | None,
    processes: Processes,
    resume: bool,
) -> SearchRequest:
    """The request with a batch that the search in the network to slim can have; one that is gone on with keeps its own, on
    which its figures depend. ResourceError where one that was asked for does not fit."""
    config, begun = request.config, request.folder / RESOLVED
    if resume and begun.exists() and (kept := config.search_batch or read_config(str(begun)).search_batch):
        return dataclasses.replace(request, config=dataclasses.replace(config, search_batch=kept))
    kind = kind_of(config)
    data = kind.data(request.supernet) if opened is None else opened[2]
    spec = opened[0].spec if opened is not None else module or request.supernet.spec(len(data.classes))
    size = config.image_size if opened is None else opened[1].image_size
    settings = dataclasses.replace(request.supernet, image_size=size)  # whose test_batch_size nobody has fitted silently
    images = config.search_images or len(_kept_for_search(kind, config, data.test))
    fits, lines = fitted_for_searching(settings, spec, images, processes)
    for line in lines if processes.first else ():
        click.echo(line)
    return dataclasses.replace(request, config=dataclasses.replace(config, search_batch=fits.search_batch))


def _begin(request: SearchRequest, processes: Processes, resume: bool) -> None:
    """Make the folder; a search that is not gone on with is moved aside."""
    folder = request.folder
    if resume and (folder / LAST).exists():
        raise UserError(f"{folder}: holds a training run, no search to go on with. Choose another output_dir.")
    if processes.first:
        moved = None if resume else move_aside(folder)
        if moved:
            click.echo(f"{folder} held a run already: it is now {moved}")
        remove_partials(folder)
        if not (folder / RESOLVED).exists():
            config = dataclasses.replace(request.config, output_dir=str(folder))
            write_atomically(folder / RESOLVED, dump_config(config).encode(), RUN)
    processes.wait()


def _trained(request: SearchRequest, processes: Processes, resume: bool) -> OpenedWithData:
    """The network to slim, and the data: the one in the folder where it is finished, else training begins or goes on."""
    config, kind = request.supernet, kind_of(request.config)
    path = Path(config.output_dir) / config.weights
    if not (resume and path.exists()):
        kind.train(dataclasses.replace(config, resume="auto" if resume else "none"), processes)
        processes.wait()  # the first process writes it last
    opened = kind.opened(config, processes, str(path))
    check_settings(path, opened[0].settings, config)
    return opened


def _slim(
    request: SearchRequest, config: Config, processes: Processes, checkpoint: Checkpoint, data: Any, resume: bool
) -> tuple[list[SearchOutcome], CostModel]:
    """What slimming a checkpoint finds, written as plans. `data.test` are all images that its training left out."""
    spec, kind = checkpoint.spec, kind_of(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    slimming = Slimming(spec, config.search_groups)
    counted = kind.counted(spec, config.image_size)
    cost = request.cost(counted, config.image_size)
    if isinstance(cost, LatencyCost) and processes.first:
        click.echo(f"latencies are those of {cost.table.describe()}")
    config = dataclasses.replace(config, search_batch=request.config.search_batch)
    say = click.echo if processes.first else log.debug
    images = kind.drawn(_kept_for_search(kind, request.config, data.test), config.search_images, config.seed, say)
    calibration = _calibration(kind, config, data) if config.search_statistics == "calibrated" else None
    evaluator = kind.evaluator(checkpoint.network, config, images, calibration, processes)
    trace = Trace(request.folder, resume=resume, write=processes.first)
    outcomes = run_search(
        checkpoint.network,
        slimming,
        cost,
        request.targets,
        evaluator,
        image_size=config.image_size,
        criterion=config.search_criterion,
        seed=config.seed,
        trace=trace,
        say=say,
        counted=counted,
    )
    if processes.first:
        plot_search(request.folder, trace.steps, cost, outcomes, percent=evaluator.percent)
        for outcome in outcomes:
            write_plan_file(
                request.plan_file(outcome.plan.name),
                spec,
                outcome.plan,
                config.image_size,
                outcome,
                **stem_facts(spec),
                target=_whole(outcome.target),
                cost=_whole(outcome.cost),
                unit=cost.unit,
                **({"error_percent": outcome.error} if evaluator.percent else {}),
                loss=outcome.loss,
                images=outcome.images,
                criterion=config.search_criterion,
                statistics=config.search_statistics,
                step=outcome.step,
                searched={"file": checkpoint.file, "sha256": checkpoint.sha256},
            )
    return outcomes, cost


def _kept_for_search(kind: Kind, config: Config, test: Any) -> Any:
    """Of the images held out those that no test of what is found will use."""
    count, before = held_out(config)
    return test if count < 1 else kind.part(test, before, before + int(count))


def _whole(value: float) -> float:
    """A count without its point, as a person writes it."""
    return int(value) if value.is_integer() else value


def _calibration(kind: Kind, config: Config, data: Any) -> Any:
    """Training images for the statistics of candidates, none of those that measure them."""
    count = min((config.calibration_batches or CALIBRATION_BATCHES) * config.search_batch, len(data.train))
    return kind.drawn(data.train, count, config.seed, log.debug)


def outcome_table(outcomes: Sequence[SearchOutcome], cost: CostModel, by_loss: bool = False) -> str:
    """One line per found network. `by_loss`: errors are losses."""
    own = cost.name not in ("macs", "params")  # these have columns of their own
    header = [
        "plan",
        "target",
        *([cost.name] if own else []),
        "MACs",
        "params",
        *([] if by_loss else ["held-out error"]),
        "loss",
    ]
    rows = [
        [
            outcome.plan.name,
            format_cost(outcome.target, cost),
            *([format_cost(outcome.cost, cost)] if own else []),
            format_macs(outcome.macs),
            f"{outcome.params:,}",
            *([] if by_loss else [f"{outcome.error:.2f}%"]),
            f"{outcome.loss:.4f}",
        ]
        for outcome in outcomes
    ]
    return table(header, rows)
