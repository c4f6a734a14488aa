"""How fast any network is made slimmable, exported at a further width, and trained, beside what does the same otherwise.

    python -m benchmarks.studies.any_speed --json benchmarks/results/any_speed.json
    python -m benchmarks.studies.any_speed --only making --networks resnet18,mobilenet_v2

`making`: `make_slimmable` beside `torch.export` of the same module, with one thread and two. `widths`: a further width,
sliced, written and verified, of a published network and of the same one read off its module. `exporters`: a further width
by this package's writer and by `torch.onnx.export(dynamo=True)`, seconds and file sizes. `steps`: a training step of the
published network and of the same one read off its module, at the same sizes. Sides are measured in turn within one process,
in processor seconds, so that what else the machine does counts less.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.any_speed"
PARTS = ("making", "widths", "exporters", "steps")
PUBLISHED = {"us_mobilenet_v1": 31, "us_mobilenet_v2": 7, "us_resnet50": 4}  # network -> widths that are exported
STEP = "us_mobilenet_v2"
STEP_WIDTHS = (0.4125, 0.6125, 0.8125)  # beside the widest; none that statistics are stored for


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="of these, comma-separated", metavar="PARTS")
    parser.add_argument("--networks", default="", help="of a part's networks these alone, comma-separated", metavar="NAMES")
    parser.add_argument("--rounds", type=int, default=5, help="of every comparison")
    parser.add_argument("--batch-size", type=int, default=16, help="images of a training step")
    parser.add_argument("--image-size", type=int, default=128, help="of a training step")
    return parser


def main() -> None:
    arguments = parse(_parser())
    needs(PROGRAM, "torch", "torchvision", "onnx", "onnxruntime", *(["onnxscript"] if "exporters" in arguments.only else []))
    with script_messages(PROGRAM):
        parts = arguments.only.split(",")
        if unknown := [part for part in parts if part not in PARTS]:
            raise UserError(f"--only {','.join(unknown)}: expected some of {', '.join(PARTS)}.")
        before = environment()
        result: dict[str, Any] = {"command": _command(arguments), "environment": before}
        for part in parts:
            result[part] = rows = list(_rows(part, arguments))
            print(f"\n{part}\n{summary(part, rows)}", flush=True)
        write_result(arguments.json, result)


def _command(arguments: argparse.Namespace) -> str:
    networks = f" --networks {arguments.networks}" if arguments.networks else ""
    own = f"--rounds {arguments.rounds} --batch-size {arguments.batch_size} --image-size {arguments.image_size}"
    return f"python -m {PROGRAM} --only {arguments.only}{networks} {own}"


def _rows(part: str, arguments: argparse.Namespace) -> Iterable[dict[str, Any]]:
    import torch

    from benchmarks.studies.any_network import exporters, making, published

    chosen = set(filter(None, arguments.networks.split(",")))

    def some(names: Iterable[str]) -> list[str]:
        return [name for name in names if not chosen or name in chosen]

    if part == "making":
        for name in some(making.NETWORKS):
            for threads in sorted({1, min(2, os.cpu_count() or 1)}):
                yield making.making(name, threads, arguments.rounds)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if part == "widths":
            for name in some(PUBLISHED):
                yield published.further_widths(name, PUBLISHED[name], max(1, arguments.rounds // 2))
        elif part == "exporters":
            for name in some(exporters.NETWORKS):
                yield exporters.written(name, arguments.rounds)
        else:
            for name in some([STEP]):
                size = arguments.image_size
                yield published.training_step(name, STEP_WIDTHS, arguments.batch_size, size, 2 * arguments.rounds)
    finally:
        torch.set_num_threads(threads)


def summary(part: str, rows: Sequence[dict[str, Any]]) -> str:
    """A part's rows as a table."""
    if part == "making":
        header = ["network", "threads", "torch.export", "make_slimmable", "ratio", "without the check", "wall"]
        return table(header, [_making(row) for row in rows])
    if part == "exporters":
        header = ["network", "width", "ours s", "torch s", "times faster", "ours MB", "torch MB"]
        return table(header, [_exporters(row) for row in rows])
    unit = "seconds_per_width" if part == "widths" else "seconds_per_step"
    header = ["network", "widths", "published s", "traced s", "ratio"]
    return table(header, [_pair(row, unit) for row in rows])


def _making(row: dict[str, Any]) -> list[str]:
    seconds = [f"{min(run['processor_s'] for run in row['runs'][side]):.2f} s" for side in ("torch.export", "make_slimmable")]
    ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_unchecked", "ratio_wall")]
    return [row["network"], str(row["threads"]), *seconds, *ratios]


def _exporters(row: dict[str, Any]) -> list[str]:
    seconds = [f"{row[side]['seconds']:.3f}" for side in ("ours", "torch")]
    sizes = [f"{row[side]['bytes'] / 1e6:.2f}" for side in ("ours", "torch")]
    return [row["network"], str(row["width"]), *seconds, str(row["times_faster"]), *sizes]


def _pair(row: dict[str, Any], unit: str) -> list[str]:
    seconds = [f"{row[unit][side]:.4f}" for side in ("published", "traced")]
    return [row["network"], str(len(row["widths"])), *seconds, f"{row['ratio']:.3f}"]


if __name__ == "__main__":
    main()
