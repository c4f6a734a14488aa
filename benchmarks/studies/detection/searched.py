"""Searched channel counts of a detector beside uniform widths of as many MACs, in the network that was searched.

    python -m benchmarks.studies.detection.searched [--ckpt us_faster_rcnn.pt] [--errors loss,ap50] [--json F]

It runs the packaged configuration `us_detect_digits`: trains a universally slimmable detector with non-uniform widths on all
scenes but those held out, or takes the one of `--ckpt`, and slims it once for every error. Then every plan and the uniform
width of the nearest cost get statistics of training scenes, and COCO's average precision on 200 scenes with digits that
neither training nor search ever saw. Nothing is trained again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.script import needs, parse, script_parser, write_result

PROGRAM = "benchmarks.studies.detection.searched"
CONFIG = "us_detect_digits"


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--ckpt", help="a us_ detector, trained with nonuniform=true and as many scenes held out")
    parser.add_argument("--errors", default="loss,ap50", help="of loss, ap50 and ap")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE of the configuration")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "sklearn", "faster_coco_eval")
    before, rows = environment(), []
    with tempfile.TemporaryDirectory() as folder:
        ckpt = arguments.ckpt
        for error in arguments.errors.split(","):
            of_error, ckpt = searched(arguments.changes, error, ckpt, Path(folder) / error)
            rows += of_error
    write_result(arguments.json, {"command": study_command(PROGRAM), "environment": before, "rows": rows})


def searched(changes: Sequence[str], error: str, ckpt: str | None, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """A row for every target: what a search by `error` finds, and the uniform width; and the checkpoint that was searched."""
    import slimtrain
    from slimtrain.config.reading import read_config
    from slimtrain.detection.training.checkpoints import open_with_images
    from slimtrain.detection.training.run import calibrate_detector
    from slimtrain.detection.training.testing import evaluate_detector
    from slimtrain.models.plan_file import read_plan_file
    from slimtrain.search.finishing import nearest_width, uniform_plan
    from slimtrain.search.kinds import kind_of
    from slimtrain.search.request import SearchRequest
    from slimtrain.search.supernet import SUPERNET
    from slimtrain.training.distributed import processes

    config = read_config(CONFIG, [*changes, f"search_error={error}", "search_finish=false"], output_dir=str(folder))
    began = time.monotonic()
    files = slimtrain.search(config, ckpt=ckpt, output_dir=folder)
    took = time.monotonic() - began
    path = ckpt or str(folder / SUPERNET / f"{SearchRequest(config, folder).supernet.network_name}.pt")
    with processes(config.device) as joined:
        checkpoint, settings, images = open_with_images(SearchRequest(config, folder).final, joined, path)
        spec, network = checkpoint.spec, checkpoint.network
        cost = SearchRequest(config, folder).cost(kind_of(config).counted(spec, config.image_size), config.image_size)
        plans = [read_plan_file(file, spec) for file in files]
        widths = [nearest_width(spec, cost, cost(plan)) for plan in plans]
        uniform = [uniform_plan(spec, width) for width in widths]
        calibrate_detector(network, [*plans, *uniform], images, joined)
        results = evaluate_detector(network, settings, [*plans, *uniform], images.testing(), joined)
    rows = []
    for number, (plan, width) in enumerate(zip(plans, widths, strict=True)):
        own, other = results[number], results[number + len(plans)]
        rows.append(
            {
                "error": error,
                "plan": plan.name,
                "macs": cost(plan),
                **own.figures,
                "width": width,
                "uniform_macs": cost(uniform[number]),
                **{f"uniform_{name}": value for name, value in other.figures.items()},
                "images": own.images,
                "search_seconds": round(took, 1),
                "channels": dict(plan.channels),
            }
        )
        print(f"{error} {plan.name}: AP {own.figures['ap']:.3f}, uniform {width}: {other.figures['ap']:.3f}", flush=True)
    return rows, path


if __name__ == "__main__":
    main()
