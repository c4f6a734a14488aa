"""Which statistics rank the search's candidates better: those of the batch, or calibrated ones.

    python -m slimtrain search digits
    python -m benchmarks.studies.search_statistics --ckpt runs/digits_search/supernet/us_mobilenet_v1.pt [--json results.json]

The first part has a truth: random plans of nearly equal MACs are measured in the supernet in every way, on the held-out
images, then each is trained alone from scratch, on the images that trained the supernet. The figure of a way is the rank
correlation of its errors (losses) with those of the trained networks, on test images that nothing has seen. How well two
seeds of the training agree says how much there is to rank: where they do not, this part decides nothing.

The second part is a proxy, nothing is trained: the steps that a search compares, from plans met by the search whose trace lies
beside the supernet. Every way's choice is judged by the supernet itself, on the unseen test images, once with statistics of
all training images and once with those of all test images as one batch: each is kin to one of the ways. A trace was made by
one of the ways, whose luck with the held-out images its plans keep: `--random-steps` compares steps from random plans too.
`--seeds 0` leaves the first part out.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cells.rank_statistics import ranked
from benchmarks.cells.statistics import rank_correlation
from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result
from benchmarks.studies.searching.plans import plans_on_the_way, random_plans
from slimtrain.base.command import script_messages
from slimtrain.base.text import table
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.costs.cost_model import cost_model, parse_targets
from slimtrain.models.spec import published
from slimtrain.search.slimming import Slimming
from slimtrain.search.trace import read_trace

if TYPE_CHECKING:
    from benchmarks.studies.searching.rankings import Setting

CKPT = Path("runs/digits_search/supernet/us_mobilenet_v1.pt")
PARAMS = "parameters"  # as a ranking, more being better: what a supernet has to beat


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one run, in plain values."""
    import torch

    from benchmarks.studies.searching.rankings import Way, by_supernet, by_training, open_setting, steps_compared
    from slimtrain.config.reading import read_config
    from slimtrain.training.distributed import Processes

    torch.set_num_threads(arguments.threads)
    before, began = environment(), time.perf_counter()
    config = dataclasses.replace(read_config(arguments.config), threads=arguments.threads)
    setting = open_setting(config, arguments.ckpt, Processes(0, 1, torch.device("cpu")))
    folder: Path = arguments.search or arguments.ckpt.resolve().parents[1]
    ways = [Way("batch", count) for count in arguments.chunks] + [Way("calibrated", count) for count in arguments.calibration]
    spec, size = published(setting.checkpoint.spec, "a search"), setting.config.image_size
    slimming, counter = Slimming(spec, config.search_groups), CostCounter(spec, size)
    (macs,) = parse_targets(arguments.macs, "macs")
    on_the_way = plans_on_the_way(slimming, read_trace(folder), arguments.steps) if arguments.steps else []
    plans = random_plans(slimming, counter, arguments.plans, macs, arguments.tolerance, arguments.seed)
    references = {
        "calibrated": setting.evaluator(Way("calibrated", 0), setting.unseen),
        "batch": setting.evaluator(Way("batch", 0), setting.unseen),
    }
    cost = cost_model("macs", spec, size)
    steps = {
        name: steps_compared(setting, slimming, cost, chosen, ways, references, arguments.resamples)
        for name, chosen in (("steps", on_the_way), ("random_steps", plans[: arguments.random_steps]))
        if chosen
    }
    measured, trained, ranking = {}, {}, {}
    params = [counter(plan).params for plan in plans]
    if arguments.seeds:
        measured = by_supernet(setting, plans, ways)
        with tempfile.TemporaryDirectory() as name:
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            trained = by_training(setting, config, plans, seeds, arguments.epochs, Path(name), _say)
        ranking = _ranking(measured, params, trained, ways[0].name, arguments.resamples)
    return {
        "command": "python -m benchmarks.studies.search_statistics " + shlex.join(_words(arguments)),
        "environment": before,
        "seconds": round(time.perf_counter() - began),
        "supernet": _supernet(setting),
        "images": {"train": len(setting.data.train), "held_out": len(setting.data.test), "test": len(setting.unseen)},
        "plans": {
            "groups": list(spec.wiring.groups),
            "channels": [list(spec.list_of(plan)) for plan in plans],
            "macs": [counter(plan).macs for plan in plans],
            "params": params,
        },
        "by_supernet": measured,
        "by_training": trained,
        "seeds_agree": _seeds_agree(trained),
        "ranking": ranking,
        **steps,
    }


def _supernet(setting: Setting) -> dict[str, Any]:
    training = {key: setting.checkpoint.settings.get(key) for key in ("data", "seed", "holdout", "nonuniform", "epochs")}
    return {"network": setting.checkpoint.spec.name, "sha256": setting.checkpoint.sha256, **training}


def _seeds_agree(trained: dict[str, list[list[float]]]) -> dict[str, float | None]:
    """Rank correlation of the first two seeds: as far as the truth itself goes."""
    return {kind: rank_correlation(*of_seeds[:2]) if len(of_seeds) > 1 else None for kind, of_seeds in trained.items()}


