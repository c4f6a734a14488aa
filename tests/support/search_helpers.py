"""What the tests of whole searches share: a tiny search of 13 steps at most, a few milliseconds each."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml

from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.spec import NetworkSpec
from tests.support.outcomes import Outcome
from tests.support.run_helpers import TINY, config_file, done, network_of

US = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25), stem_stride=1)
RIGHT: dict[str, Any] = {"nonuniform": True, "data": "fake", "seed": 0, "holdout": 12}


# 32 images: 12 held out, 20 to train on; half a group's channels a step, from 835K to 290K MACs.
SEARCH: dict[str, Any] = {
    **{"search_targets": ["700K", "450K"], "search_widths": TINY["width_range"], "search_groups": 2, "search_share": 0.5},
    **{"search_holdout": 12, "search_batch": 6, "epochs": 4},
}
NAMES = ("macs_700K", "macs_450K")


def search_file(path: Path, **changes: Any) -> Path:
    """The tiny configuration with a search."""
    return config_file(path, **{**SEARCH, **changes})


def searched(folder: Path, *options: str | Path, **changes: Any) -> tuple[Outcome, Path]:
    """A whole search, its folder being `folder/run_search`, and what it said."""
    file = search_file(folder / "tiny.yml", **{"output_dir": str(folder / "run"), **changes})
    return done("search", file, *options), folder / "run_search"


def plan(folder: Path, name: str) -> dict[str, Any]:
    """A found plan's file."""
    content: dict[str, Any] = yaml.safe_load((folder / "plans" / f"{name}.yml").read_text())
    return content


def trace(folder: Path) -> list[dict[str, str]]:
    """trace.csv without times."""
    with (folder / "trace.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def own_checkpoint(path: Path, spec: NetworkSpec = US, **settings: Any) -> Path:
    """A file of ours with random weights, trained as `settings` tell."""
    save(own_content(network_of(spec), spec.stride, (0.5,) * 3, (0.25,) * 3, settings=settings), path)
    return path


def refused_late(outcome: Outcome, code: int, *parts: str) -> None:
    """As `refused`, after lines of progress."""
    message = " ".join(outcome.err.split())
    assert outcome.code == code and all(part in message for part in parts), outcome
    assert "Traceback" not in message
