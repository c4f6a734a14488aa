"""What runtimes other than ours read of our ONNX files: which file each reads, how far off it is, how fast beside onnxruntime.

    python -m benchmarks.studies.consumers [--networks us_mobilenet_v1,...] [--readers ncnn,mnn,...] [--json r.json]

Runtimes that are not installed are left out, which is said, with what installs them. Into an environment of its own, over
one that has this package: python -m venv V; V/bin/pip install '.[openvino]' opencv-python-headless ncnn pnnx MNN tract
apache-tvm onnx2torch netron. Every file is opened in a process of its own. Networks are untrained: what is expected is what
the file says, operator by operator in onnxruntime without optimizations; that untrained networks magnify roundings is seen
in the rows of onnxruntime itself. netron, which computes nothing, is asked what it shows, by node.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.consumers import netron
from benchmarks.studies.consumers.files import NETWORKS, NetworkFile, write_files
from benchmarks.studies.consumers.readers import BASELINE, READERS
from benchmarks.studies.consumers.trial import in_own_process
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.packages import is_installed
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.consumers"


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """A comma-separated list of known names. UserError for another one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"{what} {name!r}: not known{nearest(name, known)}. Available: {', '.join(known)}.")
    return names


def versions(packages: str) -> dict[str, str]:
    """Of a reader's packages, where they tell it; onnxruntime comes in one of two."""
    known = {}
    for package in packages.split():
        for name in (package, f"{package}-gpu"):
            try:
                known[package] = version(name)
            except PackageNotFoundError:
                continue
    return known


def rows_of(name: str, files: Sequence[NetworkFile], threads: int, count: int) -> list[dict[str, Any]]:
    """What a runtime makes of every file."""
    rows = []
    for file in files:
        outcome = in_own_process(name, file, threads, count)
        rows.append({"network": file.network, "width": file.width, "precision": file.precision, **outcome})
        print(f"{name}, {file.label}: {outcome.get('error') or outcome['one']} {outcome.get('ms', '')}", flush=True)
    return rows


def summary(results: Mapping[str, Any]) -> str:
    """A line for each runtime and precision: how many files it reads, with one image and with two, how far it is off at the
    most, and its time over onnxruntime's, the least and the most."""
    header = ["runtime", "precision", "reads", "two images", "off by at most", "time over onnxruntime's", "why not"]
    lines = []
    for name, reader in results.items():
        for precision in dict.fromkeys(row["precision"] for row in reader["rows"]):
            rows = [row for row in reader["rows"] if row["precision"] == precision]
            read = [row for row in rows if "one" in row]
            two = [row for row in read if "max_rel_error" in row["two"]]
            errors = [row["one"].get("max_rel_error") for row in read]
            known = [error for error in errors if error is not None]
            off = "not finite" if len(known) < len(errors) else f"{max(known):.1e}" if known else "-"
            shares = [row["ms"][name] / row["ms"][BASELINE] for row in read if BASELINE in row.get("ms", {})]
            times = f"{min(shares):.2f} to {max(shares):.2f}" if shares and name != BASELINE else "-"
            why = next((row["error"] for row in rows if "error" in row), "")
            lines.append([name, precision, f"{len(read)} of {len(rows)}", f"{len(two)} of {len(read)}", off, times, why])
    return table(header, lines)


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many files netron opens, and shows as they are."""
    whole = [row for row in rows if "error" not in row and row["operators"] and row["inputs"] and row["outputs"]]
    wrong = [f"{row['file']} ({row.get('error', 'not as it is')})" for row in rows if row not in whole]
    return f"opens {len(whole)} of {len(rows)} and shows their nodes, inputs and outputs" + "".join(
        f"; {one}" for one in wrong
    )


def main() -> None:
    parser = script_parser(__doc__)
    parser.prog = f"python -m {PROGRAM}"
    parser.add_argument("--networks", default=",".join(NETWORKS), help="of these, comma-separated", metavar="NAMES")
    parser.add_argument("--readers", default=",".join(READERS), help="of these, comma-separated", metavar="NAMES")
    parser.add_argument("--image-size", type=int, default=224, help="in pixels")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime")
    parser.add_argument("--runs", type=int, default=10, help="of a turn; 0 for no times")
    parser.add_argument("--folder", type=Path, help="where files are written and stay", metavar="DIR")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "onnx", "onnxruntime")
    with script_messages(PROGRAM), tempfile.TemporaryDirectory() as scratch:
        names = chosen(arguments.networks, list(NETWORKS), "network")
        readers = chosen(arguments.readers, list(READERS), "runtime")
        files = write_files(arguments.folder or Path(scratch), names, arguments.image_size)
        results, missing = {}, {}
        for name in readers:
            reader = READERS[name]
            if not all(map(is_installed, reader.modules)):
                missing[name] = f"pip install {reader.packages}"
                print(f"{name}: left out, it is not installed: {missing[name]}", flush=True)
                continue
            rows = rows_of(name, files, arguments.threads, arguments.runs)
            results[name] = {"versions": versions(reader.packages), "how": reader.how, "rows": rows}
        print(summary(results))
        shown = []
        if reason := netron.missing():
            missing["netron"] = reason
            print(f"netron: left out, it needs {reason}")
        else:
            shown = [{"file": f.label, **row} for f, row in zip(files, netron.opened([f.path for f in files]), strict=True)]
            print(f"netron: {drawn(shown)}")
        command = f"python -m {PROGRAM} --networks {arguments.networks} --readers {arguments.readers}"
        settings = {"image_size": arguments.image_size, "threads": arguments.threads, "runs": arguments.runs}
        origin = {"command": command, "settings": settings, "environment": environment()}
        write_result(arguments.json, {**origin, "left_out": missing, "readers": results, "netron": shown})


if __name__ == "__main__":
    main()
