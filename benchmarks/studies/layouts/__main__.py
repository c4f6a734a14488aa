"""What the layout of images and weights does to a training step's convolutions, at widths that stay and at ones never met.

    python -m benchmarks.studies.layouts [--device cuda] [--batch-size 256] [--repeats 10] [--json layouts.json]

Depthwise and pointwise convolutions of MobileNet v1, forward and backward, in float32 and bfloat16, contiguous and with
channels last, on the leading channels of weights of full width, as a slimmable network runs them. `known`: milliseconds of a
step at channels that ran before. `new`: of the first step at channels that did not, which is what a universally slimmable
network meets as it draws widths, until it has met them all.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.script import needs, parse, script_parser, write_result

LAYERS = ((64, 112, True), (64, 112, False), (256, 28, True), (256, 28, False), (512, 14, True), (512, 14, False))
NUMBERS = ("float32", "bfloat16")
LAYOUTS = ("contiguous", "channels_last")
STEP = 8  # channels come in multiples of this
NEW = 4  # widths that are met for the first time


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=10, help="of a step at known channels")
    arguments = parse(parser)
    needs("layouts", "torch")
    rows = []
    for number in NUMBERS:
        for channels, size, depthwise in LAYERS:
            row: dict[str, Any] = {"number": number, "channels": channels, "size": size, "depthwise": depthwise}
            for layout in LAYOUTS:
                row[layout] = measure(row, layout, arguments.device, arguments.batch_size, arguments.repeats)
            print(
                f"{number} {'depthwise' if depthwise else 'pointwise'} {channels} x {size} x {size}: {shown(row)}", flush=True
            )
            rows.append(row)
    write_result(
        arguments.json, {"command": study_command("benchmarks.studies.layouts"), "environment": environment(), "rows": rows}
    )


def shown(row: dict[str, Any]) -> str:
    """Both layouts of a row."""
    return "; ".join(f"{layout} {row[layout]['known_ms']:.2f} ms known, {row[layout]['new_ms']:.1f} new" for layout in LAYOUTS)


def measure(row: dict[str, Any], layout: str, device: str, batch: int, repeats: int) -> dict[str, float]:
    """Milliseconds of forward and backward of one layer: at known channels the median, at new ones the mean."""
    import statistics

    import torch

    form = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    generator = torch.Generator().manual_seed(0)
    channels, depthwise = int(row["channels"]), bool(row["depthwise"])
    shape = (2 * channels, 1, 3, 3) if depthwise else (2 * channels, 2 * channels, 1, 1)
    options: dict[str, Any] = {"device": device, "dtype": getattr(torch, row["number"])}
    weight = torch.randn(shape, generator=generator).to(**options).to(memory_format=form).requires_grad_()

    def step(active: int) -> float:
        images = torch.randn(batch, active, row["size"], row["size"], generator=generator).to(**options)
        images = images.to(memory_format=form).requires_grad_()
        began = _synchronized(device)
        if depthwise:
            output = torch.nn.functional.conv2d(images, weight[:active], padding=1, groups=active)
        else:
            output = torch.nn.functional.conv2d(images, weight[:active, :active])
        torch.autograd.backward(output, torch.ones_like(output))
        return 1e3 * (_synchronized(device) - began)

    step(channels)
    known = statistics.median(step(channels) for _ in range(repeats))
    new = statistics.fmean(step(channels - STEP * number) for number in range(1, NEW + 1))
    return {"known_ms": known, "new_ms": new}


def _synchronized(device: str) -> float:
    """Seconds, once the device is done."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
