"""Triton's labels: a file per model with a class's name per line, named in its configuration, where names are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slimexport.target.manifest import read_manifest
from slimexport.target.serving.triton.repository import write_repository
from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest
from tests.support.bundle_helpers import engine as some_engine

NAMES = ("cat", "Käfer", "two\nlines")  # folders may be called so


def repository(folder: Path, names: tuple[str, ...] | None) -> Path:
    bundle = folder / "bundle"
    entries = [
        with_file(bundle, artifact("net_x0_5")),
        with_file(bundle, artifact("net_x0_5", format="trt", engine=some_engine())),
    ]
    whole = manifest(*entries, image_size=48, classes=3)
    write_manifest(bundle, replace(whole, output=replace(whole.output, class_names=names)))
    write_repository(bundle, read_manifest(bundle), folder / "models")
    return folder / "models"


def test_each_model_has_its_labels_and_names_them(tmp_path: Path) -> None:
    models = sorted(repository(tmp_path, NAMES).iterdir())
    assert len(models) == 2
    for model in models:
        assert (model / "labels.txt").read_text(encoding="utf-8").splitlines() == ["cat", "Käfer", "two lines"]
        output = (model / "config.pbtxt").read_text(encoding="ascii").partition("output [")[2].partition("]\n]")[0]
        assert 'label_filename: "labels.txt"' in output


def test_without_names_there_are_none(tmp_path: Path) -> None:
    for model in repository(tmp_path, None).iterdir():
        assert not (model / "labels.txt").exists()
        assert "label" not in (model / "config.pbtxt").read_text(encoding="ascii")
