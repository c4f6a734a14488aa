"""Making a torchvision network slimmable, beside `torch.export` of the same module."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.studies.any_network.turns import in_turn
from slimtrain.tracing.slimmed import make_slimmable

NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "convnext_tiny"),
    "densenet121",
)


def making(name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Wall and processor seconds of both, and of making one whose equality is not checked: in one process, in turn, the least
    of several rounds after one that warms up."""
    import torchvision

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        module, images = torchvision.models.get_model(name).eval(), torch.zeros(2, 3, 224, 224)
        sides = in_turn(
            {
                "torch.export": lambda: torch.export.export(module, (images,), strict=False),
                "make_slimmable": lambda: make_slimmable(module, images),
                "unchecked": lambda: make_slimmable(module, images, check=False),
            },
            rounds,
        )
    finally:
        torch.set_num_threads(before)
    least = {side: min(run["processor_s"] for run in runs) for side, runs in sides.items()}
    return {
        "network": name,
        "threads": threads,
        "runs": sides,
        "ratio": round(least["make_slimmable"] / least["torch.export"], 2),
        "ratio_unchecked": round(least["unchecked"] / least["torch.export"], 2),
        "ratio_wall": round(
            min(run["wall_s"] for run in sides["make_slimmable"]) / min(run["wall_s"] for run in sides["torch.export"]), 2
        ),
    }
