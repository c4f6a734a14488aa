"""Our ONNX files in every minor version of onnxruntime that pip has for this Python: which load, how far off, how fast.

    python -m benchmarks.studies.onnxruntimes --environments DIR [--versions 1.16,1.31] [--networks ...] [--json r.json]

Each version gets an environment of its own below DIR, with pip (versions before 1.19 need numpy below 2), and runs all files
in one process of it. What is there already is used again. What is expected is what this environment's onnxruntime computes
operator by operator, without optimizations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.consumers.files import NETWORKS, TRACED, NetworkFile, write_files
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.text import table

RUN_FILES = Path(__file__).with_name("run_files.py")
PROGRAM = "benchmarks.studies.onnxruntimes"
VERSIONS = ",".join(f"1.{minor}" for minor in range(16, 33))
NUMPY_2 = 19  # the first minor version that is built for numpy 2
TRIED = ("us_mobilenet_v1", "s_resnet50", "s_shufflenet", "us_mnasnet", TRACED)


def environment_of(folder: Path, version: str) -> Path | str:
    """The Python of an environment below `folder` with a minor version of onnxruntime; or pip's reason why there is none."""
    place = folder / version
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if python.exists() and not _failed([str(python), "-c", "import onnxruntime"]):
        return python
    numpy = "numpy<2" if int(version.partition(".")[2]) < NUMPY_2 else "numpy"
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"onnxruntime=={version}.*", numpy]
    for words in ([sys.executable, "-m", "venv", str(place)], install, [str(python), "-c", "import onnxruntime"]):
        if reason := _failed(words):
            return reason
    return python


def _failed(words: Sequence[str]) -> str:
    """The last line that a failed command said, or nothing."""
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with {done.returncode}") if done.returncode else ""


def outcomes(python: Path, files: Sequence[NetworkFile]) -> dict[str, Any]:
    """What the onnxruntime of an environment makes of the files: its version, numpy's, and a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "files.json"
        entries = [{"path": str(f.path), "images": str(f.images), "expected": str(f.expected)} for f in files]
        listed.write_text(json.dumps(entries), encoding="utf-8")
        command = [str(python), str(RUN_FILES), str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=folder)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    rows = zip(files, result["rows"], strict=True)
    result["rows"] = [{"network": f.network, "width": f.width, "precision": f.precision, **row} for f, row in rows]
    return result


def summary(results: Mapping[str, Any]) -> str:
    """A line for each version, and for each precision how many files it runs and how far they are off at the most."""
    precisions = list(dict.fromkeys(row["precision"] for result in results.values() for row in result.get("rows", ())))
    lines = []
    for version, result in results.items():
        if "error" in result:
            lines.append([version, *(["-"] * len(precisions)), result["error"]])
            continue
        cells = [_cell([row for row in result["rows"] if row["precision"] == precision]) for precision in precisions]
        lines.append([result["onnxruntime"], *cells, next((row["error"] for row in result["rows"] if "error" in row), "")])
    return table(["onnxruntime", *precisions, "why not"], lines)


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    """`8 of 8, 1.2e-06`."""
    ran = [row for row in rows if "error" not in row]
    errors = [row["max_rel_error"] for row in ran]
    off = "" if not ran else ", not finite" if None in errors else f", {max(errors):.1e}"
    return f"{len(ran)} of {len(rows)}{off}"


def main() -> None:
    parser = script_parser(__doc__)
    parser.prog = f"python -m {PROGRAM}"
    parser.add_argument("--environments", type=Path, required=True, help="where they are made", metavar="DIR")
    parser.add_argument("--versions", default=VERSIONS, help="of these, comma-separated", metavar="LIST")
    parser.add_argument("--networks", default=",".join(TRIED), help=f"of {', '.join(NETWORKS)}", metavar="NAMES")
    parser.add_argument("--image-size", type=int, default=64, help="in pixels")
    parser.add_argument("--folder", type=Path, help="where files are written and stay", metavar="DIR")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "onnx", "onnxruntime")
    with script_messages(PROGRAM), tempfile.TemporaryDirectory() as scratch:
        names = arguments.networks.split(",")
        if unknown := [name for name in names if name not in NETWORKS]:
            raise UserError(f"network {unknown[0]!r}: not known. Available: {', '.join(NETWORKS)}.")
        files = write_files(arguments.folder or Path(scratch), names, arguments.image_size)
        results: dict[str, Any] = {}
        for version in arguments.versions.split(","):
            python = environment_of(arguments.environments.resolve(), version)
            results[version] = {"error": python} if isinstance(python, str) else outcomes(python, files)
            print(f"onnxruntime {version}: {results[version].get('error') or 'done'}", flush=True)
        print(summary(results))
        command = f"python -m {PROGRAM} --environments DIR --versions {arguments.versions} --networks {arguments.networks}"
        origin = {"command": f"{command} --image-size {arguments.image_size}", "environment": environment()}
        write_result(arguments.json, {**origin, "python": sys.version.split()[0], "versions": results})


if __name__ == "__main__":
    main()
