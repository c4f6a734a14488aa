"""How well a latency table predicts whole networks on the device that it was measured on.

    python -m benchmarks.studies.latency_prediction [--network us_mobilenet_v1] [--image-size 224] [--json results.json]

Builds the table as `python -m benchmarks channels` does (or reads `--table`), then measures whole networks that had no part in
it: uniform widths, and random plans whose groups shrink each by itself. Networks of a universally slimmable one are exported
with `slimexport`; those of a module (`timm:regnetx_002`) or its checkpoint, and plans that a slimmable network has no norms
for, are written as ONNX with random weights. Beside the table stands what MACs alone predict: a line through the same three
networks that the table's `constant_ms` and `factor` come from.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.backends import BACKENDS, CPU, ONNXRUNTIME_CPU
from benchmarks.cells.statistics import rank_correlation
from benchmarks.layers.command import require_onnx, this_device
from benchmarks.layers.model_timer import TABLE_BACKENDS, Model, ModelTimer, Sample, Timer
from benchmarks.layers.run import WHOLE, Grid, Work, fit_line, run_channels, whole_model
from benchmarks.layers.sources import find_network
from benchmarks.machine.environment import study_command
from benchmarks.measure.progress import RoundProgress
from benchmarks.measure.threads import pinned
from benchmarks.studies.script import parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, as_image_size
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.costs.latency_table import LatencyTable, LatencyTableError, read_latency_table, write_latency_table
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec

UNIFORM = 6  # widths, none of which the table has seen
RANDOM = 10
TRIES = 1000
DIVISOR = 8
CALIBRATION_IMAGES = 4


def unseen_plans(spec: WidthSpec, table: LatencyTable, count: int, seed: int) -> list[ChannelPlan]:
    """Plans that had no part in the table: uniform widths or switches, then `count` random ones.

    A random plan draws each group from the multiples of 8 between its smallest and largest count; one that the table cannot
    tell the cost of is drawn again. UserError where hardly any can be.
    """
    seen = {tuple(sorted(network["channels"].items())) for network in table.settings[WHOLE]}
    low, high = spec.range
    if spec.family == "us":
        uniform = [spec.plan(round(low + (high - low) * (index + 0.5) / UNIFORM, 4)) for index in range(UNIFORM)]
    else:
        uniform = list(spec.plans)
    plans = [plan for plan in uniform if tuple(sorted(plan.channels.items())) not in seen]
    ends = [plan.channels for plan in (*spec.plans, spec.widest)]
    draw = np.random.default_rng(seed)
    for _ in range(TRIES):
        if count == 0:
            return plans
        channels = {}
        for group, most in spec.widest.channels.items():
            least = min(end[group] for end in ends)
            counts = sorted({least, most, *range(-(-least // DIVISOR) * DIVISOR, most, DIVISOR)})
            channels[group] = int(draw.choice(counts))
        plan = ChannelPlan(f"random_{count}", channels)
        try:
            table.layers_ms(plan)
        except LatencyTableError:
            continue
        plans.append(plan)
        count -= 1
    raise UserError(f"{spec.name}: random plans are nearly all outside of the table. Give --random 0.")


def networks(spec: WidthSpec, image_size: ImageSize, plans: Sequence[ChannelPlan], folder: Path) -> dict[str, Model]:
    """The networks of `plans` by name: exported into a bundle in `folder` where `slimexport` can."""
    if not isinstance(spec, NetworkSpec) or spec.family != "us" or spec.stem_stride != 2:
        return {plan.name: whole_model(spec, plan, image_size) for plan in plans}
    from slimexport.exporter import export
    from slimexport.request import CalibrationImages, Proof
    from slimtrain.data.noise import noise_images

    files = []
    for plan in plans:
        files.append(folder / f"{plan.name}.yml")
        files[-1].write_text(json.dumps({"network": spec.name, "name": plan.name, "channels": dict(plan.channels)}))
    np.save(folder / "images.npy", noise_images(CALIBRATION_IMAGES, image_size, channels=spec.in_channels))
    manifest = export(
        f"random:{spec.name},in_channels={spec.in_channels}",
        channels=files,
        image_size=image_size,
        output_dir=folder / "bundle",
        calibration=CalibrationImages(folder / "images.npy"),
        proof=Proof(verify=False),
    )
    paths = [folder / "bundle" / artifact.file for artifact in manifest.artifacts]
    pairs = zip(plans, paths, strict=True)
    return {plan.name: Model(image_size, path.read_bytes, spec.in_channels) for plan, path in pairs}


def errors(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float | None]:
    """Mean and largest absolute error relative to what was measured, and Spearman's rank correlation."""
    off = np.abs(np.asarray(predicted_ms) / np.asarray(measured_ms) - 1)
    return {
        "mean_absolute_error": float(off.mean()),
        "largest_error": float(off.max()),
        "rank_correlation": rank_correlation(predicted_ms, measured_ms),
    }


