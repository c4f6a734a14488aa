"""Found networks beside uniform widths, over several seeds: the search's whole path, again and again.

    python -m benchmarks.studies.search_seeds [--config digits] [--seeds 0,1,2] [--set KEY=VALUE] [--output-dir DIR] [--json F]

Each seed is a run of `python -m slimtrain search CONFIG --finish`: it trains the network to slim, slims it, trains what was
found and uniform widths of equal cost alike, and exports it. A killed run goes on where it was. Spread is the standard
deviation over seeds (n - 1); test images are the same for all, so it holds the training's chance and not the images'.
"""

from __future__ import annotations

import csv
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result

COMPARISON = "comparison.csv"
COUNTED = ("macs", "params", "uniform_macs", "uniform_params", "images")


def run_seed(config: str, seed: int, changes: Sequence[str], folder: Path) -> None:
    """One whole path into `folder`. SystemExit with its exit code where it fails."""
    words = ["search", config, "--set", f"seed={seed}", "--finish", "--resume", "auto", "--output-dir", str(folder)]
    words += [word for change in changes for word in ("--set", change)]
    print(f"+ python -m slimtrain {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "slimtrain", *words], check=False).returncode
    if code:
        raise SystemExit(code if code > 0 else 1)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """comparison.csv with numbers as such; a row per target."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(key: str, text: str) -> str | int | float:
    return text if key == "plan" else int(text) if key in COUNTED else float(text)


def summarize(runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Per target, in the order of the runs: mean and standard deviation over seeds of top-1 (percent) of the found network
    and the uniform one, of their difference (points), and in how many seeds the found one is ahead, equal or behind."""
    summary = []
    for rows in zip(*runs.values(), strict=True):
        if len({row["target"] for row in rows}) != 1:
            raise ValueError("the runs have other targets")
        searched = [100 * row["top1"] for row in rows]
        uniform = [100 * row["uniform_top1"] for row in rows]
        differences = [a - b for a, b in zip(searched, uniform, strict=True)]
        summary.append(
            {
                "target": rows[0]["target"],
                "macs": [row["macs"] for row in rows],
                "uniform_macs": [row["uniform_macs"] for row in rows],
                "params": [row["params"] for row in rows],
                "uniform_params": [row["uniform_params"] for row in rows],
                "found_percent": _spread(searched),
                "uniform_percent": _spread(uniform),
                "difference_points": _spread(differences),
                "ahead": sum(value > 0 for value in differences),
                "equal": sum(value == 0 for value in differences),
                "behind": sum(value < 0 for value in differences),
            }
        )
    return summary


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 3), "deviation": round(deviation, 3)}


def lines(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """The summary as text, a line per target."""
    shown = [f"{'target MACs':>12}  {'found':>14}  {'uniform':>14}  {'difference':>14}  ahead/equal/behind  parameters"]
    for row in summary:
        cells = [
            f"{row[key]['mean']:{sign}.2f} ± {row[key]['deviation']:.2f}"
            for key, sign in (("found_percent", ""), ("uniform_percent", ""), ("difference_points", "+"))
        ]
        counts = f"{row['ahead']}/{row['equal']}/{row['behind']}"
        params = " / ".join(f"{statistics.fmean(row[key]):,.0f}" for key in ("params", "uniform_params"))
        shown.append(f"{row['target']:>12,.0f}  " + "  ".join(f"{cell:>14}" for cell in cells) + f"  {counts:>18}  {params}")
    return shown


def _seeds(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="LIST")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as of slimtrain")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/seeds"), help="a folder per seed is made in it")
    arguments = parse(parser)
    runs = {}
    for seed in arguments.seeds:
        folder = arguments.output_dir / f"seed_{seed}"
        run_seed(arguments.config, seed, arguments.changes, folder)  # a finished one is checked to be of these settings
        runs[seed] = read_rows(folder / COMPARISON)
    summary = summarize(runs)
    print("\n".join(lines(summary)))
    if arguments.json:
        words = ["--config", arguments.config, "--seeds", ",".join(map(str, arguments.seeds))]
        words += [word for change in arguments.changes for word in ("--set", change)]
        result = {
            "command": f"python -m benchmarks.studies.search_seeds {shlex.join(words)}",
            "environment": environment(),
            "summary": summary,
            "seeds": {str(seed): rows for seed, rows in runs.items()},
        }
        write_result(arguments.json, result)


if __name__ == "__main__":
    main()
