"""Statistics that the published calibration left at 0 and 1 are none: such widths are calibrated, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.export_helpers import State, refused, run, small_spec, write_checkpoint

SIZE = ("--image-size", "64")


WIDTHS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


@pytest.fixture(scope="module")
def half_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A US-MobileNet v1 of which only the ends of the range, 0.25 and 0.5, have statistics."""
    return emptied(tmp_path_factory.mktemp("ckpt") / "us_mbv1.pt", keep=(0, 5))


def emptied(path: Path, keep: tuple[int, ...]) -> Path:
    def empty(state: State) -> None:
        for key, value in state.items():
            if ".bn." in key and int(key.split(".bn.")[1].split(".")[0]) not in keep:
                value.fill_(1 if key.endswith("running_var") else 0)

    return write_checkpoint(path, small_spec("us", WIDTHS), empty)


def test_all_widths_are_those_with_statistics(half_empty: Path) -> None:
    manifest = run("--ckpt", half_empty, *SIZE, "--widths", "all", "--dry-run", "--json").manifest
    assert [artifact["width"] for artifact in manifest["artifacts"]] == [0.25, 0.5]


def test_an_empty_width_is_refused_with_those_that_are_not(half_empty: Path) -> None:
    refused(run("--ckpt", half_empty, *SIZE, "--widths", "0.4", "--dry-run"), 2, "width 0.4", "only for 0.25, 0.5.")


def test_a_budget_chooses_among_widths_with_statistics(half_empty: Path) -> None:
    manifest = run("--ckpt", half_empty, *SIZE, "--macs", "8M", "--dry-run", "--json").manifest
    assert [artifact["width"] for artifact in manifest["artifacts"]] == [0.25]


def test_calibration_fills_an_empty_width(half_empty: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    data = ("--calibration-data", tmp_path / "images.npy", "--output-dir", tmp_path / "b", "--json")
    outcome = run("--ckpt", half_empty, *SIZE, "--widths", "0.4", *data)
    assert outcome.code == 0, outcome.err
    assert outcome.manifest["artifacts"][0]["verification"]["status"] == "passed"


def test_a_network_that_was_never_calibrated_says_so(tmp_path: Path) -> None:
    path = emptied(tmp_path / "us_mbv1.pt", keep=())
    refused(run("--ckpt", path, *SIZE, "--dry-run"), 2, "no batch-norm statistics at all", "--calibration-data")
