"""What a served bundle is judged by: deadlines and accuracy under load, a request's cost beside its network, an hour's soak.

    python -m benchmarks.studies.serving figures [--seconds 30] [--repeats 1] [--digits BUNDLE|CKPT] [--json r.json]
    python -m benchmarks.studies.serving overhead [--seconds 30] [--json r.json]
    python -m benchmarks.studies.serving soak [--minutes 60] [--json r.json]
    python -m benchmarks.studies.serving simulation [--results results.jsonl] [--seconds 30] [--json r.json]

figures: US-MobileNet v1 with its published errors, at random weights and all widths, and the digits network with measured
accuracy, in requests of 16, as one digit takes less than Python does for a request. Each trace on every open width by itself,
on slackfit and on drain: 4 traces, 7 policies, 2 networks, with --seconds 30 about 40 minutes, and 5 to export and train.
overhead: submit to answer less the network's own time, idle, in process and over HTTP: twice --seconds and a minute. soak:
--minutes and 3 more to export. simulation: the same figures beside a counted clock, of latencies that are committed: less than
--seconds, on a machine that may do something else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.studies.script import parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError

PROGRAM = "benchmarks.studies.serving"
FIGURES, OVERHEAD, SOAK, SIMULATION = PARTS = ("figures", "overhead", "soak", "simulation")
RESULTS = Path("benchmarks/results/zoo_cpu/results.jsonl")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("part", choices=PARTS, help="what is measured")
    parser.add_argument("--bundle", type=Path, help="of US-MobileNet v1 (default: exported, at random weights)", metavar="DIR")
    parser.add_argument(
        "--digits", type=Path, help="of figures: the digits' bundle or checkpoint (default: trained)", metavar="PATH"
    )
    parser.add_argument("--only", choices=("published", "digits"), help="of figures: one of both (default: both)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a trace, or of a way of asking", metavar="S")
    parser.add_argument("--minutes", type=float, default=60.0, help="of soak", metavar="M")
    parser.add_argument("--repeats", type=int, default=1, help="of figures: rounds", metavar="N")
    parser.add_argument("--slo-ms", type=float, default=50.0, metavar="MS")
    parser.add_argument("--digits-images", type=int, default=16, help="of figures, in a request of the digits", metavar="N")
    parser.add_argument("--load", type=float, default=0.8, help="of soak: of the widest's capacity")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of simulation: latencies", metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parse(parser)
    with script_messages(PROGRAM, "interrupted, nothing was written."):
        check(arguments)
        write_result(arguments.json, part(arguments))


def check(arguments: argparse.Namespace) -> None:
    """UserError for numbers that mean nothing."""
    for name in ("seconds", "minutes", "repeats", "slo_ms", "digits_images", "load"):
        value = getattr(arguments, name)
        if not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g}: expected a number above 0.")


def part(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured; it is printed meanwhile."""
    if arguments.part == SIMULATION:
        from benchmarks.studies.serving.simulated import simulated

        return simulated(arguments.results, arguments.seconds, arguments.slo_ms, arguments.seed)
    if arguments.part == OVERHEAD:
        from benchmarks.studies.serving.overhead import overhead

        return overhead(arguments.bundle, arguments.seconds)
    if arguments.part == SOAK:
        from benchmarks.studies.serving.soak import soak

        return soak(arguments.bundle, 60 * arguments.minutes, arguments.load, arguments.slo_ms, arguments.seed)
    from benchmarks.studies.serving.measured import measured

    return measured(arguments)


if __name__ == "__main__":
    main()
