"""A slimmable Faster R-CNN on scenes of digits: trained from nothing at all switches at once, and tested at each.

    python -m benchmarks.studies.detection [--steps 600] [--seed 0] [--slim all] [--json detection.json]

Backbone, pyramid and heads are slimmed, or with `--slim backbone` the backbone alone (arXiv 1812.08928, sec. 4.3). Average
precision is COCO's, of boxes, over 200 scenes with digits that training never saw. `--alone 0.5` trains one width by itself,
as long: what table 5 of the paper compares with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.machine.environment import command_line, environment
from benchmarks.studies.script import needs, parse, script_parser, write_result

WIDTHS = (0.25, 0.5, 0.75, 1.0)
SIZE, CLASSES, BATCH = 128, 10, 8
MEAN, STD = (0.5,) * 3, (0.25,) * 3
EVERY = 25  # steps from a line to the next


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=24, help="channels of the stem")
    parser.add_argument("--neck", type=int, default=64, help="channels of the pyramid")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--slim", choices=("all", "backbone"), default="all")
    parser.add_argument("--alone", type=float, help="a width that is trained by itself")
    parser.add_argument("--scenes", type=int, default=200, help="to test on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parse(parser)
    needs("detection", "torch", "torchvision", "sklearn", "faster_coco_eval")
    before, began = environment(), time.monotonic()
    widths = WIDTHS if arguments.alone is None else (arguments.alone,)
    result = train(widths, arguments.steps, arguments.width, arguments.neck, arguments.lr, arguments.slim, arguments.seed)
    rows = test(*result, widths, arguments.scenes, arguments.seed)
    print(f"{time.monotonic() - began:.0f} s")
    write_result(
        arguments.json,
        {
            "command": command_line("benchmarks.studies.detection"),
            "environment": before,
            "seconds": time.monotonic() - began,
            "widths": rows,
        },
    )


def train(widths: Sequence[float], steps: int, width: int, neck: int, lr: float, slim: str, seed: int) -> tuple[Any, Any]:
    """A detector, and its settings."""
    import torch

    from slimtrain.data.detection.batches import detection_training_batches
    from slimtrain.data.detection.scenes import SceneSamples
    from slimtrain.data.detection.transforms import DetectionTransform
    from slimtrain.detection.backbones import resnet_stages
    from slimtrain.detection.dense import DenseDetector
    from slimtrain.detection.losses.two_stage import Sampling
    from slimtrain.detection.making import slimmable_detector
    from slimtrain.detection.training.fit import StepReport, fit
    from slimtrain.detection.training.step import losses_of
    from slimtrain.models.detector import Anchors, BoxSettings, DetectorSettings, ProposalSettings
    from slimtrain.training.optimizer import Schedule

    settings = DetectorSettings(
        CLASSES,
        anchors=Anchors(((20,), (32,), (48,)), ((0.7, 1.2),) * 3, (8, 16, 32)),
        proposals=ProposalSettings(top_k=200, kept=50),
        box=BoxSettings(detections=20, candidates=100),
        mean=MEAN,
        std=STD,
    )
    torch.manual_seed(seed)
    stages = resnet_stages((2, 2, 2), width, bottleneck=False, first=1)
    module = DenseDetector(settings, stages, neck=neck, hidden=2 * neck)
    network = slimmable_detector(module, sorted({*widths, 1.0}), slim=slim, image_size=SIZE, order="none")
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters", flush=True)
    samples = SceneSamples("train", steps * BATCH, seed)
    batches = detection_training_batches(samples, DetectionTransform(MEAN, STD), epochs=1, batch_size=BATCH, seed=seed)
    sampling = Sampling(rpn_sampled=64, top_k=200, kept=100, box_sampled=32)
    began = time.monotonic()

    def say(report: StepReport) -> None:
        if report.step % EVERY == 0:
            totals = " ".join(f"{total:.3f}" for total in report.totals)
            print(f"{report.step}: {totals}, {time.monotonic() - began:.0f} s", flush=True)

    plans = [network.plan(width) for width in sorted(widths, reverse=True)]
    fit(
        network,
        plans,
        batches,
        losses_of(settings, sampling),
        Schedule(lr, "cosine", 1, steps, warmup_epochs=0.1),
        seed=seed,
        on_step=say,
    )
    return network, settings


def test(network: Any, settings: Any, widths: Sequence[float], scenes: int, seed: int) -> list[dict[str, Any]]:
    """Average precision at every width."""
    from slimtrain.data.detection.batches import detection_test_batches
    from slimtrain.data.detection.scenes import SceneSamples
    from slimtrain.data.detection.transforms import DetectionTransform
    from slimtrain.detection.training.testing import precisions_of

    batches = detection_test_batches(SceneSamples("test", scenes, seed), DetectionTransform(MEAN, STD), batch_size=2 * BATCH)
    rows = []
    for width, precision in zip(
        widths, precisions_of(network, settings, [network.plan(width) for width in widths], batches), strict=True
    ):
        rows.append({"width": width, "ap": precision.ap, "ap50": precision.ap50, "ap75": precision.ap75})
        print(f"{width:g}x: AP {precision.ap:.3f}, AP50 {precision.ap50:.3f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
