"""Builds and verifies engines on this machine's GPU, and tries what must fail.

    python -m benchmarks.studies.engines BUNDLE... [--precision fp32,tf32,fp16,int8] [--json results.json]

For every bundle: engines of all its widths, built with a cold timing cache, verified on the device, then built again with
the cache warm. Then an engine whose manifest says another GPU, and one with a damaged plan, must be refused with a
message before TensorRT sees them. Prints a table, writes JSON with its environment. Bundles are copied first.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result
from slimexport.report import table
from slimexport.target.backends import TRT
from slimexport.target.cuda.device import require_gpu
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, dump_manifest, read_manifest
from slimexport.target.records import to_json
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.engines import EnginesFailed, build_engines
from slimexport.target.tensorrt.libraries import require_tensorrt
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError


def engines(bundle: Path, precisions: list[str], cache: Path) -> tuple[Manifest, str]:
    """A bundle's manifest with its engines, and what failed."""
    try:
        return build_engines(bundle, precisions=precisions, settings=BuildSettings(), timing_cache_folder=cache), ""
    except EnginesFailed as error:
        return error.manifest, str(error)


def measure(bundle: Path, precisions: list[str], cache: Path) -> dict[str, Any]:
    """Cold and warm builds of one bundle."""
    cold, failed = engines(bundle, precisions, cache)
    artifacts = cold.of_format(TRT)
    print(f"{bundle.name}\n{table(artifacts)}\n{failed}".rstrip(), flush=True)
    warm, _ = engines(bundle, precisions, cache)
    again = build_seconds(warm)
    for file, cold_seconds in build_seconds(cold).items():
        print(f"{file}: {cold_seconds:.1f} s cold, {again.get(file, float('nan')):.1f} s with a warm timing cache", flush=True)
    return {
        "engines": [to_json(artifact) for artifact in artifacts],
        "failed": failed,
        "rejected": [to_json(entry) for entry in cold.rejected],
        "warm_build_seconds": again,
    }


def build_seconds(manifest: Manifest) -> dict[str, float]:
    """How long each of a bundle's engines took to build, by file."""
    return {artifact.file: artifact.engine.build_seconds for artifact in manifest.of_format(TRT) if artifact.engine}


def refusals(bundle: Path) -> dict[str, str]:
    """The messages for an engine of another GPU, and for a damaged plan."""
    manifest = read_manifest(bundle)
    artifact = manifest.of_format(TRT)[0]
    assert artifact.engine is not None
    path = bundle / artifact.file
    messages = {}
    foreign = replace(artifact, engine=replace(artifact.engine, compute_capability="5.3", gpu="another GPU"))
    messages["another GPU"] = message(path, foreign)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    messages["damaged plan"] = message(path, artifact)
    (bundle / MANIFEST).write_text(dump_manifest(manifest), encoding="utf-8")
    return messages


def message(path: Path, artifact: Artifact) -> str:
    """What loading an engine says; "" where it loads, which is wrong here."""
    try:
        with TensorRTRunner(path, artifact):
            return ""
    except UserError as error:
        return str(error)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--precision", default="fp32,tf32,fp16,int8")
    arguments = parse(parser)
    with script_messages("engines"):
        trt, (_, device) = require_tensorrt(), require_gpu()
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.studies.engines {' '.join(b.name for b in arguments.bundles)} "
        f"--precision {arguments.precision}",
        "environment": {**environment(), "tensorrt": trt.__version__, "device": device.as_dict()},
        "bundles": {},
    }
    with tempfile.TemporaryDirectory() as name:
        for bundle in arguments.bundles:
            copy = Path(shutil.copytree(bundle, Path(name) / bundle.name))
            result["bundles"][bundle.name] = measure(copy, arguments.precision.split(","), Path(name) / "cache")
        result["refusals"] = refusals(Path(name) / arguments.bundles[0].name)
    for what, said in result["refusals"].items():
        print(f"{what}: {said or 'WAS LOADED'}")
    write_result(arguments.json, result)
    if not all(result["refusals"].values()) or any(bundle["failed"] for bundle in result["bundles"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
