"""Bad options, files and folders, through the command: a message one can act on, the right exit code, no half-written
bundle. (Bad checkpoints: test_export_bad_checkpoint.py.)"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.bundle_writer import BundleWriter
from slimtrain.base.folders.claim import claimed
from tests.support.export_helpers import corrupt, export, leaves_nothing, refused, run, small_spec, tree, write_checkpoint

# ---------------------------------------------------------------------------------------------------- widths and sizes


@pytest.mark.parametrize(
    ("widths", "parts"),
    [
        ("0.75", ("width 0.75", "0.25, 0.5")),
        ("0.2", ("width 0.2", "0.25, 0.5")),
        ("0", ("width 0", "positive")),
        ("-0.5", ("width -0.5", "positive")),
        ("nan", ("nan", "positive")),
        ("half", ("'half'", "not a number")),
        ("0.5,", ("entry is empty",)),
    ],
)
def test_a_width_that_an_s_network_does_not_have(good: Path, out: Path, widths: str, parts: tuple[str, ...]) -> None:
    leaves_nothing(export(good, out, "--widths", widths), out, 2, *parts)


@pytest.mark.parametrize("width", ["0.2", "0.51", "7"])
def test_a_width_outside_a_us_networks_range(out: Path, tmp_path: Path, width: str) -> None:
    path = write_checkpoint(tmp_path / "us.pt", small_spec("us"))
    leaves_nothing(export(path, out, "--widths", width), out, 2, f"width {width}", "0.25 to 0.5")


@pytest.mark.parametrize("switch", ["4", "0.5", "99"])
def test_an_autoslim_switch_that_does_not_exist(out: Path, switch: str) -> None:
    outcome = export("random:autoslim_mobilenet_v1", out, "--widths", switch)
    leaves_nothing(outcome, out, 2, f"switch {switch}", "switches 1, 2, 3")


@pytest.mark.parametrize("size", ["31", "1", "0", "-64", "100000", "64x31", "31x64", "64x", "x", "64x64x3", "64x99999", "big"])
def test_an_image_size_that_the_network_cannot_take(good: Path, out: Path, size: str) -> None:
    outcome = run("--ckpt", good, "--image-size", size, "--output-dir", out / "b")
    leaves_nothing(outcome, out, 2, "image", size)


@pytest.mark.parametrize("name", ["s_shufflenet", "s_mobilenet_v2"])
def test_the_smallest_image_that_is_not_refused_does_work(out: Path, name: str) -> None:
    assert run("--ckpt", f"random:{name}", "--image-size", "32", "--widths", "0.5", "--output-dir", out / "b").code == 0


# ------------------------------------------------------------------------------------------------------ other files


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--channels", "no such file"),
        ("--config", "no such file"),
        ("--verify-data", "no such folder"),
        ("--calibration-data", "no such folder or file"),
    ],
)
def test_another_file_that_is_missing(good: Path, out: Path, tmp_path: Path, option: str, part: str) -> None:
    leaves_nothing(export(good, out, option, tmp_path / "none"), out, 2, "none", part)


@pytest.mark.parametrize("option", ["--channels", "--config", "--verify-data", "--calibration-data"])
def test_another_file_under_a_name_that_no_file_system_has(good: Path, out: Path, option: str) -> None:
    """Asking whether it exists is an error already; so it is below a folder that one may not read."""
    leaves_nothing(export(good, out, option, "x" * 300), out, 2, "xxx")


def test_photographs_that_are_none(good: Path, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    leaves_nothing(export(good, out, "--verify-data", folder), out, 2, "photos", "no images")
    (folder / "a.png").write_text("not an image")
    (folder / "b.png").write_text("not an image")
    leaves_nothing(export(good, out, "--verify-data", folder), out, 2, "a.png", "can be read")


@pytest.mark.parametrize("content", ["[1, 2", "just text", "{}", "channels: 7", "features.3: 8"])
def test_a_plan_file_that_is_none(good: Path, out: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "p.yml").write_text(content)
    leaves_nothing(export(good, out, "--channels", tmp_path / "p.yml"), out, 2, "p")


# ---------------------------------------------------------------------------------------------------------- output


def test_an_output_folder_that_exists_is_refused_before_the_checkpoint_is_read(out: Path, tmp_path: Path) -> None:
    (out / "b").mkdir()
    (out / "b" / "mine.txt").write_text("mine")
    (tmp_path / "x.pt").write_text("not even a checkpoint")
    refused(run("--ckpt", tmp_path / "x.pt", "--output-dir", out / "b"), 2, "exists", "--overwrite")
    assert tree(out) == {"b/mine.txt": b"mine"}


def test_overwrite_replaces_the_bundle_and_keeps_foreign_files(good: Path, tmp_path: Path) -> None:
    output = tmp_path / "b"
    base = ("--ckpt", good, "--image-size", "64", "--output-dir", output)
    assert run(*base).code == 0
    (output / "notes.txt").write_text("mine")
    refused(run(*base, "--widths", "0.5"), 2, "exists")
    assert run(*base, "--widths", "0.5", "--overwrite").code == 0
    assert sorted(tree(tmp_path)) == [
        f"b/{n}" for n in ("manifest.json", "notes.txt", "reference.npz", "s_mobilenet_v1_x0_5.onnx")
    ]


def test_an_output_below_a_file(good: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = run("--ckpt", good, "--image-size", "64", "--output-dir", tmp_path / "file" / "b")
    leaves_nothing(outcome, out, 2, "cannot be made", "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_name_that_no_file_system_has(good: Path, out: Path) -> None:
    leaves_nothing(run("--ckpt", good, "--image-size", "64", "--output-dir", out / ("x" * 300)), out, 2, "xxx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_below_a_folder_without_permission(good: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    outcome = run("--ckpt", good, "--image-size", "64", "--output-dir", tmp_path / "locked" / "b")
    leaves_nothing(outcome, out, 2, "locked")


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))


def while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)


def while_making_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", no_space)


@pytest.mark.parametrize("full", [refused_before, while_writing, while_making_the_folder])
def test_a_full_disk_is_exit_3_and_leaves_nothing(
    good: Path, out: Path, monkeypatch: pytest.MonkeyPatch, full: Callable[[pytest.MonkeyPatch], None]
) -> None:
    full(monkeypatch)
    leaves_nothing(export(good, out), out, 3, "no space left", "fewer widths")


@pytest.mark.parametrize("full", [refused_before, while_writing])
def test_a_full_disk_leaves_an_old_bundle_as_it_was(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Callable[[pytest.MonkeyPatch], None]
) -> None:
    base = ("--ckpt", good, "--image-size", "64", "--output-dir", tmp_path / "b")
    assert run(*base, "--widths", "0.25").code == 0
    before = tree(tmp_path)
    full(monkeypatch)
    refused(run(*base, "--overwrite"), 3, "no space left")
    assert tree(tmp_path) == before


# ------------------------------------------------------------------------------------------------------ environment


def test_onnxruntime_missing_is_exit_3_with_the_command_that_installs_it(
    good: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    leaves_nothing(export(good, out), out, 3, "onnxruntime is not installed", "pip install onnxruntime", "--no-verify")


def test_without_onnxruntime_one_can_still_look_and_export_unproven(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    base = ("--ckpt", good, "--image-size", "64", "--output-dir", tmp_path / "b")
    assert run(*base, "--dry-run").code == 0
    assert run(*base, "--no-verify").code == 0
    refused(run("--bundle", tmp_path / "b", "--verify-only"), 3, "pip install onnxruntime")


def test_an_interrupt_leaves_nothing(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(model: object) -> None:
        raise KeyboardInterrupt

    corrupt(monkeypatch, interrupt, only="x0_5")  # the first network is written by then
    outcome = export(good, out)
    assert outcome.code == 130
    assert "interrupted" in outcome.err.splitlines()[-1]
    assert list(out.iterdir()) == []


def test_an_interrupt_after_the_last_step_tells_what_is_there(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = BundleWriter.publish

    def interrupted(self: BundleWriter) -> None:
        publish(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(BundleWriter, "publish", interrupted)
    outcome = export(good, out)
    last = f"slimexport: interrupted, {out / 'new' / 'b'} had been written."
    assert (outcome.code, outcome.err.splitlines()[-1]) == (130, last)
    assert (out / "new" / "b" / "manifest.json").exists()


def test_a_folder_that_another_export_writes_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    words = ("--ckpt", tmp_path / "text.pt", "--output-dir", tmp_path / "b")
    with claimed(tmp_path / "b", ""):
        refused(run(*words), 2, f"process {os.getpid()} is writing there")
    refused(run(*words), 2, "text.pt")
    assert list(tmp_path.iterdir()) == [tmp_path / "text.pt"]


def test_a_polite_kill_leaves_nothing_too(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unhandled(number: int, frame: object) -> None:
        raise AssertionError("the command did not see the signal")

    corrupt(monkeypatch, lambda model: signal.raise_signal(signal.SIGTERM), only="x0_5")
    before = signal.signal(signal.SIGTERM, unhandled)
    try:
        outcome = export(good, out)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert outcome.code in (130, 143)
    assert list(out.iterdir()) == []


def test_calibration_images_that_do_not_fit(out: Path, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "us.pt", small_spec("us"))
    fit = np.zeros((4, 3, 64, 64), np.float32)
    bad = fit.copy()
    bad[3, 0, 0, 0] = np.nan
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "two.npz": ({"a": fit, "b": fit}, "expected exactly one"),
        "none.npz": ({}, "expected exactly one"),
        "double.npz": ({"a": fit.astype(float)}, "float64"),
        "size.npz": ({"a": fit[:, :, :32]}, "[4, 3, 32, 64]"),
        "last.npz": ({"a": fit.transpose(0, 2, 3, 1)}, "[4, 64, 64, 3]"),
        "empty.npz": ({"a": fit[:0]}, "[0, 3, 64, 64]"),
        "nan.npz": ({"a": bad}, "NaN"),
    }
    for name, (arrays, part) in cases.items():
        np.savez(tmp_path / name, **arrays)
        leaves_nothing(export(path, out, "--widths", "0.3", "--calibration-data", tmp_path / name), out, 2, name, part)
    for name, content in (("text.npy", b"hello"), ("cut.npy", b"\x93NUMPY\x01\x00"), ("x.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        leaves_nothing(export(path, out, "--widths", "0.3", "--calibration-data", tmp_path / name), out, 2, name)
    (tmp_path / "folder").mkdir()
    leaves_nothing(export(path, out, "--widths", "0.3", "--calibration-data", tmp_path / "folder"), out, 2, "no images")
