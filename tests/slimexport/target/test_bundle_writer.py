"""Writing a bundle: all or nothing. Nothing at the final name is unfinished, and a failure leaves no trace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimexport.target.bundle_writer import BundleWriter
from slimexport.target.errors import BundleError
from slimexport.target.manifest import read_manifest
from slimtrain.base.errors import UserError
from slimtrain.base.folders import replacing
from tests.support.export_helpers import bundle, fill, tree


def make(output: Path, *files: str, overwrite: bool = False, meanwhile: Callable[[], object] = lambda: None) -> None:
    """A whole bundle, with something happening just before it is published."""
    with BundleWriter(output, overwrite=overwrite) as writer:
        fill(writer, *files)
        meanwhile()
        writer.publish()


def interrupt() -> NoReturn:
    raise RuntimeError("something went wrong")


def full_disk(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


# ------------------------------------------------------------------------------------------------------ all or nothing


def test_nothing_is_at_the_final_name_until_it_is_published(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    with BundleWriter(output) as writer:
        fill(writer, "x.onnx", "manifest.json")
        assert not output.exists()
        writer.publish()
        assert tree(output) == {"x.onnx": b"new x.onnx", "manifest.json": b"new manifest.json"}
    assert hidden(tmp_path) == []


def test_without_publish_nothing_stays_and_made_parents_go(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a" / "b" / "c") as writer:
        fill(writer, "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="went wrong"):
        make(tmp_path / "a" / "b", "x.onnx", meanwhile=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_parents_that_were_there_stay_and_so_do_those_that_others_use_by_now(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with BundleWriter(tmp_path / "there" / "new" / "b"):
        (tmp_path / "there" / "new" / "somebody's").write_text("")
    assert sorted(tree(tmp_path)) == ["there/new/somebody's"]
    with BundleWriter(tmp_path / "there" / "c"):
        pass
    assert (tmp_path / "there").is_dir()


def test_a_removed_file_is_not_published(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        fill(writer, "x.onnx", "y.onnx")
        writer.remove("x.onnx")
        writer.publish()
    assert sorted(tree(tmp_path / "b")) == ["y.onnx"]


def test_what_a_killed_process_of_the_same_number_left_is_cleaned_away(tmp_path: Path) -> None:
    stale = BundleWriter(tmp_path / "b").staging
    stale.mkdir()
    (stale / "half.onnx").write_text("half")
    with BundleWriter(tmp_path / "b") as writer:
        fill(writer, "x.onnx")
        writer.publish()
    assert sorted(tree(tmp_path)) == ["b/x.onnx"]


@pytest.mark.parametrize("spelling", ["a/../b", "./b", "b/", "a/x/../../b"])
def test_an_unusual_spelling_of_a_path_is_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with BundleWriter(spelling) as writer:
        fill(writer, "x.onnx")
        writer.publish()
    assert sorted(tree(tmp_path)) == ["b/x.onnx"]
    assert hidden(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_folder_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    before = bundle(tmp_path / "b", "x.onnx")
    with pytest.raises(UserError, match=r"exists.*--overwrite"), BundleWriter(tmp_path / "b"):
        pass
    assert tree(tmp_path / "b") == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_ordinary_folder_is_refused_even_with_overwrite(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "b"
    if kind == "file":
        target.write_text("mine")
    else:
        (tmp_path / "real").mkdir()
        target.symlink_to(tmp_path / "real")
    with pytest.raises(UserError, match="no ordinary folder"), BundleWriter(target, overwrite=True):
        pass
    assert target.is_symlink() or target.read_text() == "mine"


def test_a_parent_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "b", tmp_path / "file" / "c" / "b"):
        with pytest.raises(UserError, match="not a folder that you may write to"):
            BundleWriter(output).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="locked"):
        BundleWriter(tmp_path / "locked" / "b").check()


def test_a_name_that_the_file_system_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError), BundleWriter(tmp_path / ("x" * 300)):
        pass
    with pytest.raises(UserError), BundleWriter(tmp_path / ("x" * 250)):  # fits, but its hidden sibling does not
        pass
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------- overwrite


def test_overwrite_replaces_the_bundle_and_keeps_files_that_are_not_its_own(tmp_path: Path) -> None:
    bundle(tmp_path / "b", "x.onnx", "y.onnx")
    (tmp_path / "b" / "notes.txt").write_text("mine")
    (tmp_path / "b" / "logs").mkdir()
    (tmp_path / "b" / "logs" / "1").write_text("mine too")
    with BundleWriter(tmp_path / "b", overwrite=True) as writer:
        fill(writer, "x.onnx", "manifest.json")
        writer.publish()
    assert tree(tmp_path / "b") == {
        "x.onnx": b"new x.onnx",
        "manifest.json": b"new manifest.json",
        "notes.txt": b"mine",
        "logs/1": b"mine too",
    }
    assert hidden(tmp_path) == []


def test_overwrite_of_a_folder_that_is_no_bundle_keeps_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with BundleWriter(tmp_path / "b", overwrite=True) as writer:
        fill(writer, "manifest.json")
        writer.publish()
    assert sorted(tree(tmp_path / "b")) == ["manifest.json", "thesis.tex"]


@pytest.mark.parametrize(
    "manifest",
    ['{"schema_version": 1, "artifacts": [1, null]}', '{"schema_version": 1, "artifacts": [{}]}', "[]", "not json", "{}"],
)
def test_overwrite_of_a_damaged_bundle_works(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "manifest.json").write_text(manifest)
    with BundleWriter(tmp_path / "b", overwrite=True) as writer:
        fill(writer, "manifest.json")
        writer.publish()
    assert (tmp_path / "b" / "manifest.json").read_bytes() == b"new manifest.json"


def test_overwrite_without_publish_leaves_the_old_bundle(tmp_path: Path) -> None:
    before = bundle(tmp_path / "b", "x.onnx")
    with BundleWriter(tmp_path / "b", overwrite=True) as writer:
        fill(writer, "x.onnx")
    assert tree(tmp_path / "b") == before
    assert hidden(tmp_path) == []


def test_a_folder_made_by_somebody_else_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        make(tmp_path / "b", "x.onnx", meanwhile=lambda: bundle(tmp_path / "b", "theirs.onnx"))
    assert (tmp_path / "b" / "theirs.onnx").read_text() == "old theirs.onnx"
    assert not (tmp_path / "b" / "x.onnx").exists()
    assert hidden(tmp_path) == []


def test_a_rename_that_fails_brings_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle(tmp_path / "b", "x.onnx")
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if ".partial-" in str(source):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(replacing, "exchange", lambda first, second: False)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(UserError, match="Input/output error"):
        make(tmp_path / "b", "x.onnx", overwrite=True)
    assert tree(tmp_path / "b") == before
    assert hidden(tmp_path) == []


def test_a_bundle_that_had_stepped_aside_is_told_and_comes_back(tmp_path: Path) -> None:
    """A process was killed between two renames, on a system that swaps no names."""
    before = bundle(tmp_path / "b", "x.onnx")
    (tmp_path / "b").rename(tmp_path / ".b.old-123")
    with pytest.raises(BundleError, match=rf"not there, .* was killed; the old bundle is {tmp_path}/\.b\.old-123\. Rename it"):
        read_manifest(tmp_path / "b")
    with pytest.raises(UserError, match="exists"):
        make(tmp_path / "b", "y.onnx")
    assert tree(tmp_path / "b") == before
    make(tmp_path / "b", "y.onnx", overwrite=True)
    assert "y.onnx" in tree(tmp_path / "b") and hidden(tmp_path) == []


def test_an_export_that_is_refused_settles_what_a_killed_one_left(tmp_path: Path) -> None:
    """Killed behind the exchange: the old bundle is hidden then, with the lock."""
    bundle(tmp_path / "b", "x.onnx")
    bundle(tmp_path / ".b.partial-1", "y.onnx")
    (tmp_path / ".b.lock").write_text("1")
    with pytest.raises(UserError, match=r"b: exists\."):
        BundleWriter(tmp_path / "b").check()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_nothing_that_a_writer_made_is_there_once_another_may_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = []
    real = os.unlink

    def unlink(path: Any, **options: Any) -> None:
        if str(path).endswith(".b.lock"):
            there.extend(sorted(path.name for path in tmp_path.iterdir()))
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with BundleWriter(tmp_path / "b") as writer:
        fill(writer, "x.onnx")
    assert there == [".b.lock"] and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------- two at once


def test_a_second_writer_is_told_at_its_start_and_disturbs_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        fill(writer, "x.onnx")
        for overwrite in (False, True):
            with (
                pytest.raises(UserError, match=r"is writing there\. Wait for it"),
                BundleWriter(tmp_path / "b", overwrite=overwrite),
            ):
                pass
        writer.publish()
    assert sorted(tree(tmp_path)) == ["b/x.onnx"]


def test_what_killed_writers_left_is_cleaned_away_and_that_of_living_ones_is_not(tmp_path: Path) -> None:
    (tmp_path / ".b.partial-1").mkdir()
    (tmp_path / ".b.partial-1" / "half.onnx").write_text("half")
    with BundleWriter(tmp_path / "c") as other:
        make(tmp_path / "b", "x.onnx")
        assert other.staging.exists()
    assert sorted(tree(tmp_path)) == ["b/x.onnx"]


def test_interrupted_after_its_end_it_says_what_is_there(tmp_path: Path) -> None:
    def interrupted(output: Path, *files: str, overwrite: bool = False, publishes: bool = True) -> None:
        with BundleWriter(output, overwrite=overwrite) as writer:
            fill(writer, *files)
            if publishes:
                writer.publish()
            raise KeyboardInterrupt

    for overwrite in (False, True):
        with pytest.raises(KeyboardInterrupt, match=rf"^interrupted, {tmp_path}/b had been written\.$"):
            interrupted(tmp_path / "b", "x.onnx", "manifest.json", overwrite=overwrite)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupted(tmp_path / "c", "x.onnx", publishes=False)
    assert sorted(tree(tmp_path)) == ["b/manifest.json", "b/x.onnx"]


def test_an_interruption_as_the_hidden_folder_was_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slimexport.target.bundle_writer.identity", interrupted)
    with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "b"):
        pass
    assert not list(tmp_path.glob(".b.partial-*"))
