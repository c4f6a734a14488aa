"""What comes after a search: train the found networks, and uniform widths of equal cost the same way; test both side by
side; export the found ones with the `slimexport` command, which verifies them.

    found/, uniform/          the two training runs
    uniform_plans/            the uniform widths, as plan files
    comparison.csv            a row per target
    exports/NETWORK/          the bundle that slimexport wrote
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import click

from slimtrain.base.errors import CommandError, ResourceError, UserError
from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.image_size import ImageSize
from slimtrain.base.text import table, utf8
from slimtrain.config.config import MACHINE_KEYS, SEARCH_KEYS, Config, plain
from slimtrain.config.reading import read_config
from slimtrain.config.run_folder import RESOLVED
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.costs.cost_model import CostModel, format_cost
from slimtrain.data.catalog import DETECTION_SETS, packaged
from slimtrain.models.channels import ChannelPlan, width_label
from slimtrain.models.plan_file import write_plan_file
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.from_plans import plans_config
from slimtrain.search.greedy import SearchOutcome
from slimtrain.search.kinds import Kind, kind_of
from slimtrain.search.request import PLANS, SearchRequest
from slimtrain.search.supernet import with_epochs
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result
from slimtrain.training.testing import results_of

STEPS = 1000  # per unit of width: finer than the rounding of channels for every network here


SEARCHED, UNIFORM, UNIFORM_PLANS, EXPORTS = "found", "uniform", "uniform_plans", "exports"
COMPARISON = "comparison.csv"


@dataclass(frozen=True)
class TrainedSwitch:
    """A switch of a trained network: its number, what it costs, and how it does on the test images."""

    switch: int
    macs: int
    params: int
    result: Result

    def figures(self, columns: Sequence[str]) -> list[float]:
        """Those of its results."""
        return [self.result.figures[column] for column in columns]


@dataclass(frozen=True)
class ComparisonRow:
    """A row of comparison.csv: a found network and the uniform width of its cost, both trained the same way. Costs in the
    search's unit; MACs without pools; top-1 as a share of the test images, `loss` their mean cross entropy."""

    target: float
    plan: str
    cost: float
    macs: int
    params: int
    top1: float
    loss: float
    width: float
    uniform_cost: float
    uniform_macs: int
    uniform_params: int
    uniform_top1: float
    uniform_loss: float
    images: int

    measure: ClassVar[str] = "top-1"

    @property
    def shares(self) -> tuple[float, float]:
        """What the two are compared by, from 0 to 1."""
        return self.top1, self.uniform_top1


@dataclass(frozen=True)
class DetectorRow:
    """A row of a detector's comparison.csv, as `ComparisonRow`: COCO's average precision of boxes, and that at an IoU of
    0.5."""

    target: float
    plan: str
    cost: float
    macs: int
    params: int
    ap: float
    ap50: float
    width: float
    uniform_cost: float
    uniform_macs: int
    uniform_params: int
    uniform_ap: float
    uniform_ap50: float
    images: int

    measure: ClassVar[str] = "AP"

    @property
    def shares(self) -> tuple[float, float]:
        """What the two are compared by, from 0 to 1."""
        return self.ap, self.uniform_ap


Row = ComparisonRow | DetectorRow