def predict(
    spec: WidthSpec, table: LatencyTable, plans: Sequence[ChannelPlan], measured: Mapping[str, Sample]
) -> dict[str, Any]:
    """Every plan's latency as measured, as the table has it and as MACs have it, and how far both are off."""
    count = CostCounter(spec, table.network.image_size)
    whole = table.settings[WHOLE]
    seen_macs = [count(ChannelPlan(network["name"], network["channels"])).macs for network in whole]
    constant_ms, ms_per_mac = fit_line(seen_macs, [network["ms"] for network in whole])
    rows: list[dict[str, Any]] = []
    for plan in plans:
        macs, sample = count(plan).macs, measured[plan.name]
        rows.append(
            {
                "plan": plan.name,
                "macs": macs,
                "measured_ms": sample.ms,
                "highest_ms": sample.high_ms,
                "table_ms": table.cost_ms(plan),
                "macs_only_ms": constant_ms + ms_per_mac * macs,
                "channels": dict(plan.channels),
            }
        )
    measured_ms = [row["measured_ms"] for row in rows]
    return {
        "networks": rows,
        "table": errors([row["table_ms"] for row in rows], measured_ms),
        "macs_only": errors([row["macs_only_ms"] for row in rows], measured_ms),
    }


def result_lines(result: Mapping[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{'plan':<12}{'MACs':>8}{'measured':>11}{'table':>20}{'MACs only':>20}"]
    for row in result["networks"]:
        measured_ms = row["measured_ms"]
        shown = "".join(f"{row[key]:>9.3f} ms {row[key] / measured_ms - 1:>+7.1%}" for key in ("table_ms", "macs_only_ms"))
        lines.append(f"{row['plan']:<12}{format_macs(row['macs']):>8}{measured_ms:>8.3f} ms{shown}")
    for key, name in (("table", "the table"), ("macs_only", "MACs alone")):
        figures = result[key]
        rank = "none" if figures["rank_correlation"] is None else f"{figures['rank_correlation']:.3f}"
        lines.append(
            f"{name}: off by {figures['mean_absolute_error']:.1%} on average, {figures['largest_error']:.1%} at most, rank "
            f"correlation {rank}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--network", default="us_mobilenet_v1", help="a published network, a checkpoint, or a module: timm:NAME"
    )
    parser.add_argument("--image-size", type=as_image_size, help="default: the checkpoint's, or 224")
    parser.add_argument("--backend", choices=TABLE_BACKENDS, default=ONNXRUNTIME_CPU)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--points", type=int, default=Grid.points, help="counts per dimension of the table")
    parser.add_argument("--duration", type=float, default=Grid.duration_s, help="seconds per model of a layer")
    parser.add_argument("--network-duration", type=float, default=2.0, help="seconds per whole network")
    parser.add_argument("--random", type=int, default=RANDOM, help="how many random plans")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="a latency_table.json of this network and device, instead of measuring one")
    parser.add_argument("--save-table", type=Path, help="write the table that is measured here")
    arguments = parse(parser)
    with script_messages("latency_prediction", "interrupted, nothing was written."):
        result = run(arguments)
    print(result_lines(result))
    write_result(arguments.json, result)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything from the table to the figures. Raises what reading tables and measuring raise."""
    spec, image_size = find_network(arguments.network, image_size=arguments.image_size)
    require_onnx()
    grid = Grid(points=arguments.points, duration_s=arguments.duration)
    with pinned(arguments.threads) as pinning, RoundProgress() as progress:
        threads = pinning["threads"] if BACKENDS[arguments.backend].device == CPU else None
        device = this_device(arguments.backend, arguments.batch, threads)
        timer: Timer = ModelTimer(arguments.backend, arguments.batch, pinning["threads"])
        notes: tuple[str, ...] = ()
        if arguments.table:
            table = read_latency_table(arguments.table, spec, image_size, device.name)
            _check_settings(table, arguments.backend, arguments.batch, threads)
        else:
            measured = run_channels(Work(spec, image_size, grid), device, timer, progress=progress)
            table, notes = measured.table, measured.notes
        plans = unseen_plans(spec, table, arguments.random, arguments.seed)
        with tempfile.TemporaryDirectory() as name:
            samples = timer(networks(spec, image_size, plans, Path(name)), arguments.network_duration)
    if arguments.save_table:
        write_latency_table(arguments.save_table, table)
    return {
        "command": study_command("benchmarks.studies.latency_prediction"),
        "network": vars(table.network),
        "settings": {key: value for key, value in table.settings.items() if key != WHOLE},
        "constant_ms": table.constant_ms,
        "factor": table.factor,
        "notes": list(notes),
        **predict(spec, table, plans, samples),
        "environment": device.environment,
    }


def _check_settings(table: LatencyTable, backend: str, batch: int, threads: int | None) -> None:
    """LatencyTableError unless a table was measured as the networks will be."""
    has, wanted = (table.backend, table.batch, table.threads), (backend, batch, threads)
    if has != wanted:
        raise LatencyTableError(
            "the table is for {} at batch {} with {} threads, this is {} at batch {} with {} threads. Measure another, or "
            "give --backend, --batch and --threads.".format(*has, *wanted)
        )


if __name__ == "__main__":
    main()
