"""The table that the command prints: units, alignment, and a star where a tolerance is not the default one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.report import format_bytes, rejection, table
from slimexport.target.manifest import Artifact
from slimexport.target.proof.detections import UNDECIDED
from slimexport.target.verification import UNVERIFIABLE, Verification
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


def test_a_table_of_detectors_leaves_the_columns_of_logits_out() -> None:
    detects = {"top1_agreement": None, "spread": None, "detections": 36, "ties": 1}
    passed, failed = artifact(0.25, **detects), artifact(0.5, **{**detects, "status": "failed", "detections": None})
    header, *rows = table([passed, failed]).splitlines()[:3]
    assert header.split() == ["width", "MACs", "params", "size", "check", "error", "tolerance"]
    assert [row.split()[-1] for row in rows] == ["1e-04", "1e-04"]
    joint = table([replace(entry, precision=precision) for precision in ("fp32", "fp16") for entry in (passed, failed)])
    assert "agree" not in joint and "cosine" not in joint


def test_why_a_detector_is_proven_in_part_is_told() -> None:
    """Its own reason, and not that of images that move too little."""
    shown = table([artifact(0.25, status="partly", reason="nothing ran it", unexercised=1, watched=100)])
    assert "partly: nothing ran it" in shown and "--probes 32" not in shown
    assert "--probes 32" in table([artifact(0.25, status="partly", unexercised=1, watched=100)])


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


def test_files_of_one_network_that_share_a_reason_are_told_apart_by_their_precision() -> None:
    blind = replace(artifact(status=UNVERIFIABLE, spread=1e-9), name="net_x1").rejected()
    rejected = [blind, replace(blind, precision="fp16"), replace(blind, precision="int8-cpu")]
    first, _ = rejection(some_manifest(rejected=tuple(rejected)), Path("out"), published=False).splitlines()
    assert first.startswith("net_x1: unverifiable") and first.endswith("The same for 2 more: net_x1 fp16, net_x1 int8-cpu.")


def test_what_images_leave_open_is_no_bug_to_report() -> None:
    """The reason says what to do; of any other the checkpoint's layout would help."""
    for reason, reported in ((f"5 ties of 9: {UNDECIDED}", False), ("another anchor", True)):
        failed = artifact(status="failed", reason=reason).rejected()
        message = rejection(some_manifest(rejected=(failed,)), Path("out"), published=False)
        assert f"failed, {reason}. The file was not kept." in message
        assert ("Please report this" in message) == reported


def test_one_file_is_and_several_are() -> None:
    reject = replace(artifact(status="failed", max_rel_error=0.1, tolerance=1e-4), name="net_x1").rejected()
    for number, words in ((1, "The other file is in out."), (2, "The other 2 files are in out.")):
        manifest = some_manifest(*[artifact()] * number, rejected=(reject,))
        assert rejection(manifest, Path("out"), published=True).splitlines()[-1] == words


def test_files_of_several_formats_are_told_apart() -> None:
    engine = replace(
        artifact(), format="trt-rtx", file="us_mobilenet_v1_x0_5.rtx.plan", verification=Verification(status="built")
    )
    header, first, second = table([artifact(), engine]).splitlines()
    assert header.split()[:2] == ["width", "format"]
    assert first.split()[1] == "onnx" and second.split()[1] == "trt-rtx" and second.endswith(" built")


def in_precisions(widths: tuple[float, ...], **checks: Verification) -> list[Artifact]:
    """A file of each width in each precision, with its check."""
    return [
        some_artifact(
            f"net_x{width}".replace(".", "_"),
            width,
            precision,
            verification=check,
            size_bytes=2**20,
            made_for=(f"a {precision}",),
        )
        for width in widths
        for precision, check in checks.items()
    ]


BY_COSINE = replace(PROVEN, cosine=0.98765, least_cosine=0.97, top1_agreement=0.5)


def test_several_precisions_of_several_widths_are_one_table_with_a_line_for_each_width() -> None:
    lines = table(in_precisions((0.25, 0.5, 1.0), fp32=PROVEN, int8=BY_COSINE)).splitlines()
    assert lines[0].split() == ["fp32", "int8"]
    assert lines[1].split() == ["width", "MACs", "params", "MiB", "error", "agree", "MiB", "cosine", "agree"]
    assert lines[2].split() == ["0.25", "1K", "10", "1.00", "1.1e-06", "100%", "1.00", "0.9877", "50%"]
    assert [line.split()[0] for line in lines[2:5]] == ["0.25", "0.5", "1.0"]
    assert lines[5:] == [
        "all 6 files passed their check",
        "fp32: error up to 1e-04; for a fp32",
        "int8: cosine at least 0.97; for a int8",
    ]


def test_a_file_that_failed_or_is_missing_is_seen_in_the_joint_table() -> None:
    first, second, *rest = in_precisions((0.25, 0.5, 1.0), fp32=PROVEN, int8=BY_COSINE)
    failed = replace(second, verification=replace(BY_COSINE, status="failed", cosine=0.5)).rejected()
    text = table([first, failed, *rest[:-1]])
    lines = text.splitlines()
    assert lines[1].split()[6:] == ["MiB", "check", "cosine", "agree"]
    assert lines[2].split()[6:] == ["1.00", "failed", "0.5000", "50%"] and lines[3].split()[7] == "passed"
    assert lines[4].split()[6:] == ["-", "-", "-", "-"]
    assert "4 of 5 files passed their check" in lines


def test_a_dry_run_of_several_precisions_says_nothing_of_checks() -> None:
    lines = table(in_precisions((0.25, 0.5), fp32=skipped(0.5).verification, fp16=skipped(0.5).verification)).splitlines()
    assert lines[1].split() == ["width", "MACs", "params", "MiB", "check", "MiB", "check"]
    assert lines[2].split()[4:] == ["skipped", "1.00", "skipped"]
    assert not any("passed" in line for line in lines)


def test_the_precisions_of_one_width_are_a_list() -> None:
    lines = table(in_precisions((0.5,), fp32=PROVEN, int8=BY_COSINE)).splitlines()
    assert lines[0].split()[:3] == ["width", "precision", "MACs"]
    assert [line.split()[1] for line in lines[1:3]] == ["fp32", "int8"]


def test_thirty_one_widths_in_six_files_fit_a_terminal() -> None:
    widths = tuple(round(0.25 + step / 40, 3) for step in range(31))
    checks = dict.fromkeys(("fp32", "fp16", "bf16"), PROVEN) | dict.fromkeys(("int8-cpu", "int8", "int8-fp16"), BY_COSINE)
    lines = table(in_precisions(widths, **checks)).splitlines()
    assert len(lines) < 80 and max(map(len, lines)) <= 120


def test_tolerances_that_differ_between_widths_are_both_told() -> None:
    first, *rest = in_precisions((0.25, 0.5), fp32=PROVEN, bf16=replace(PROVEN, tolerance=0.05))
    wider = replace(first, verification=replace(PROVEN, tolerance=4e-3, tolerance_from="float32 gap"))
    lines = table([replace(entry, made_for=()) for entry in (wider, *rest)]).splitlines()
    assert "fp32: error up to 4e-03 * or 1e-04" in lines and "bf16: error up to 5e-02" in lines
    assert lines[-1].startswith("* 20 times what float32 costs")
