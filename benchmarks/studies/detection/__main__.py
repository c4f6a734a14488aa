"""A slimmable Faster R-CNN on scenes of digits: all switches trained at once, and each width by itself.

    python -m benchmarks.studies.detection [--seeds 0,1,2] [--alone] [--set detector.slim=backbone] [--json detection.json]

It runs the packaged configuration `detect_digits`, from random weights. Average precision is COCO's, of boxes, over 200 scenes
with digits that training never saw. `--alone` trains each switch's network by itself too, as long: what table 5 of arXiv
1812.08928 compares with. A width's own network has that share of the channels everywhere, as the slimmable one has at its
switch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.script import needs, parse, script_parser, write_result

PROGRAM = "detection"
CONFIG = "detect_digits"
SCALED = ("width", "neck", "hidden")  # what of the configuration's detector is channels


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", default="0", help="of weights, scenes and draws")
    parser.add_argument("--alone", action="store_true", help="train every width by itself too")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE of the configuration")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "sklearn", "faster_coco_eval")
    before, rows = environment(), []
    for seed in map(int, arguments.seeds.split(",")):
        rows += trained([*arguments.changes, f"seed={seed}"], "together")
        for width in [row["width"] for row in rows if row["seed"] == seed and arguments.alone]:
            rows += trained([*arguments.changes, f"seed={seed}", "switches=[1.0]", *scaled(width)], "alone", width)
    write_result(arguments.json, {"command": study_command(__package__ or ""), "environment": before, "rows": rows})


def scaled(width: float) -> list[str]:
    """Changes that make the configuration's detector as wide as its slimmable one is at `width`."""
    from slimtrain.config.reading import read_config

    own = read_config(CONFIG).detector
    return [f"detector.{key}={round(getattr(own, key) * width)}" for key in SCALED]


def trained(changes: Sequence[str], way: str, width: float | None = None) -> list[dict[str, Any]]:
    """Train what the configuration says with `changes`; a row for each switch. `width`: what the one switch stands for."""
    import slimtrain
    from slimtrain.config.reading import read_config
    from slimtrain.running import opened
    from slimtrain.training.distributed import processes
    from slimtrain.training.testing import results_of

    with tempfile.TemporaryDirectory() as folder:
        config = read_config(CONFIG, changes, output_dir=str(Path(folder) / "run"))
        began = time.monotonic()
        path = slimtrain.train(config)
        took = time.monotonic() - began
        with processes(config.device) as joined:
            plans, results = results_of(opened(config, joined, str(path)))
    rows = []
    for plan, result in zip(plans, results, strict=True):
        of_plan = plan.width if width is None else width
        rows.append({"way": way, "seed": config.seed, "width": of_plan, "seconds": round(took, 1), **result.figures})
    return rows


if __name__ == "__main__":
    main()
