"""The options of `--serve`, and of `--triton --adaptive`. Neither numpy nor a server is loaded for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import click

from slimexport.target.precision import EXACT
from slimexport.target.serving.policy import DEFAULT, NAMES
from slimtrain.base.errors import UserError

# A runtime's own, which takes numpy to be asked for them; a test holds them equal.
SLO_MS, QUEUE, LATE = 50.0, 1000, ("refuse", "serve")
HOST, PORT = "127.0.0.1", 8000

serving_options = (
    click.option("--serve", is_flag=True, help="With --bundle: serve it over HTTP (Open Inference Protocol)."),
    click.option("--adaptive", is_flag=True, help="With --triton: one model of all widths, which chooses per batch."),
    click.option("--slo-ms", type=float, metavar="MS", help=f"Deadline of requests without one.  [default: {SLO_MS:g}]"),
    click.option("--policy", metavar="NAME", help=f"What chooses widths: {', '.join(NAMES)}.  [default: {DEFAULT}]"),
    click.option("--host", metavar="ADDRESS", help=f"Where --serve listens; 0.0.0.0: everywhere.  [default: {HOST}]"),
    click.option("--port", type=click.IntRange(0, 65535), metavar="N", help=f"0: one that is free.  [default: {PORT}]"),
    click.option(
        "--late",
        type=click.Choice(LATE),
        help=f"Requests that cannot meet their deadline are refused, or served at the narrowest.  [default: {LATE[0]}]",
    ),
    click.option("--queue", type=click.IntRange(1), metavar="N", help=f"Images that may wait.  [default: {QUEUE:,}]"),
    click.option(
        "--profile",
        metavar="FILE",
        help="Latencies from a results.jsonl of slimbench.  [default: measured at the start]",
    ),
    click.option(
        "--threads", type=click.IntRange(1), metavar="N", help="Of onnxruntime on the CPU.  [default: its own choice]"
    ),
    click.option("--demo", is_flag=True, help="With --serve: sliders on its page that raise the load and move the deadline."),
)
OF_BOTH = ("slo_ms", "policy")  # of --triton --adaptive too


@dataclass(frozen=True)
class ServingOptions:
    """They as click gives them; None where one was not given. Properties raise UserError for what cannot be."""

    serve: bool
    adaptive: bool
    slo_ms: float | None
    policy: str | None
    host: str | None
    port: int | None
    late: str | None
    queue: int | None
    profile: str | None
    threads: int | None
    demo: bool

    def check_serving(self, bundle: bool, triton: bool) -> None:
        """UsageError for options that go with others which are not there."""
        if self.serve and not bundle:
            raise click.UsageError("--serve goes with --bundle: export first, then serve the bundle.")
        if self.adaptive and not triton:
            raise click.UsageError("--adaptive goes with --bundle and --triton: it says which repository is written.")
        for name in (field.name for field in fields(ServingOptions)):
            value = getattr(self, name)
            if value is None or value is False:  # a port of 0 was given
                continue
            goes = self.serve or (self.adaptive and name in OF_BOTH) or name == "adaptive"
            if not goes:
                also = " or --triton --adaptive" if name in OF_BOTH else ""
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --serve{also}.")
        if self.slo_ms is not None and not (math.isfinite(self.slo_ms) and self.slo_ms > 0):
            raise UserError(f"--slo-ms {self.slo_ms}: expected milliseconds above 0.")

    @property
    def address(self) -> tuple[str, int]:
        return self.host or HOST, PORT if self.port is None else self.port

    @property
    def chosen_policy(self) -> dict[str, Any]:
        """The arguments that a runtime and a Triton model share, as far as they were given."""
        return {name: value for name in OF_BOTH if (value := getattr(self, name)) is not None}

    @property
    def of_runtime(self) -> dict[str, Any]:
        """The arguments of a runtime that were given."""
        names = ("late", "queue", "profile", "threads")
        return {**self.chosen_policy, **{name: value for name in names if (value := getattr(self, name)) is not None}}


def one_precision(precisions: list[str], what: str) -> str:
    """Of all widths that are served."""
    if len(precisions) != 1:
        raise UserError(f"--precision {','.join(precisions)}: {what} takes one, as in --precision {EXACT}.")
    return precisions[0]