def finish(
    request: SearchRequest,
    spec: WidthSpec,
    cost: CostModel,
    outcomes: Sequence[SearchOutcome],
    processes: Processes,
    image_size: ImageSize,
) -> list[Row]:
    """Train, test and export what was found in `spec`, the searched network; a row per target, in the order of `outcomes`.
    Runs in the folder are gone on with.

    Raises what training raises, and CommandError with the exit code of `slimexport` where that fails.
    """
    folder, kind = request.folder, kind_of(request.config)
    counted = kind.counted(spec, image_size)
    widths = [nearest_width(spec, cost, outcome.cost) for outcome in outcomes]
    uniform = [uniform_plan(spec, width) for width in widths]
    if processes.first:
        count = CostCounter(counted, image_size)
        for width, plan in zip(widths, uniform, strict=True):  # two targets may share a width, and its file
            path = folder / UNIFORM_PLANS / f"{plan.name}.yml"
            facts = {"width": width, "cost": cost(plan), "unit": cost.unit}
            write_plan_file(path, spec, plan, image_size, count(plan), **stem_facts(spec), **facts)
    processes.wait()
    first, second = _run(request, SEARCHED, folder / PLANS), _run(request, UNIFORM, folder / UNIFORM_PLANS)
    for config, _ in (first, second):
        _check_alike(config)
    checkpoint, ours = _trained(kind, *first, processes)
    _, theirs = _trained(kind, *second, processes)
    rows: list[Row] = []
    detects = request.config.detector is not None
    row_of: Callable[..., Row] = DetectorRow if detects else ComparisonRow
    columns = ("ap", "ap50") if detects else ("top1", "loss")
    for outcome, width, plan in zip(outcomes, widths, uniform, strict=True):
        own, other = ours[spec.list_of(outcome.plan)], theirs[spec.list_of(plan)]
        rows.append(
            row_of(
                *(outcome.target, outcome.plan.name, outcome.cost, own.macs, own.params, *own.figures(columns)),
                *(width, cost(plan), other.macs, other.params, *other.figures(columns), own.result.images),
            )
        )
    if processes.first:
        _write(folder / COMPARISON, rows)
        _export(request.final, checkpoint, sorted(trained.switch for trained in ours.values()), folder / EXPORTS)
        click.echo(comparison_table(rows, cost))
    processes.wait()
    return rows


def stem_facts(spec: WidthSpec) -> dict[str, int]:
    """What a plan file says of a published architecture beside its channels."""
    return {"stem_stride": spec.stem_stride} if isinstance(spec, NetworkSpec) else {}


