"""`python -m benchmarks load`: its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.load.traces import CV2, KINDS
from slimexport.target.serving.policy import DEFAULT, NAMES
from slimtrain.base.command import CONTEXT, Command, messages


@click.command("load", cls=Command, context_settings=CONTEXT)
@click.argument("target", metavar="BUNDLE_OR_URL")
@click.option("--slo-ms", type=float, default=50.0, metavar="MS", help="Within which a request is to be answered.")
@click.option(
    "--trace", default="bursty", metavar="NAME", help=f"{', '.join(KINDS)}, or a file with a time in seconds a line."
)
@click.option(
    "--load",
    type=float,
    metavar="SHARE",
    help="Of the widest network's capacity, measured first.  [default: 1.2, a file's own]",
)
@click.option(
    "--rate", type=float, metavar="N", help="Requests per second, in place of --load; needed for a URL.  [default: none]"
)
@click.option("--cv2", type=float, default=CV2, metavar="X", help="Of bursts: squared coefficient of variation of intervals.")
@click.option("--seconds", type=float, metavar="S", help="Of the trace.  [default: 30, a file's own]")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Of trace and images.")
@click.option("--policies", metavar="LIST", help=f"Some of {', '.join(NAMES)}, compared in this run.  [default: {DEFAULT}]")
@click.option("--repeats", type=click.IntRange(1), default=1, metavar="N", help="Rounds, policies forth and back.")
@click.option("--images", type=click.IntRange(1), default=1, metavar="N", help="In a request.")
@click.option("--widths", metavar="LIST", help="That are open.  [default: five that spread best]")
@click.option("--precision", default="fp32", metavar="NAME", help="Of the files.")
@click.option("--backend", metavar="NAME", help="What runs them.  [default: the bundle's engines, or onnxruntime-cpu]")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="On CPUs.  [default: the backend's own]")
@click.option(
    "--late", type=click.Choice(("refuse", "serve")), default="refuse", help="What becomes of requests that are late."
)
@click.option("--queue", type=click.IntRange(1), default=1000, metavar="N", help="Images that may wait.")
@click.option(
    "--profile", type=click.Path(path_type=Path), metavar="FILE", help="A results.jsonl of latencies.  [default: measured]"
)
@click.option(
    "--json", "as_json", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures here.  [default: nowhere]"
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of samples and picture.  [default: measured/NAME/load]",
)
@click.option("--no-plots", is_flag=True, help="Write no picture.")
def command(target: str, as_json: Path | None, output_dir: Path | None, no_plots: bool, **options: Any) -> None:
    """How a served bundle keeps its deadline under load, and what accuracy it gives: policies compared on one trace.

    \b
      python -m benchmarks load exports/us_mobilenet_v1 --slo-ms 50 --trace bursty --load 1.2
      python -m benchmarks load exports/us_mobilenet_v1 --policies fixed:1.0,fixed:0.5,slackfit,drain
      python -m benchmarks load exports/us_mobilenet_v1 --trace times.txt --seconds 60
      python -m benchmarks load http://127.0.0.1:8000/v2/models/us_mobilenet_v1 --rate 200

    Requests are sent at the times of the trace, whether earlier ones were answered or not (open loop), and latencies count
    from those times. BUNDLE is served in this process; a URL is that of a model of the Open Inference Protocol.

    steady is evenly spaced, poisson random; bursty is a third Poisson and two thirds bursts with gamma intervals of CV2; step
    is Poisson at half, double and half the rate. Writes results.jsonl (raw samples) and load.png.

    Exit codes: 0 done; 1 requests failed or were lost; 2 usage or bad input; 3 the environment lacks something.
    """
    with messages("benchmarks"):
        from benchmarks.load.run import Asked, load

        code = load(Asked(target, **options), as_json, output_dir, not no_plots)
    sys.exit(code)
