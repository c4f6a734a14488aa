"""How long a step of the search takes, with and without computing once what candidates share.

    python -m benchmarks.studies.search_speed [--network us_mobilenet_v2] [--image-size 224] [--images 32] [--json FILE]

Both sides measure every candidate of the first step on the same images, in turn, in one process and one run; their results
must be the same, bit for bit. `image on` runs every candidate from the image on, `reuse` what comes before its first changed
layer once. `memory anew` is without keeping freed memory (slimtrain/base/process/kept_memory.py), a difference on CPUs only.
Weights are random: they change no timing.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.image_size import as_image_size


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one run, in plain values."""
    import torch

    from slimtrain.checkpoints.untrained import untrained_network
    from slimtrain.data.noise import noise_images
    from slimtrain.search.evaluator import Evaluator, TensorChunks
    from slimtrain.search.slimming import Slimming
    from slimtrain.training.distributed import Processes, choose_device

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    processes = Processes(0, 1, choose_device(arguments.device))
    network = untrained_network(arguments.network).to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    slimming = Slimming(network.spec)
    candidates = slimming.steps(slimming.start)
    images = torch.from_numpy(noise_images(arguments.images, arguments.image_size))
    labels = torch.arange(arguments.images) % network.spec.classes
    parts = (torch.split(tensor, arguments.batch) for tensor in (images, labels))
    chunks = TensorChunks(list(zip(*parts, strict=True)))
    usual = Evaluator(network, chunks, processes, arguments.statistics, chunks, arguments.amp, arguments.channels_last)
    sides = {
        "reuse": usual,
        "image on": dataclasses.replace(usual, reuse=False),
        "reuse, memory anew": dataclasses.replace(usual, keep_memory=False),
        "image on, memory anew": dataclasses.replace(usual, reuse=False, keep_memory=False),
    }
    before = environment()
    usual(slimming.start, candidates)  # not counted: first calls choose algorithms and load code
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results = {}
    for _ in range(arguments.repeats):
        for name, evaluator in sides.items():
            started = time.perf_counter()
            results[name] = evaluator(slimming.start, candidates)  # figures on the CPU: nothing is left running
            seconds[name].append(round(time.perf_counter() - started, 3))
    if any(result != results["image on"] for result in results.values()):
        raise SystemExit("the sides differ in their results")
    ratios = [b / a for a, b in zip(seconds["reuse"], seconds["image on"], strict=True)]
    plain = [b / a for a, b in zip(seconds["reuse"], seconds["image on, memory anew"], strict=True)]
    return {
        "command": "python -m benchmarks.studies.search_speed " + " ".join(_words(arguments)),
        "environment": before,
        "device": processes.describe(),
        "candidates": len(candidates),
        "seconds_per_step": seconds,
        "same_result": True,
        "ratio": round(median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "ratio_to_plain": round(median(plain), 2),  # against `image on, memory anew`: reuse and kept memory together
    }


def _words(arguments: argparse.Namespace) -> list[str]:
    named = {key: value for key, value in vars(arguments).items() if key not in ("json", "channels_last")}
    return [f"--{key.replace('_', '-')} {value}" for key, value in named.items()]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--network", default="us_mobilenet_v2")
    parser.add_argument("--image-size", type=as_image_size, default=224)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32, help="images of a chunk")
    parser.add_argument("--statistics", default="batch", choices=("batch", "calibrated"))
    parser.add_argument("--amp", default="none", choices=("none", "bf16", "fp16"))
    parser.add_argument("--no-channels-last", dest="channels_last", action="store_false")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parse(parser)
    if min(arguments.images, arguments.batch, arguments.repeats) < 1:
        parser.error("--images, --batch and --repeats are whole numbers from 1")
    with script_messages("search_speed"):
        result = compare(arguments)
    for side, runs in result["seconds_per_step"].items():
        print(f"{side:21}  " + "  ".join(f"{seconds:.2f} s" for seconds in runs))
    print(f"{result['ratio']} times as fast as from the image on, {result['candidates']} candidates, same results;")
    print(f"{result['ratio_to_plain']} times as fast as without either")
    write_result(arguments.json, result)


if __name__ == "__main__":
    main()
