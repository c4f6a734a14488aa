"""What looks after a runtime: it goes on whatever happens, it ends, and it sees what is another manifest."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from slimexport.target.serving.watching import DISK_EVERY, OnDisk, Watcher
from tests.support.serving_helpers import PATIENCE_S, wait_until


def test_it_looks_again_and_again_whatever_a_look_raises(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[str] = []

    def look() -> None:
        looks.append("run")
        raise ValueError("of no use")

    watcher = Watcher(look, lambda: looks.append("disk"), every_s=0.001)
    with caplog.at_level(logging.CRITICAL):
        watcher.start()
        wait_until(lambda: looks.count("disk") >= 3)
        watcher.end()
    count = len(looks)
    assert looks.count("run") >= DISK_EVERY * looks.count("disk") >= 3
    assert threading.active_count() >= 1 and len(looks) == count, "no look after its end"


def test_it_can_end_before_it_began_and_from_itself() -> None:
    Watcher(lambda: None, lambda: None).end()
    ended = threading.Event()

    def look() -> None:
        watcher.end()
        ended.set()

    watcher = Watcher(look, lambda: None, every_s=0.001)
    watcher.start()
    assert ended.wait(PATIENCE_S)


def test_a_manifest_is_another_one_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("one")
    on_disk = OnDisk(tmp_path)
    assert not on_disk.look()
    os.utime(path, ns=(1, 1))
    assert not on_disk.look(), "touched"
    other = tmp_path / "other"
    other.write_text("one")
    other.replace(path)
    assert not on_disk.look(), "copied anew"
    path.write_text("two")
    os.utime(path, ns=(5, 5))
    assert on_disk.look() and on_disk.stale
    path.unlink()
    assert on_disk.look()
    path.mkdir()
    assert on_disk.look()
    path.rmdir()
    path.write_text("one")
    assert not on_disk.look() and not on_disk.stale


def test_what_is_the_same_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("one")
    on_disk = OnDisk(tmp_path)
    monkeypatch.setattr("slimexport.target.serving.watching.read_file", lambda path, most: pytest.fail("read"))
    assert not on_disk.look()
