"""What int8 is worth on a CPU: size, time, agreement and accuracy of our files, onnxruntime's own quantizer and fp32.

    python -m benchmarks.studies.int8 [--networks us_mobilenet_v1,timm:NAME,photographs] [--threads 1,2] [--json r.json]
    python -m benchmarks.studies.int8 --ckpt runs/digits/us_mbv1.pt [--widths 0.25,0.5,1.0] [--json results.json]

Without a checkpoint the networks are untrained, calibrated and compared on noise: their speed and size are a trained one's.
`photographs` is EfficientNet-Lite0 with its published weights, on parts of the photographs of scikit-learn and scikit-image.
A checkpoint is calibrated on the training digits, compared and tested on the 360 test digits (needs the `digits` extra).
onnxruntime's are `quantize_static` on the same fp32 files and images: QDQ and QOperator, uint8 (U8S8) and int8 (S8S8)
activations, int8 weights per channel. All run in onnxruntime and, where it is installed, in OpenVINO. Files of one network
take turns, one image at a time, in an order drawn for every turn. Behind each time is its ratio: the median over turns of a
file's time over that of fp32 in onnxruntime with as many threads. `--resume` measures only what --json does not have yet.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine.environment import environment
from benchmarks.studies.quantizing.quantizers import OURS, THEIRS, kernels
from benchmarks.studies.quantizing.sources import Subject, digits, subject_of
from benchmarks.studies.quantizing.turns import RUNTIMES, TURNS, all_times, onnxruntime_run
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from slimtrain.base.text import table as text_table

PROGRAM = "benchmarks.studies.int8"
NETWORKS = "us_mobilenet_v1,us_mobilenet_v2,s_resnet50,s_shufflenet"
SLOWER = 1.03  # times the best of the others: what our file may take
SPANS = ("QuantizeLinear", "DequantizeLinear")  # beside one at each end: where a file leaves integers


def study(subject: Subject, runtimes: Sequence[str], threads: Sequence[int], turns: int) -> dict[str, dict[str, Any]]:
    """Of each file by its name: bytes, agreement with fp32, accuracy where it is known, operators, milliseconds."""
    from slimexport.onnx_files.calibration import agreement

    images, files = subject.images, subject.files
    outputs = {
        name: np.concatenate([onnxruntime_run(path, 1)(images[i : i + 8]) for i in range(0, len(images), 8)])
        for name, path in files.items()
    }
    exact = next(iter(outputs.values()))
    rows: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        near = agreement(outputs[name], exact)
        rows[name] = {"bytes": os.path.getsize(path), "kernels": kernels(path)}
        if near is not None:
            rows[name] |= {"cosine": near.cosine, "top1_agreement": near.top1_agreement, "distance": near.logit_distance}
    if subject.labeled is not None:
        from slimexport.accuracy import measure

        accuracies = measure([onnxruntime_run(path, 1) for path in files.values()], subject.labeled)
        for name, accuracy in zip(files, accuracies, strict=True):
            rows[name]["top1"] = accuracy.top1
    for name, times in all_times(files, images[:1], runtimes, threads, turns).items():
        rows[name]["times"] = {
            runtime: {count: asdict(one) for count, one in by_threads.items()} for runtime, by_threads in times.items()
        }
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per file: size as a share of fp32's, agreement, where it leaves integers, times with their ratios."""
    exact = next(iter(rows.values()))
    columns = [(runtime, count) for runtime, times in exact["times"].items() for count in times]
    header = ["file", "size", "cosine", "same top-1", "pairs", *(f"{runtime} {count}t" for runtime, count in columns)]
    header += ["top-1"] * ("top1" in exact)
    lines = []
    for name, row in rows.items():
        same = row.get("top1_agreement")
        cells = [name, f"{row['bytes'] / exact['bytes']:.3f}", f"{row['cosine']:.5f}" if "cosine" in row else "not finite"]
        cells += ["-" if same is None else f"{same:.1%}", str(sum(row["kernels"].get(span, 0) for span in SPANS))]
        times = [row["times"].get(runtime, {}).get(count) for runtime, count in columns]
        cells += ["not read" if one is None else f"{one['ms']:.2f} ms ({one['ratio']:.2f})" for one in times]
        lines.append([*cells, *([f"{row['top1']:.2%}"] if "top1" in row else [])])
    return text_table(header, lines)


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By runtime and threads: our file for CPUs beside the fastest of onnxruntime's and beside fp32 in the same runtime."""
    said = []
    for runtime, by_threads in next(iter(rows.values()))["times"].items():
        for count in by_threads:
            read = {name: row["times"][runtime][count] for name, row in rows.items() if runtime in row["times"]}
            ratios = {name: times["ratio"] for name, times in read.items()}
            best = min((name for name in ratios if name in THEIRS), key=lambda name: ratios[name])
            beside, exact = ratios[OURS] / ratios[best], ratios[OURS] / next(iter(ratios.values()))
            line = f"{runtime}, {count} thread{'s' * (count != '1')}: {OURS} takes {beside:.2f} of {best}, {exact:.2f} of fp32"
            doubts = ["slower than the best"] * (beside > SLOWER) + ["int8 does not pay"] * (exact >= 1)
            said.append(line + (f": {', '.join(doubts)}" if doubts else ""))
    return said


def _subjects(arguments: Any) -> Iterator[tuple[str, AbstractContextManager[Subject]]]:
    """What is asked for, by the keys of the results."""
    if arguments.ckpt:
        for width in arguments.widths.split(","):
            yield f"digits {float(width):g}x", digits(arguments.ckpt, float(width))
    else:
        for name in arguments.networks.split(","):
            yield name, subject_of(name)


def _earlier(path: Path | None, resume: bool) -> dict[str, Any]:
    if not resume:
        return {}
    if path is None:
        raise UserError("--resume: says nothing without --json FILE, which holds what was measured.")
    return dict(json.loads(path.read_text())["results"]) if path.exists() else {}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--ckpt", help="a checkpoint trained on the digits, in place of untrained networks")
    parser.add_argument("--widths", default="0.25,0.5,1.0", help="of the checkpoint")
    parser.add_argument("--networks", default=NETWORKS, help="comma-separated")
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--turns", type=int, default=TURNS, help="of every file in every runtime")
    parser.add_argument("--resume", action="store_true", help="keep what --json holds and add to it")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "onnx", "onnxruntime")
    logging.disable(logging.WARNING)
    with script_messages(PROGRAM):
        threads = [int(count) for count in arguments.threads.split(",")]
        runtimes = [name for name in RUNTIMES if is_installed(name)]
        results = _earlier(arguments.json, arguments.resume)
        asked = (
            f"--ckpt {arguments.ckpt} --widths {arguments.widths}" if arguments.ckpt else f"--networks {arguments.networks}"
        )
        command = f"python -m {PROGRAM} {asked} --threads {arguments.threads} --turns {arguments.turns}"
        before = environment()
        for name, opened in _subjects(arguments):
            if name not in results:
                with opened as subject:
                    results[name] = study(subject, runtimes, threads, arguments.turns)
                write_result(arguments.json, {"command": command, "environment": before, "results": results})
            print("\n".join([name, table(results[name]), *verdicts(results[name])]), flush=True)


if __name__ == "__main__":
    main()
