"""The table that the command prints: units, alignment, and a star where a tolerance is not the default one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.report import format_bytes, rejection, table
from slimexport.target.manifest import UNVERIFIABLE, Artifact, Verification
from slimtrain.costs.cost import format_macs
from tests.support.bundle_helpers import PROVEN
from tests.support.bundle_helpers import artifact as some_artifact
from tests.support.bundle_helpers import manifest as some_manifest


def artifact(width: float | None = 0.5, **check: Any) -> Artifact:
    """A file of half a width, proven right, unless `check` says what of that is otherwise."""
    verification = replace(PROVEN, **check)
    name = "us_mobilenet_v1_x0_5"
    return some_artifact(name, width, macs=149_497_088, params=1_326_120, size_bytes=5 * 2**20, verification=verification)


def skipped(width: float) -> Artifact:
    return replace(artifact(width), verification=Verification(status="skipped"))


@pytest.mark.parametrize(
    ("macs", "text"), [(149_497_088, "149.5M"), (4_089_184_256, "4.089G"), (12_500, "12.5K"), (999, "999"), (0, "0")]
)
def test_macs_have_four_digits_and_a_unit(macs: int, text: str) -> None:
    assert format_macs(macs) == text


def test_sizes_are_in_mebibytes() -> None:
    assert format_bytes(2**20 * 3 // 2) == "1.50 MiB"


def test_a_row_shows_width_cost_size_and_the_whole_verification() -> None:
    header, row = table([artifact()]).splitlines()
    assert header.split() == ["width", "MACs", "params", "size", "check", "error", "tolerance", "agree", "spread"]
    assert row.split() == ["0.5", "149.5M", "1,326,120", "5.00", "MiB", "passed", "1.1e-06", "1e-04", "100%", "0.13"]


def test_columns_line_up_to_the_right() -> None:
    lines = table([artifact(0.25), artifact(0.3141)]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_an_unverified_table_leaves_the_columns_of_verification_out() -> None:
    text = table([skipped(0.5)])
    assert text.splitlines()[0].split()[-1] == "check"
    assert text.splitlines()[1].endswith("skipped")


def test_a_plan_without_width_is_shown_by_name() -> None:
    assert "us_mobilenet_v1_x0_5" in table([artifact(None)])


def test_a_tolerance_that_follows_the_float32_gap_has_a_star_that_is_explained() -> None:
    text = table([artifact(0.5, tolerance=4e-3, tolerance_from="float32 gap")])
    assert "4e-03 *" in text
    assert text.splitlines()[-1].startswith("* 20 times")


def test_outputs_that_are_not_finite_are_said_to_be_so() -> None:
    assert "not finite" in table([artifact(0.5, status="failed", max_rel_error=None)])


def test_skipped_and_verified_rows_share_a_table() -> None:
    lines = table([artifact(), skipped(0.25)]).splitlines()
    assert lines[2].split()[-1] == "skipped"
    assert "spread" in lines[0]


def test_a_reason_that_many_files_share_is_told_once_with_their_names() -> None:
    """31 of them; another reason has a line of its own."""
    rejected = [
        replace(artifact(status="failed", max_rel_error=0.1 + step / 100, tolerance=1e-4), name=f"net_x{step}").rejected()
        for step in range(31)
    ]
    blind = replace(artifact(status=UNVERIFIABLE, spread=1e-9), name="net_blind").rejected()
    manifest = some_manifest(rejected=(*rejected, blind))
    lines = rejection(manifest, Path("out"), published=False).splitlines()
    assert len(lines) == 3 and lines[0].startswith("net_x0: failed") and lines[1].startswith("net_blind: unverifiable")
    assert lines[0].endswith("The same for 30 more: " + ", ".join(f"net_x{step}" for step in range(1, 31)) + ".")


def test_one_file_is_and_several_are() -> None:
    reject = replace(artifact(status="failed", max_rel_error=0.1, tolerance=1e-4), name="net_x1").rejected()
    for number, words in ((1, "The other file is in out."), (2, "The other 2 files are in out.")):
        manifest = some_manifest(*[artifact()] * number, rejected=(reject,))
        assert rejection(manifest, Path("out"), published=True).splitlines()[-1] == words
