"""Names of pictures."""

from __future__ import annotations

from benchmarks.report.analysis import analyse
from benchmarks.report.picture_files import LATENCY, SHOWN, file_name
from tests.support.shown_results import cell, steady


def test_file_names_are_plain() -> None:
    (group,) = analyse([steady(cell("1.0x", 10, bundle="a bundle/of: mine"), 1.0)], {})
    assert file_name(LATENCY, group) == "latency_a_bundle_of_mine_onnxruntime-cpu_fp32.png"
    assert len({file_name(kind, group) for kind in SHOWN}) == len(SHOWN) == 3
