"""How fast training is: images/s, milliseconds per step and peak memory, each way of running beside a plain baseline.

    python -m benchmarks.studies.training [--network us_mobilenet_v1] [--batch-size 256] [--image-size 224] [--json FILE]

The baseline is what one would write down: fp32, eager, contiguous tensors, one forward and backward per width, gradients
summed by autograd, a step of SGD. Every way is a process of its own, fed by the same loader with the same transforms
on the CPU (or, with --resident, by one batch that stays in memory), so that the ratios are of one run. The first steps
warm up (and compile) and are timed apart.

    python -m benchmarks.studies.training --ways compile --steps 500 --resident --batch-size 4 --image-size 32

counts compilations over 500 steps of randomly drawn widths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from benchmarks.machine.environment import environment
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.image_size import as_image_size, format_size

BASELINE = "baseline"
# What each way changes in the configuration.
WAYS: dict[str, dict[str, Any]] = {
    BASELINE: {"channels_last": False},
    "fp32": {"channels_last": False},
    "channels_last": {"channels_last": True},
    "bf16": {"channels_last": False, "amp": "bf16"},
    "bf16+channels_last": {"channels_last": True, "amp": "bf16"},
    "compile": {"channels_last": False, "compile": True},
    "bf16+channels_last+compile": {"channels_last": True, "amp": "bf16", "compile": True},
}
WARM_UP = 3  # steps
MOST_WORKERS = 12


def measure(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process: plain figures."""
    import torch

    from slimtrain.config.reading import make_config
    from slimtrain.data.loader import Batch, training_batches
    from slimtrain.training.distributed import Processes, choose_device
    from slimtrain.training.evaluate import to_device
    from slimtrain.training.inputs import data_of, train_transform_of
    from slimtrain.training.run import Run

    values: dict[str, Any] = {
        "network": arguments.network,
        "data": "fake",
        "classes": 1000,
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "epochs": 10**6,
        "workers": arguments.workers,
        "distill": arguments.network.startswith("us_"),
        "device": arguments.device,
        "threads": arguments.threads,
        **WAYS[way],
    }
    config = make_config(values, "benchmarks.studies.training")
    device = choose_device(config.device)
    processes = Processes(0, 1, device)
    run = Run(config, processes, data_of(config))
    batches: Iterator[Batch] = training_batches(
        run.images.data.train,
        train_transform_of(config),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=0,
        workers=0 if arguments.resident else config.workers,
        pin_memory=device.type == "cuda",
    )
    if arguments.resident:
        first = next(batches)
        images, labels = to_device(first.images, device, run.trainer.channels_last), first.labels.to(device)
        resident = first._replace(images=images, labels=labels)
        batches = (batch._replace(step=step) for step, batch in enumerate(chain([resident], repeat(resident))))

    def synchronize() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    step = run.train_step if way != BASELINE else plain_step(run)
    began = synchronize()
    for _ in range(WARM_UP):
        step(next(batches))
    warm = synchronize()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    samples, waited = [], 0.0
    last = warm
    for _ in range(arguments.steps):
        batch = next(batches)
        arrived = time.perf_counter()
        step(batch)
        now = synchronize()
        waited += arrived - last
        samples.append(now - last)
        last = now
    median = statistics.median(samples)
    figures = {
        "ms_per_step": round(1000 * median, 2),
        "images_per_s": round(arguments.batch_size / median, 1),
        "data_wait": round(waited / sum(samples), 3),
        "warm_up_s": round(warm - began, 1),
        "peak_mib": round(_peak_mib(device.type)),
        "samples_ms": [round(1000 * sample, 2) for sample in samples[:100]],
        "spread": round(statistics.pstdev(samples) / statistics.fmean(samples), 3) if len(samples) > 1 else 0.0,
        "widths_per_step": run.trainer.sampler.count,
        "device": processes.describe(),
    }
    if config.compile:
        from torch._dynamo.utils import counters

        figures["compilations"] = int(counters["stats"]["unique_graphs"])
        figures["steps_counted"] = WARM_UP + arguments.steps
    return figures


def plain_step(run: Any) -> Any:
    """The baseline's step: nothing of ours but the network and which widths are run."""
    import torch.nn.functional as F

    network, optimizer = run.trainer.network.train(), run.trainer.optimizer
    for parameter in network.parameters():
        parameter.grad = None

    def step(batch: Any) -> None:
        images, labels = batch.images.to(run.processes.device), batch.labels.to(run.processes.device)
        optimizer.zero_grad()
        teacher = None
        for plan in run.trainer.sampler(batch.step):
            with network.at(plan):
                logits = network(images)
            if teacher is None or not run.config.distill:
                loss = F.cross_entropy(logits, labels)
                teacher = logits.detach().softmax(1)
            else:
                loss = F.cross_entropy(logits, teacher)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _peak_mib(device: str) -> float:
    """Peak memory: of the GPU's allocator, or of this process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(arguments: argparse.Namespace, own_options: list[str]) -> dict[str, Any]:
    """All ways asked for, each in a process of its own."""
    before = environment()
    ways = {}
    for way in arguments.ways:
        command = [sys.executable, "-m", "benchmarks.studies.training", *own_options, "--one", way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            ways[way] = {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else str(done.returncode)}
        else:
            ways[way] = json.loads(done.stdout.splitlines()[-1])
        print(line(way, ways[way], ways.get(BASELINE)), flush=True)
    command_line = " ".join(["python -m benchmarks.studies.training", *own_options])
    return {"command": command_line, "environment": before, "ways": ways}


def line(way: str, figures: dict[str, Any], baseline: dict[str, Any] | None) -> str:
    """One way in words."""
    if "failed" in figures:
        return f"{way:28} failed: {figures['failed']}"
    ratio = ""
    if baseline and "ms_per_step" in baseline:
        ratio = f"  {baseline['ms_per_step'] / figures['ms_per_step']:.2f} x baseline"
    compilations = ""
    if "compilations" in figures:
        compilations = f"  {figures['compilations']} graphs compiled over {figures['steps_counted']} steps"
    return (
        f"{way:28} {figures['ms_per_step']:8.1f} ms/step  {figures['images_per_s']:8.1f} images/s  "
        f"data {figures['data_wait']:.0%}  peak {figures['peak_mib']} MiB  warm-up {figures['warm_up_s']:.1f} s"
        f"{ratio}{compilations}"
    )


def make_parser() -> argparse.ArgumentParser:
    import os

    parser = script_parser(__doc__)
    parser.add_argument("--network", default="us_mobilenet_v1", help="an S or US network: s_mobilenet_v1, us_resnet50")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=as_image_size, default=224)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=min(MOST_WORKERS, max((os.cpu_count() or 1) - 2, 0)))
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: torch's own choice")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--resident", action="store_true", help="one batch that stays in memory, no loader")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    arguments = parse(make_parser())
    needs("training", "torch")
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return
    own: list[str] = []
    own += ["--image-size", format_size(arguments.image_size)]
    for key in ("network", "batch_size", "steps", "workers", "threads", "device"):
        own += [f"--{key.replace('_', '-')}", str(getattr(arguments, key))]
    own += ["--resident"] if arguments.resident else []
    own += ["--ways", *arguments.ways] if arguments.ways != list(WAYS) else []
    result = compare(arguments, own)
    write_result(arguments.json, result)


if __name__ == "__main__":
    main()
