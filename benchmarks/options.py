"""The options that all commands which measure bundles have. No numpy: what they ask for is in `request`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.cells.backends import AUTO, CPU, CUDA

PERCENTILES = (50, 90, 95, 99)  # of latencies, to choose by
F = TypeVar("F", bound=Callable[..., Any])
MEASURING = (
    click.option("--widths", metavar="LIST", help="0.5,1.0, or switch numbers.  [default: all in the bundle]"),
    click.option("--precision", metavar="LIST", help="fp32,fp16,...  [default: all in the bundle]"),
    click.option("--duration", type=float, default=3.0, metavar="S", help="Per cell, all rounds."),
    click.option("--repeats", type=int, default=3, metavar="N", help="Rounds, widths interleaved."),
    click.option("--warmup", type=float, default=200, metavar="MS", help="Before each turn."),
    click.option("--threads", type=int, metavar="N", help="Of CPU backends.  [default: one per physical core]"),
    click.option("--device", type=click.Choice((AUTO, CPU, CUDA)), default=AUTO, help="Where torch runs."),
    click.option(
        "--ckpt", type=click.Path(path_type=Path), metavar="PATH", help="For the slimmable network itself.  [default: none]"
    ),
    click.option("--no-cuda-graph", is_flag=True, help="TensorRT without CUDA graphs."),
    click.option("--transfers", is_flag=True, help="Copies to and from the GPU too, as columns of their own."),
    click.option(
        "--accuracy-data", metavar="DIR", help="Labeled images (a folder per class), or digits.  [default: as in the bundle]"
    ),
    click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that load these.  [default: up to 4]"),
    click.option(
        "--output-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Of the results.  [default: measured/BUNDLE, of choose measured/BUNDLE/choose]",
    ),
    click.option("--seed", type=click.IntRange(0), metavar="N", default=0, help="Of the random inputs."),
    click.option("--cache-mib", type=float, metavar="MIB", help="Cache that inputs must exceed.  [default: the CPU's]"),
)


def measuring_options(command: F) -> F:
    """The options of all commands that measure bundles; `request.MeasuringOptions` takes what click makes of them."""
    for decorate in reversed(MEASURING):
        command = decorate(command)
    return command
