"""A ceiling that is exceeded is none, for every batch and every share that is made of it."""

from __future__ import annotations

import pytest

from benchmarks.report.analysis import COMPUTE, LAUNCH, analyse
from benchmarks.report.ceilings import standing_ceilings
from tests.support.shown_results import cell, failed, steady

KEY = "onnxruntime-cpu fp32"
RESULTS = [steady(cell("0.5x", 1_000_000), 1.0), steady(cell("1.0x", 4_000_000, batch=8), 16.0)]  # 1 and 2 GMAC/s
RESULTS += [failed(cell("1.5x", 10**12)), steady(cell("1.0x", 10**12, precision="fp16"), 1.0)]  # neither is asked


@pytest.mark.parametrize(("peak", "stands"), [(2.1e9, True), (2.0e9, True), (1.9e9, False), (0.5e9, False)])
def test_a_matrix_product_that_a_network_outruns(peak: float, stands: bool) -> None:
    ceilings = {KEY: {"macs_per_s": peak, "bytes_per_s": 1e6, "how": {}}}
    stand, said = standing_ceilings(RESULTS, ceilings)
    assert stand[KEY] == {"macs_per_s": peak if stands else None, "bytes_per_s": 1e6, "how": {}}
    assert ceilings[KEY]["macs_per_s"] == peak  # what was recorded stays
    assert len(said[KEY]) == (not stands)
    for group in analyse(RESULTS, ceilings):
        for row in group.measured if group.key[2] == "fp32" else ():
            assert (row.ceiling_share is not None) is stands and (COMPUTE in row.floors_ms) is stands
            assert row.ceiling_share is None or row.ceiling_share <= 1
        assert bool(group.exceeded) is (not stands and group.key[2] == "fp32")
    if not stands:
        assert said[KEY][0].startswith(f"{KEY}: 1.0x at batch 8 is {2e9 / peak:.2f} times as fast")


@pytest.mark.parametrize(("seconds", "stands"), [(4e-5, True), (6e-5, False)])
def test_operators_that_start_slower_than_a_network_runs_them(seconds: float, stands: bool) -> None:
    """20 layers in 1 ms."""
    (group, *_) = analyse(RESULTS, {KEY: {"seconds_per_operator": seconds}})
    assert (LAUNCH in group.rows[0].floors_ms) is stands
    assert bool(group.exceeded) is not stands


def test_what_is_not_known_is_not_exceeded() -> None:
    unknown = [steady(cell("1.0x", 10, layers=None), 1.0)]
    stand, said = standing_ceilings(unknown, {KEY: {"macs_per_s": None, "seconds_per_operator": 1.0}})
    assert stand[KEY]["seconds_per_operator"] == 1.0 and said == {KEY: []}
