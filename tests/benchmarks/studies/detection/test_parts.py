"""What parts of detectors take."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from benchmarks.cells.cell import NotMeasured
from benchmarks.onnx_models.tiny import product_model
from benchmarks.studies.detection.parts import Way, detectors_of, in_turns, run_of, split, table
from slimexport.target.backends import CUDA
from slimtrain.base.errors import UserError


def test_parts_add_up_to_the_whole() -> None:
    own = split(["backbone", "FPN", "detections"], [2.0, 2.5, 4.0])
    assert own == {"backbone": 2.0, "FPN": 0.5, "detections": 1.5, "whole": 4.0}


def test_pieces_run_in_turns_and_medians_count() -> None:
    ran: list[str] = []
    ends = iter([0.001, 0.002, 0.001, 0.002, 0.1, 0.002])  # of the three rounds, the last one disturbed
    now = 0.0
    ticking = False

    def clock() -> float:
        nonlocal now, ticking
        now += next(ends) if ticking else 0.0
        ticking = not ticking
        return now

    times = in_turns([lambda: ran.append("a"), lambda: ran.append("b")], 3, clock)
    assert times == pytest.approx([1.0, 2.0])
    assert ran[-6:] == ["a", "b"] * 3


def test_the_table_shows_shares_of_the_whole() -> None:
    row = {"width": 0.5, "name": "net_x0_5", "macs": 10**9, "ms": {"backbone": 1.0, "FPN": 3.0, "whole": 4.0}}
    *_, line = table([row]).splitlines()
    assert line.split() == ["0.5x", "1.000G", "1.00", "(25%)", "3.00", "(75%)", "4.00", "(100%)"]


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        detectors_of(tmp_path)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists(), reason="CUDA is here"
)
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(NotMeasured, match=r"CUDAExecutionProvider|built without CUDA"):
        run_of(product_model("float32"), (1, 1), Way(CUDA))