def check_finish(request: SearchRequest) -> None:
    """Raise now, before hours of training and searching, what `finish` would raise after them: UserError where there are no
    images to test on, ResourceError where `slimexport` is missing."""
    try:
        kind_of(request.config).data(request.final)
    except UserError as error:
        if request.final.holdout:
            raise
        raise UserError(
            f"{error} A search takes other images than the tests of what it finds: hold out both, in numbers of images, "
            "--set holdout=N --set search_holdout=M."
        ) from error
    missing = [name for name in ("slimexport", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise ResourceError(f"--finish: needs the package {missing[0]} to export. Install it, or search with --no-finish.")


def _run(request: SearchRequest, name: str, plans: Path) -> tuple[Config, list[str]]:
    """The configuration that trains a folder of plans jointly, from scratch (a module from its pretrained weights, where it
    has some), as the run `name`, and notes for its log."""
    start: dict[str, Any] = {"test_only": False, "teacher": "", "grow": (), "grow_epochs": 0, "best_by": "widest"}
    if not request.final.model and request.final.detector is None:
        start |= {"pretrained": "", "reset_classifier": False}
    config, notes = plans_config(dataclasses.replace(request.final, **start), plans)
    config = with_epochs(config, request.config.search_train_epochs or config.epochs)
    folder = str(request.folder / name)
    return dataclasses.replace(config, output_dir=folder, resume="auto"), notes


def _check_alike(config: Config) -> None:
    """UserError where the folder's run was begun with other settings: found and uniform networks are trained alike."""
    path = Path(config.output_dir) / RESOLVED
    if not path.exists():
        return
    before, now = plain(read_config(str(path))), plain(config)
    changed = [key for key in now if before[key] != now[key] and key not in (*MACHINE_KEYS, *SEARCH_KEYS)]
    if changed:
        listed = ", ".join(f"{key} was {before[key]!r} and is {now[key]!r}" for key in changed)
        raise UserError(
            f"{path}: belongs to a run with other settings: {listed}. Found networks and uniform widths are trained alike: "
            f"undo this, or remove {SEARCHED}/ and {UNIFORM}/ beside it to train both again. The search itself stays."
        )


def _trained(
    kind: Kind, config: Config, notes: Sequence[str], processes: Processes
) -> tuple[Path, dict[tuple[int, ...], TrainedSwitch]]:
    """The checkpoint of a run, trained or gone on with where it is not finished, and its switches by channel list."""
    path = Path(config.output_dir) / (config.weights or f"{config.network_name}.pt")
    if not path.exists():
        if processes.first:
            click.echo(f"training {path.parent.name}")
        kind.train(config, processes, notes)
        processes.wait()  # the first process writes it last
    opened = kind.tested(config, processes, str(path))
    plans, results = results_of(opened)
    spec = opened.checkpoint.spec
    count = CostCounter(kind.counted(spec, config.image_size), config.image_size)
    switches = {}
    for switch, (plan, result) in enumerate(zip(plans, results, strict=True), 1):
        figures = count(plan)
        switches[spec.list_of(plan)] = TrainedSwitch(switch, figures.macs, figures.params, result)
    return path, switches


def _export(config: Config, checkpoint: Path, switches: Sequence[int], folder: Path) -> None:
    """Run `slimexport` on a checkpoint, for all its networks. CommandError where it fails."""
    words = ["--ckpt", str(checkpoint), "--widths", ",".join(map(str, switches)), "--output-dir", str(folder), "--overwrite"]
    objects = DETECTION_SETS.get(config.data)
    if objects.source == "package" if objects else packaged(config.data):  # both packages know these images by name
        words += ["--accuracy-data", config.data]
    if config.layout == "published":  # which does not tell which images the network takes
        words += ["--config", str(checkpoint.parent / RESOLVED)]
    click.echo(shlex.join(["slimexport", *words]))
    sys.stdout.flush()  # before the lines of the other process
    # The command of this very Python: another one may come first on PATH, or none.
    code = subprocess.run([sys.executable, "-m", "slimexport", *words], check=False).returncode
    if code:
        raise CommandError(
            f"slimexport ended with exit code {code}; its own message is above. The networks are trained: mend what it names, "
            "then go on with --resume auto.",
            code if code > 0 else 1,
        )


def _write(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(rows[0]))
    writer.writerows(dataclasses.astuple(row) for row in rows)
    write_atomically(path, utf8(text.getvalue()), RUN)


def comparison_table(rows: Sequence[Row], cost: CostModel) -> str:
    """One line per target: the found network, the uniform width, and how many points the first is ahead."""
    own = cost.name not in ("macs", "params")  # these have columns of their own
    side = [*([cost.name] if own else []), "MACs", "params", rows[0].measure]
    header = ["target", *side, "|", "width", *side, "|", "difference"]
    lines = []
    for row in rows:
        share, uniform_share = row.shares
        searched = [
            *([format_cost(row.cost, cost)] if own else []),
            format_macs(row.macs),
            f"{row.params:,}",
            f"{share:.2%}",
        ]
        uniform = [
            *([format_cost(row.uniform_cost, cost)] if own else []),
            *(format_macs(row.uniform_macs), f"{row.uniform_params:,}", f"{uniform_share:.2%}"),
        ]
        ahead = f"{100 * (share - uniform_share):+.2f}"
        lines.append([format_cost(row.target, cost), *searched, "|", width_label(row.width), *uniform, "|", ahead])
    return f"found networks beside uniform widths, on {rows[0].images} test images\n{table(header, lines)}"


def nearest_width(spec: WidthSpec, cost: CostModel, wanted: float) -> float:
    """The width of the universally slimmable `spec` whose cost is nearest to `wanted`. Of several with the same cost, it is
    the one with the fewest digits, then the narrowest."""
    low, high = spec.range
    widths = [i / STEPS for i in range(math.ceil(low * STEPS), math.floor(high * STEPS) + 1)]
    plans = {width: spec.plan(width) for width in widths}
    costs = {plan: cost(plan) for plan in set(plans.values())}  # many widths are one plan
    return min(widths, key=lambda width: (abs(costs[plans[width]] - wanted), len(str(width)), width))


def uniform_plan(spec: WidthSpec, width: float) -> ChannelPlan:
    """The plan of a width, with a name that a plan file can have: `uniform_0_35`."""
    return ChannelPlan(f"uniform_{width}".replace(".", "_"), spec.plan(width).channels)
