"""The slimmable network that a bundle was exported from: opened once for all widths, and refused where it is another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells.backends import SLIMMABLE, TORCH_EAGER
from benchmarks.cells.cell import Options
from benchmarks.measure.output_check import check_output
from benchmarks.runners.torch import slimmable as torch_slimmable
from slimexport.target.errors import BundleError
from slimtrain.base.errors import CheckpointError
from slimtrain.base.files import file_sha256
from slimtrain.checkpoints.checkpoint import open_checkpoint
from tests.support.bench_torch_bundle import RANDOM, Exported, edited, refused, with_checkpoint
from tests.support.bench_torch_helpers import FewImages, gap, open_torch, probes


def test_the_slimmable_network_at_a_width_is_the_dense_one(exported: Exported) -> None:
    for slim, dense in zip(exported.cells(SLIMMABLE), exported.cells(TORCH_EAGER), strict=True):
        logits = []
        for cell in (slim, dense):
            runner = open_torch(cell, exported.folder, FewImages(), with_checkpoint(exported))
            logits.append(runner.logits(probes()))
            runner.close()
        assert 0 < gap(*logits) < 1e-4  # the norms are folded in one and not in the other


def test_open_widths_of_one_network_do_not_disturb_each_other(exported: Exported) -> None:
    narrow, wide = exported.cells(SLIMMABLE)
    runners = [open_torch(cell, exported.folder, FewImages(), with_checkpoint(exported)) for cell in (narrow, wide)]
    for _ in range(2):
        for cell, runner in zip((narrow, wide), runners, strict=True):
            runner.run(0)
            check_output(runner, cell, exported.reference(cell))
    network = torch_slimmable._Opened.network
    assert network is not None and network.active == network.spec.widest  # as before the `with` blocks
    runners[0].close()
    check_output(runners[1], wide, exported.reference(wide))
    runners[1].close()


def test_the_checkpoint_is_read_once(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return open_checkpoint(*args, **kwargs)

    monkeypatch.setattr(torch_slimmable._Opened, "network", None)
    monkeypatch.setattr(torch_slimmable, "open_checkpoint", counting)
    runners = []
    for batch in (1, 2):
        for cell in exported.cells(SLIMMABLE, batch):
            runners.append(open_torch(cell, exported.folder, FewImages(), with_checkpoint(exported)))
    assert len(opened) == 1
    other = replace(exported.cells(SLIMMABLE)[0])
    options = Options(checkpoint=Path(RANDOM))
    runners.append(open_torch(other, exported.untrained, FewImages(), options))
    assert len(opened) == 2
    for runner in runners:
        runner.close()


def test_without_a_checkpoint(exported: Exported) -> None:
    refused(exported.cells(SLIMMABLE)[0], exported.folder, Options(), "needs --ckpt")


def test_another_checkpoint_is_refused_with_both_hashes(exported: Exported, tmp_path: Path) -> None:
    wrong = tmp_path / "us.pt"
    wrong.write_bytes(exported.checkpoint.read_bytes() + b"\0")
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    expected, digest = manifest["source"]["sha256"], file_sha256(wrong)
    cell = exported.cells(SLIMMABLE)[0]
    refused(cell, exported.folder, Options(checkpoint=wrong), digest[:12], expected[:12], str(wrong), kind=BundleError)
    assert BundleError.exit_code == 2
    refused(cell, exported.folder, Options(checkpoint=tmp_path / "no.pt"), "no.pt: no such file", "us.pt", kind=BundleError)


def test_an_untrained_network_is_known_by_its_name(exported: Exported, tmp_path: Path) -> None:
    cell = exported.cells(SLIMMABLE)[0]
    runner = open_torch(cell, exported.untrained, FewImages(), Options(checkpoint=Path(RANDOM)))
    assert check_output(runner, cell, exported.reference(cell)) == ""
    runner.close()
    for given in ("random:us_mobilenet_v2", exported.checkpoint):
        refused(cell, exported.untrained, Options(checkpoint=Path(given)), "Give --ckpt " + RANDOM, kind=BundleError)
    refused(cell, exported.folder, Options(checkpoint=Path(RANDOM)), "us.pt (SHA-256", kind=BundleError)
    folder, _ = edited(exported, tmp_path, lambda manifest: manifest["source"].update(file=RANDOM))
    refused(cell, folder, Options(checkpoint=Path(RANDOM)), f"{RANDOM} (SHA-256", kind=BundleError)


def test_a_plan_without_statistics(exported: Exported, tmp_path: Path) -> None:
    """As of a bundle that was calibrated when it was exported: the checkpoint does not know the width."""

    def other_width(manifest: dict[str, Any]) -> None:
        artifact = manifest["artifacts"][0]
        artifact["channels"]["features.3"] += 8
        artifact["width"] = None

    cell = exported.cells(SLIMMABLE)[0]
    refused(cell, *edited(exported, tmp_path, other_width), "plan x0_25: us.pt has batch-norm statistics only for 0.25, 0.275")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda manifest: [artifact.update(name=f"another_{i}") for i, artifact in enumerate(manifest["artifacts"])],
            "gives no channels for us_mobilenet_v1_x0_25",
        ),
        (
            lambda manifest: manifest["artifacts"][0]["channels"].update({"features.3": 10**6}),
            "features.3 has 1000000 channels",
        ),
    ],
)
def test_channels_that_are_none(exported: Exported, tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    refused(exported.cells(SLIMMABLE)[0], *edited(exported, tmp_path, change), message)


def test_a_damaged_checkpoint_with_the_right_hash(exported: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "us.pt"
    damaged.write_bytes(b"no checkpoint")
    folder, _ = edited(exported, tmp_path, lambda manifest: manifest["source"].update(sha256=file_sha256(damaged)))
    with pytest.raises(CheckpointError):
        open_torch(exported.cells(SLIMMABLE)[0], folder, FewImages(), Options(checkpoint=damaged))
