"""Exports with a defect, and how it is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from tests.support.export_helpers import edit_weight, refused, run, tree
from tests.support.outcomes import Outcome

Change = Callable[[onnx.ModelProto], object]


def export(checkpoint: Path, output: Path, *more: str) -> Outcome:
    return run("--ckpt", checkpoint, "--image-size", "64", "--output-dir", output, *more)


def caught(outcome: Outcome, output: Path, what: str = "failed") -> None:
    """Exit code 1, the defect in message and table, nothing written: no bundle, no hidden folder."""
    refused(outcome, 1, what, "s_mobilenet_v1_x0_5")
    assert what in outcome.out
    assert "Nothing was written." in outcome.err
    assert tree(output.parent) == {} and not output.exists()


def edit(name: str, how: Callable[[NDArray[Any]], object]) -> Change:
    return lambda model: edit_weight(model, name, how)
