"""Bundles that are given are taken; what is made is made by commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies.serving import bundles
from benchmarks.studies.serving.bundles import digits_bundle, published_bundle
from slimtrain.base.errors import CommandError


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    ran: list[list[str]] = []
    monkeypatch.setattr(bundles, "_run", lambda module, *words: ran.append([module, *words]))
    return ran


def test_a_bundle_that_is_there_is_taken(two_widths: Path, tmp_path: Path, commands: list[list[str]]) -> None:
    assert published_bundle(tmp_path, two_widths) == two_widths and digits_bundle(tmp_path, two_widths) == two_widths
    assert commands == []


def test_networks_are_exported_and_the_digits_trained(tmp_path: Path, commands: list[list[str]]) -> None:
    assert published_bundle(tmp_path) == tmp_path / "us_mobilenet_v1"
    digits_bundle(tmp_path)
    digits_bundle(tmp_path, tmp_path / "mine.pt")
    export, train, own, mine = (" ".join(words) for words in commands)
    assert export == f"slimexport --ckpt random:us_mobilenet_v1 --widths all --output-dir {tmp_path / 'us_mobilenet_v1'}"
    assert train.startswith("slimtrain train digits --output-dir") and "--accuracy-data digits" in own
    assert f"--ckpt {tmp_path / 'digits' / 'us_mbv1.pt'}" in own and f"--ckpt {tmp_path / 'mine.pt'}" in mine


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"slimexport --ckpt failed:\n.*none.pt") as raised:
        digits_bundle(tmp_path, tmp_path / "none.pt")
    assert raised.value.exit_code == 2
