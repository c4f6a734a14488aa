"""Whether the proof of an export catches single defects in its files: caught, harmless, missed, of every precision.

    python -m benchmarks.studies.defects [--networks us_mobilenet_v1,...] [--image-size 64] [--defects 1000] [--verify-only]
    python -m benchmarks.studies.defects --ckpt runs/digits/us_mbv1.pt [--width 0.5] [--defects 1000] [--json r.json]
    python -m benchmarks.studies.defects ... --precisions fp16 --json r.json   # hours: add to what r.json has of others

Each defect (`mutations.py`), none twice, is put into a file that was exported and proven; then the file is proven as the
export does it, as `--verify-only` does with nothing but the bundle in the same onnxruntime on the same processor, and as it
does elsewhere, where roundings may fall otherwise. One that no longer loads or runs is counted apart: that is no merit of the
proof. What a proof lets pass is harmless if no output changes by more than the file's tolerance on 64 fresh images, which are
digits of a checkpoint and noise of an untrained network; else it was missed. The tolerance of int8 files is a hundredth of the
scale, and of all files of fewer bits elsewhere what roundings move them by (`own_tolerance`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.defects.trying import OUTCOMES, Task, tried
from benchmarks.studies.defects.victim import WAYS
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimexport.target.precision import PRECISIONS
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.defects"
FILES = [row.name for row in PRECISIONS.values() if row.weight_bytes]
NETWORKS = "us_mobilenet_v1,s_mobilenet_v2,s_resnet50,s_shufflenet"


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A row per way of proving and precision."""
    lines = [["proof", "precision", "tried", *OUTCOMES]]
    for way, title in [(way, title) for way, title in WAYS.items() if rows and way in rows[0]]:
        for precision in dict.fromkeys(row["precision"] for row in rows):
            counts = Counter(row[way] for row in rows if row["precision"] == precision)
            lines.append([title, precision, str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
    return lines


def chosen(precisions: str) -> list[str]:
    """The precisions of a list with commas, in the table's order. UserError for what is not a file's."""
    names = [name.strip() for name in precisions.split(",")]
    for name in names:
        if name not in FILES:
            raise UserError(f"precision {name!r}: not a file's{nearest(name, FILES)}. Available: {', '.join(FILES)}.")
    return [name for name in FILES if name in names]


def with_earlier(path: Path | None, command: str, result: dict[str, Any]) -> dict[str, Any]:
    """A result, and what the file that it goes to has of other precisions, where the same command measured that."""
    if path is None or not path.exists():
        return result
    earlier = json.loads(path.read_text())
    if earlier["command"] != command:
        return result
    earlier["rows"] = unpacked(earlier["rows"])
    now = {row["precision"] for row in result["rows"]}
    joined = {
        key: sorted(
            [*(row for row in earlier[key] if row["precision"] not in now), *result[key]],
            key=lambda row: (names.index(row["network"]), FILES.index(row["precision"])),
        )
        for key in ("tolerances", "rows")
        for names in [list(dict.fromkeys(row["network"] for row in [*earlier[key], *result[key]]))]
    }
    return {**result, **joined}


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as a file has thousands of them: the columns' names, and a line of JSON for each row."""
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "lines": [json.dumps([row[column] for column in columns]) for row in rows]}


def unpacked(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows again."""
    return [dict(zip(table["columns"], json.loads(line), strict=True)) for line in table["lines"]]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--networks", default=NETWORKS, help="untrained")
    parser.add_argument("--ckpt", help="a trained one, on digits")
    parser.add_argument("--width", type=float, help="[default: the narrowest]")
    parser.add_argument("--image-size", type=int, default=64, help="of untrained networks")
    parser.add_argument("--defects", type=int, default=1000, help="defects of each precision, over all networks")
    parser.add_argument("--precisions", default=",".join(FILES), help="of files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="that work at once")
    parser.add_argument("--verify-only", action="store_true", help="try this alone, which takes a fifth of the time")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "onnx", "onnxruntime")
    with script_messages(PROGRAM, "interrupted, nothing was written."):
        names = [arguments.ckpt] if arguments.ckpt else [f"random:{name}" for name in arguments.networks.split(",")]
        size = None if arguments.ckpt else arguments.image_size
        files = chosen(arguments.precisions)
        most = -(-arguments.defects // len(names))
        tasks = [
            Task(name, arguments.width, size, precision, most, arguments.seed + number, not arguments.verify_only)
            for number, name in enumerate(names)
            for precision in files
        ]
        rows, tolerances = tried(tasks, arguments.processes)
        command = " ".join(_words(arguments))
        result: dict[str, Any] = {"command": command, "environment": environment(), "tolerances": tolerances, "rows": rows}
        result = with_earlier(arguments.json, command, result)
        header, *lines = summary(result["rows"])
        print(table(header, lines))
        write_result(arguments.json, {**result, "rows": packed(result["rows"])})


def _words(arguments: Any) -> list[str]:
    words = [f"python -m {PROGRAM}"]
    given = (
        {"ckpt": arguments.ckpt} if arguments.ckpt else {"networks": arguments.networks, "image_size": arguments.image_size}
    )
    given |= {"width": arguments.width, "defects": arguments.defects, "seed": arguments.seed}
    words += [f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value is not None]
    return [*words, "--verify-only"] if arguments.verify_only else words


if __name__ == "__main__":
    main()
