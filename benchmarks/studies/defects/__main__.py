"""Whether the proof of an export catches single defects in its files: caught, harmless, missed, of every precision.

    python -m benchmarks.studies.defects [--networks us_mobilenet_v1,...] [--image-size 64] [--defects 1000] [--json r.json]
    python -m benchmarks.studies.defects --ckpt runs/digits/us_mbv1.pt [--width 0.5] [--defects 1000] [--json r.json]

Each defect (`mutations.py`), none twice, is put into a file that was exported and proven; then the file is proven as the
export does it, as `--verify-only` does with nothing but the bundle in the same onnxruntime on the same processor, and as it
does elsewhere, where roundings may fall otherwise. One that no longer loads or runs is counted apart: that is no merit of the
proof. What a proof lets pass is harmless if no output changes by more than the file's tolerance on 64 fresh images, which are
digits of a checkpoint and noise of an untrained network; else it was missed. The tolerance of int8 files is a hundredth of the
scale, and of all files of fewer bits elsewhere what roundings move them by (`own_tolerance`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.defects.trying import OUTCOMES, Task, tried
from benchmarks.studies.defects.victim import WAYS
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimexport.target.precision import PRECISIONS
from slimtrain.base.command import script_messages
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.defects"
NETWORKS = "us_mobilenet_v1,s_mobilenet_v2,s_resnet50,s_shufflenet"


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A row per way of proving and precision."""
    lines = [["proof", "precision", "tried", *OUTCOMES]]
    for way, title in WAYS.items():
        for precision in dict.fromkeys(row["precision"] for row in rows):
            counts = Counter(row[way] for row in rows if row["precision"] == precision)
            lines.append([title, precision, str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
    return lines


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--networks", default=NETWORKS, help="untrained")
    parser.add_argument("--ckpt", help="a trained one, on digits")
    parser.add_argument("--width", type=float, help="[default: the narrowest]")
    parser.add_argument("--image-size", type=int, default=64, help="of untrained networks")
    parser.add_argument("--defects", type=int, default=1000, help="defects of each precision, over all networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="that work at once")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "onnx", "onnxruntime")
    with script_messages(PROGRAM, "interrupted, nothing was written."):
        names = [arguments.ckpt] if arguments.ckpt else [f"random:{name}" for name in arguments.networks.split(",")]
        size = None if arguments.ckpt else arguments.image_size
        files = [row.name for row in PRECISIONS.values() if row.weight_bytes]
        most = -(-arguments.defects // len(names))
        tasks = [
            Task(name, arguments.width, size, precision, most, arguments.seed + number)
            for number, name in enumerate(names)
            for precision in files
        ]
        rows, tolerances = tried(tasks, arguments.processes)
        header, *lines = summary(rows)
        print(table(header, lines))
        command = " ".join(_words(arguments))
        result = {"command": command, "environment": environment(), "tolerances": tolerances, "rows": rows}
        write_result(arguments.json, result)


def _words(arguments: Any) -> list[str]:
    words = [f"python -m {PROGRAM}"]
    given = (
        {"ckpt": arguments.ckpt} if arguments.ckpt else {"networks": arguments.networks, "image_size": arguments.image_size}
    )
    given |= {"width": arguments.width, "defects": arguments.defects, "seed": arguments.seed}
    return words + [f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value is not None]


if __name__ == "__main__":
    main()