def _ranking(
    measured: dict[str, Any], params: list[int], trained: dict[str, list[list[float]]], base: str, resamples: int
) -> dict[str, Any]:
    """Per pair, as in `error_to_loss` (a supernet's error against a trained network's loss, mean over seeds), and way."""
    pairs = {}
    for ours in ("error", "loss"):
        for theirs in ("error", "loss"):
            figures = {name: of_way[ours] for name, of_way in measured.items()} | {PARAMS: [-float(count) for count in params]}
            truth = list(np.mean(trained[theirs], axis=0))
            rankings = ranked(truth, figures, base, resamples=resamples, seed=0)
            pairs[f"{ours}_to_{theirs}"] = {name: dataclasses.asdict(ranking) for name, ranking in rankings.items()}
    return pairs


def tables(result: dict[str, Any]) -> str:
    """The tables of a result."""
    parts = [_ranking_table(result)] if result["ranking"] else []
    titles = {"steps": "steps on the way of the search", "random_steps": "steps from random plans"}
    return "\n".join([*parts, *(_steps_table(result[key], title) for key, title in titles.items() if key in result)])


def _ranking_table(result: dict[str, Any]) -> str:
    ranking, counts = result["ranking"], result["plans"]["macs"]
    base = next(iter(ranking["error_to_loss"]))
    columns = ("error_to_error", "error_to_loss", "loss_to_loss")
    header = ["statistics", *(column.replace("_", " ") for column in columns), f"error to loss, above {base}", "halves agree"]
    rows = []
    for name in ranking["error_to_loss"]:
        cells = [_with_interval(ranking[column][name], "spearman", "interval") for column in columns]
        above = _with_interval(ranking["error_to_loss"][name], "above", "above_interval")
        halves = result["by_supernet"].get(name, {}).get("halves_agree_by_error")
        rows.append([name, *cells, above, "" if halves is None else f"{halves:.2f}"])
    agree = [f"{value:.2f} by {kind}" for kind, value in result["seeds_agree"].items() if value is not None]
    return (
        f"{len(counts)} plans of {format_macs(min(counts))} to {format_macs(max(counts))} MACs: rank correlation (95 % "
        f"interval over plans) of the supernet's figure with that of the plan trained alone\n{table(header, rows)}\n"
        f"two seeds of the training agree: {', '.join(agree) or 'not measured'}"
    )


def _steps_table(steps: dict[str, Any], title: str) -> str:
    names, base = list(steps["regret_by_chance"]), next(iter(steps["ways"]))
    shown = {"agreement": "agreement_error", "regret %": "regret_error", f"regret above {base}": "regret_error_above"}
    labels = [f"{label}, {name}" for name in names for label in shown]
    rows = []
    for way, figures in steps["ways"].items():
        cells = [_with_interval(figures[name], key, f"{key}_interval") for name in names for key in shown.values()]
        rows.append([way, *cells, f"{1000 * figures['seconds']:.1f}"])
    chance = [cell for name in names for cell in ("", f"{steps['regret_by_chance'][name]['error']:.2f}", "")]
    header, last = ["statistics", *labels, "ms per candidate"], ["by chance", *chance, ""]
    return (
        f"{steps['steps']} {title} (a proxy): rank correlation by error with two references, and what the chosen "
        f"candidate loses to the best\n{table(header, [*rows, last])}"
    )


def _with_interval(values: dict[str, Any], key: str, interval: str) -> str:
    return f"{values[key]:.2f} ({values[interval][0]:.2f} to {values[interval][1]:.2f})"


def _words(arguments: argparse.Namespace) -> list[str]:
    """The command line, without places on this machine's disk."""
    words: list[str] = []
    for key, value in vars(arguments).items():
        if key == "json" or value is None:
            continue
        words += [f"--{key.replace('_', '-')}", *map(_shown, value if isinstance(value, list) else [value])]
    return words


def _shown(value: object) -> str:
    """Of a path from the root the last four parts: runs/NAME/supernet/FILE."""
    path = Path(str(value))
    return Path(*path.parts[1:][-4:]).as_posix() if path.is_absolute() else str(value)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--config", default="digits", help="that the supernet was trained with")
    parser.add_argument("--ckpt", type=Path, default=CKPT, help="what the search leaves in its folder's supernet/")
    parser.add_argument("--search", type=Path, help="the folder with the search's trace; by default that of --ckpt's folder")
    parser.add_argument("--plans", type=int, default=28, help="how many random plans")
    parser.add_argument("--macs", default="1500K", help="of every random plan")
    parser.add_argument("--tolerance", type=float, default=0.03, help="share of --macs that plans may be off by")
    parser.add_argument("--chunks", type=int, nargs="+", default=[300, 100, 50], help="batch: images of a chunk")
    parser.add_argument("--calibration", type=int, nargs="+", default=[0, 300], help="calibrated: images; 0: all")
    parser.add_argument("--steps", type=int, default=8, help="how many of the search's steps; 0: none")
    parser.add_argument("--random-steps", type=int, default=0, help="from how many of the random plans to compare steps")
    parser.add_argument("--seeds", type=int, default=2, help="how often every plan is trained; 0: not at all")
    parser.add_argument("--first-seed", type=int, default=1, help="of these; the supernet's shares its order of images")
    parser.add_argument("--epochs", type=int, default=12, help="of every training")
    parser.add_argument("--resamples", type=int, default=2000, help="for the intervals")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--seed", type=int, default=0, help="of the random plans")
    arguments = parse(parser)
    with script_messages("search_statistics"):
        result = compare(arguments)
    print(tables(result))
    write_result(arguments.json, result)


if __name__ == "__main__":
    main()
