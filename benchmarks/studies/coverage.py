"""How many networks become slimmable: torchvision's classifiers, 110 of timm's, 100 more drawn by a seed, and 57 others.

    python -m benchmarks.studies.coverage --json benchmarks/results/coverage.json
    python -m benchmarks.studies.coverage --lists timm --only resnet18,vit_tiny_patch16_224

Each network (random numbers everywhere, batch norms with statistics) is exported, its channel groups are found, its
half-width network is held against the masked full one in float64 and written as ONNX, which is held against it at batch 1
and 3. The names stand in `any_network/names.py`. With --peer, Torch-Pruning is given the same networks at the same ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.any_network.names import LISTS
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.coverage"
ENOUGH = 1 / 3  # of the MACs at half width


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--lists", default=",".join(LISTS), help="of these, comma-separated")
    parser.add_argument("--only", default="", help="names of these lists alone, comma-separated", metavar="NAMES")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--peer", action="store_true", help="Torch-Pruning on the same networks, too")
    parser.add_argument("--rows", type=Path, help="a line of JSON for every network done, which a later run goes on from")
    return parser


def main() -> None:
    arguments = parse(_parser())
    needs(PROGRAM, "torch", "torchvision", "timm", "onnx", "onnxruntime", *(["torch_pruning"] if arguments.peer else []))
    with script_messages(PROGRAM):
        import torch

        torch.set_num_threads(arguments.threads)
        before = environment()
        rows = _rows(arguments)
        result = {"command": _command(arguments), "environment": before, "sums": sums(rows), "rows": rows}
        print(summary(rows))
        write_result(arguments.json, result)


def _command(arguments: argparse.Namespace) -> str:
    peer = " --peer" if arguments.peer else ""
    only = f" --only {arguments.only}" if arguments.only else ""
    return f"python -m {PROGRAM} --lists {arguments.lists}{only} --threads {arguments.threads}{peer}"


def _rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every network of the lists, those of an earlier run taken over."""
    from benchmarks.studies.any_network.peer import pruned
    from benchmarks.studies.any_network.trial import tried

    lists = arguments.lists.split(",")
    if unknown := [name for name in lists if name not in LISTS]:
        raise UserError(f"--lists {','.join(unknown)}: expected some of {', '.join(LISTS)}.")
    only = set(filter(None, arguments.only.split(",")))
    done: dict[tuple[str, str], dict[str, Any]] = {}
    if arguments.rows is not None and arguments.rows.exists():
        for line in arguments.rows.read_text().splitlines():
            row = json.loads(line)
            done[row["list"], row["name"]] = row
    rows = []
    for name_of_list in lists:
        library, names = LISTS[name_of_list]
        for name in names:
            if only and name not in only:
                continue
            row = dict(done.get((name_of_list, name)) or {"list": name_of_list, **tried(library, name).plain()})
            if arguments.peer and "peer" not in row:
                row["peer"] = pruned(library, name)
            if arguments.rows is not None and row != done.get((name_of_list, name)):
                with arguments.rows.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
            print(describe(row), flush=True)
            rows.append(row)
            gc.collect()
    return rows


def describe(row: dict[str, Any]) -> str:
    """A network in a line."""
    marks = " ".join(mark if row[mark] else f"no {mark}" for mark in ("exported", "proven", "onnx"))
    kept = f"{row['macs']:.3f} of the MACs, {row['parameters']:.3f} of the weights"
    shown = f"{row['name']}: {marks}, {row['groups']} groups, {kept}"
    return f"{shown}  ({row['cause'][:120]})" if row["cause"] else shown


def sums(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """What holds for how many networks of every list."""
    return {
        name: {
            "networks": len(of_list),
            "exported": sum(row["exported"] for row in of_list),
            "with groups": sum(row["groups"] > 0 for row in of_list),
            "proven": sum(row["proven"] for row in of_list),
            "a third of the MACs": sum(row["macs"] <= ENOUGH for row in of_list),
            "onnx": sum(row["onnx"] for row in of_list),
            **({"peer": sum(bool(row["peer"]["runs"]) for row in of_list)} if all("peer" in row for row in of_list) else {}),
        }
        for name in dict.fromkeys(row["list"] for row in rows)
        if (of_list := [row for row in rows if row["list"] == name])
    }


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The sums as a table."""
    counted = sums(rows)
    keys = list(next(iter(counted.values()), {}))
    return table(["list", *keys], [[name, *(str(figures[key]) for key in keys)] for name, figures in counted.items()])


if __name__ == "__main__":
    main()
