"""All published switches of the ten networks on this device: published top-1 error against measured latency, in one picture.

    python -m benchmarks.studies.zoo --output-dir measured/zoo
    python -m benchmarks.studies.zoo --networks s_mobilenet_v1,autoslim_mobilenet_v1 --batches 1 --threads 1

Writes zoo.png (the joint Pareto front by latency, and by MACs), report.md, results.jsonl and results.csv. Errors are the
published ones, not measured here; weights are random, which latency does not depend on. An interrupted run goes on where it
was; a finished one is drawn again, or measured anew with --again.
"""

from __future__ import annotations

import functools
from pathlib import Path

import click

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.records import REPORT, RESULTS, TABLE, write_csv
from benchmarks.machine.environment import study_command
from benchmarks.measure.method import Method
from benchmarks.measure.progress import RoundProgress
from benchmarks.studies.script import needs, script_parser
from slimexport.target.precision import EXACT
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.files import write_atomically
from slimtrain.models.published import PUBLISHED

PROGRAM = "benchmarks.studies.zoo"
PICTURE = "zoo.png"
COLOURS = 256  # of the picture's file: pale marks of five colours
AGAIN = "interrupted. What was measured is kept: the same command goes on from it."


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--networks", default=",".join(PUBLISHED), help="of the published ones", metavar="LIST")
    parser.add_argument("--batches", default="1,32", help="a panel for each", metavar="LIST")
    parser.add_argument("--backend", default=ONNXRUNTIME_CPU, help="one of python -m benchmarks that runs ONNX files")
    parser.add_argument("--precision", default=EXACT, help="of the files: fp32, fp16, int8-cpu, ...")
    parser.add_argument("--threads", type=int, help="of CPU backends (default: one per physical core)", metavar="N")
    parser.add_argument("--duration", type=float, default=1.2, help="seconds per switch and batch, all rounds", metavar="S")
    parser.add_argument("--repeats", type=int, default=4, help="rounds: in each all networks take their turn", metavar="N")
    parser.add_argument("--warmup", type=float, default=100, help="before each turn", metavar="MS")
    parser.add_argument("--output-dir", type=Path, default=Path("measured/zoo"), metavar="DIR")
    parser.add_argument("--again", action="store_true", help="measure anew where there are results")
    arguments = parser.parse_args()
    needs(PROGRAM, "torch", "onnx", "matplotlib")
    with script_messages(PROGRAM, AGAIN):
        from benchmarks.studies.zoo.document import console, draw, report
        from benchmarks.studies.zoo.run import Asked, zoo_results

        asked = Asked(
            tuple(filter(None, arguments.networks.split(","))),
            _batches(arguments.batches),
            arguments.backend,
            arguments.precision,
            arguments.threads,
            Method(arguments.duration, arguments.repeats, arguments.warmup / 1e3),
        )
        say = functools.partial(click.echo, err=True)
        with RoundProgress() as progress:
            recorded = zoo_results(asked, arguments.output_dir, study_command(PROGRAM), say, progress, arguments.again)
        draw(recorded, arguments.output_dir / PICTURE, COLOURS)
        write_atomically(arguments.output_dir / REPORT, report(recorded, PICTURE).encode())
        write_csv(arguments.output_dir / TABLE, recorded.results)
        print(console(recorded))
        say(f"{arguments.output_dir}: {PICTURE}, {REPORT}, {RESULTS}, {TABLE}")


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UserError(f"--batches {text}: expected whole numbers from 1, as in 1,32.") from error


if __name__ == "__main__":
    main()
