"""Single defects in a small detector's file, and whether its proof catches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from slimexport.detector_proof.inside import Inside
from tests.support.detector_files import DetectorFile
from tests.support.export_helpers import edit_weight
from tests.support.single_stage_files import SingleStageFile

Change = Callable[[onnx.ModelProto], object]


def caught(file: DetectorFile | SingleStageFile, folder: Path, change: Change, *words: str) -> None:
    model = file.copy()
    change(model)
    parts = file.prove(model, folder)
    assert not parts.right
    assert any(word in parts.fault for word in words) or not words, parts.fault


def flipped(file: DetectorFile, folder: Path, module: str, *words: str) -> None:
    """The largest weight that changes anything: what reads a channel that is zero everywhere does not."""
    right = Inside(file.model).run(file.images)
    for rank in range(30):

        def flip(array: NDArray[np.float32], rank: int = rank) -> None:
            place = np.abs(array).ravel().argsort()[-1 - rank]
            array.ravel()[place] *= -1

        model = file.copy()
        edit_weight(model, f"{module}.weight", flip)
        wrong = Inside(model).run(file.images)
        if any(not np.array_equal(wrong[name], values) for name, values in right.items()):
            parts = file.prove(model, folder)
            assert not parts.right
            assert any(word in parts.fault for word in words) or not words, parts.fault
            return
    pytest.fail(f"no weight of {module} changes anything")


def after(name: str, how: Callable[[str, str], list[onnx.NodeProto]]) -> Change:
    """Something done to a value that all who read it read instead."""

    def change(model: onnx.ModelProto) -> None:
        inner = f"{name}.before"
        place = next(number for number, node in enumerate(model.graph.node) if name in node.output)
        for node in model.graph.node:
            node.output[:] = [inner if value == name else value for value in node.output]
        for number, node in enumerate(how(inner, name), 1):
            model.graph.node.insert(place + number, node)

    return change


def always(before: str, name: str) -> list[onnx.NodeProto]:
    """True, whatever it was."""
    denied = f"{name}.denied"
    return [onnx.helper.make_node("Not", [before], [denied]), onnx.helper.make_node("Or", [before, denied], [name])]
