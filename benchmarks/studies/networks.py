"""The ten published networks on this machine: smallest, middle and largest switch, with random weights.

    python -m benchmarks.studies.networks [--networks us_mobilenet_v1,...] [--output-dir DIR] [options of python -m benchmarks]

Exports them with `slimexport` into a temporary folder and measures them with `python -m benchmarks`; what a network computes
does not change how long it takes, so weights are random. Prints one table over all networks at the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cells.records import Recorded, read_records
from benchmarks.report.analysis import AnalysisRow, Group, analyse
from benchmarks.report.tables import significant
from benchmarks.studies.script import script_parser
from slimtrain.base.command import script_messages
from slimtrain.costs.cost import format_macs

OUTPUT = Path("measured/networks")


def middle(plans: Sequence[float]) -> list[float]:
    """The smallest, the middle and the largest of a network's switches."""
    ordered = sorted(plans)
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def export(names: Sequence[str], folder: Path) -> list[Path]:
    """A bundle of each network below `folder`."""
    from slimtrain.models.published import published_spec

    bundles = []
    for name in names:
        widths = ",".join(str(width) for width in middle(published_spec(name).switches))
        bundles.append(folder / name)
        words = ["--ckpt", f"random:{name}", "--widths", widths, "--output-dir", str(bundles[-1])]
        if code := subprocess.run([sys.executable, "-m", "slimexport", *words], check=False).returncode:
            sys.exit(code)  # it has said why
    return bundles


def table(recorded: Recorded) -> str:
    """All networks at batch 1 and at the largest batch: latency, throughput, and speed-up next to what MACs promise."""
    groups = analyse(recorded.results, recorded.run["ceilings"])
    backends = {(group.key[1], group.key[2]): None for group in groups}
    lines = []
    for backend, precision in backends:
        mine = [group for group in groups if group.key[1:3] == (backend, precision)]
        small, large = min(group.key[3] for group in mine), max(group.key[3] for group in mine)
        lines += [
            f"{backend}, {precision}",
            f"| network | width | MACs | ms at batch {small} | images/s at batch {large} | speed-up | promised | efficiency |",
            "|---|---|---|---|---|---|---|---|",
            *_rows(mine, small, large),
        ]
    return "\n".join(lines)


def _rows(groups: Sequence[Group], small: int, large: int) -> list[str]:
    rows = []
    for group in (group for group in groups if group.key[3] == small):
        other = next(beside for beside in groups if beside.key[0] == group.key[0] and beside.key[3] == large)
        for row, wide in zip(group.rows, other.rows, strict=True):
            assert row.cell.name == wide.cell.name
            cells = [row.cell.network, row.cell.label, format_macs(row.cell.macs)]
            cells += [
                _figure(row, "median_ms"),
                _figure(wide, "images_per_s"),
            ]
            cells += [significant(row.speedup, 3), significant(row.promised, 3)]
            cells += ["" if row.efficiency is None else f"{row.efficiency:.0%}"]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def _figure(row: AnalysisRow, name: str) -> str:
    return "" if row.summary is None else significant(getattr(row.summary, name))


def main() -> None:
    from slimtrain.models.published import PUBLISHED

    parser = script_parser(__doc__)
    parser.add_argument("--networks", default=",".join(PUBLISHED))
    parser.add_argument("--output-dir", type=Path, default=OUTPUT)
    arguments, options = parser.parse_known_args()
    with script_messages("networks"), tempfile.TemporaryDirectory() as name:
        bundles = export(arguments.networks.split(","), Path(name))
        words = [*map(str, bundles), "--output-dir", str(arguments.output_dir), *options]
        code = subprocess.run([sys.executable, "-m", "benchmarks", *words], check=False).returncode
    if code == 0:
        print(table(read_records(arguments.output_dir)))
    sys.exit(code)


if __name__ == "__main__":
    main()
