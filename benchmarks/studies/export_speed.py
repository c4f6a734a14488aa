"""How long exporting takes, beside `torch.onnx.export(dynamo=True)` with the same verification on the same networks.

    python -m benchmarks.studies.export_speed [--widths all] [--repeats 3] [--json results.json]

Both sides are whole processes, import of torch included, measured in one run: `slimexport` as a user runs it, and a
plain loop that reads the same checkpoint, materializes the same dense networks, exports each with torch's exporter and
verifies each file in the same way. The checkpoint is written first, in the published layout. `slimexport` is measured
before and after the other, so that a drift of the machine would show.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import needs, parse, script_parser, write_result

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def write_checkpoint(name: str, path: Path) -> None:
    """An untrained network's weights as its published file would hold them."""
    import torch

    from slimtrain.checkpoints.checkpoint import open_checkpoint

    state = open_checkpoint(f"random:{name}").network.state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, path)


def torch_export(checkpoint: Path, widths: str, folder: Path) -> None:
    """The baseline: torch's exporter in a plain loop, and our verification of what it wrote."""
    import copy

    import torch

    from benchmarks.onnx_models.torch_export import torch_onnx
    from slimexport.dense import dense_network
    from slimexport.target.precision import EXACT, TOLERANCES
    from slimexport.target.proof.running import run_probes
    from slimexport.target.reference import Probes
    from slimexport.target.runners import OnnxRuntimeRunner
    from slimtrain.base.options import parse_widths
    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.data.noise import noise_images

    opened = open_checkpoint(checkpoint)
    exact = copy.deepcopy(opened.network).double()
    images = noise_images(2, opened.image_size, 1)
    for width in parse_widths(widths) or sorted(opened.spec.switches):
        plan = opened.spec.plan(width)
        path = folder / f"{plan.name}.onnx"
        torch_onnx(dense_network(opened.network, plan), torch.from_numpy(images), path)
        with torch.inference_mode(), exact.at(plan):
            reference = exact(torch.from_numpy(images).double()).numpy()
        comparison = run_probes(OnnxRuntimeRunner(path), Probes.of(images, reference))
        if not comparison.within(TOLERANCES[EXACT]):
            raise SystemExit(f"{path.name}: off by {comparison.max_rel_error}")


def measure(command: list[str]) -> dict[str, float]:
    """Wall seconds and peak resident memory of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    if resource is None:
        code, peak_kib = process.wait(), 0
    else:
        import os

        _, status, usage = os.wait4(process.pid, 0)
        code, peak_kib = os.waitstatus_to_exitcode(status), usage.ru_maxrss
    seconds = time.perf_counter() - start
    if code:
        raise SystemExit(f"{' '.join(command)} exited with {code}:\n{errors}")
    return {"seconds": round(seconds, 2), "peak_mib": round(peak_kib / 1024)}


def compare(network: str, widths: str, repeats: int) -> dict[str, Any]:
    """All measurements of one run, in plain values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / f"{network}.pt"
        write_checkpoint(network, checkpoint)
        ours = [sys.executable, "-m", "slimexport", "--ckpt", str(checkpoint), "--widths", widths, "--overwrite"]
        ours += ["--output-dir", str(folder / "bundle")]
        theirs = [sys.executable, "-m", "benchmarks.studies.export_speed", "--baseline", str(checkpoint), str(folder)]
        before = environment()
        measured = {"slimexport": [measure(ours) for _ in range(repeats)], "torch": [measure([*theirs, "--widths", widths])]}
        measured["slimexport"].append(measure(ours))
    median = sorted(run["seconds"] for run in measured["slimexport"])[len(measured["slimexport"]) // 2]
    return {
        "command": f"python -m benchmarks.studies.export_speed --network {network} --widths {widths} --repeats {repeats}",
        "environment": before,
        "runs": measured,
        "slimexport_median_seconds": median,
        "ratio": round(measured["torch"][0]["seconds"] / median, 1),
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--network", default="us_mobilenet_v1")
    parser.add_argument("--widths", default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", nargs=2, type=Path, metavar=("CKPT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parse(parser)
    needs("export_speed", "torch", "onnx")
    if arguments.baseline:
        torch_export(arguments.baseline[0], arguments.widths, arguments.baseline[1])
        return
    result = compare(arguments.network, arguments.widths, arguments.repeats)
    for side, runs in result["runs"].items():
        print(f"{side:10}  " + "  ".join(f"{run['seconds']:.1f} s ({run['peak_mib']} MiB)" for run in runs))
    print(f"ratio       {result['ratio']} (torch.onnx.export over the median of slimexport)")
    write_result(arguments.json, result)


if __name__ == "__main__":
    main()
