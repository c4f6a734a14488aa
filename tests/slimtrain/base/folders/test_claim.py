"""A folder is one process's at a time, however that process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.folders.claim import claimed, lock_of

HOLD = """
import sys, time
from pathlib import Path
from slimtrain.base.folders.claim import claimed
with claimed(Path(sys.argv[1]), "Wait."):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that holds `folder`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_claim_leaves_nothing_and_may_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "b", "Wait.") as held:
            assert held and [path.name for path in tmp_path.iterdir()] == [".b.lock"]
        assert not list(tmp_path.iterdir())


def test_another_process_is_named_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    with other_process(folder) as process:
        said = rf"^{folder}: process {process.pid} is writing there\. Choose another\.$"
        with pytest.raises(UserError, match=said), claimed(folder, "Choose another."):
            pass
        with claimed(tmp_path / "c", "Wait."):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock_of(folder).exists(), "nobody was left to remove it"
        with claimed(folder, "Wait.") as held:
            assert held
    assert not lock_of(folder).exists()


def test_every_spelling_is_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    with claimed(Path("b"), "Wait."):
        for spelling in ("./b", "a/../b", tmp_path / "b"):
            with pytest.raises(UserError, match="is writing there"), claimed(Path(spelling), "Wait."):
                pass
    os.chdir(tmp_path / "a")
    with claimed(Path(), "Wait."):
        assert (tmp_path / ".a.lock").exists()


def test_a_child_that_outlives_it_does_not_hold_it(tmp_path: Path) -> None:
    """As processes that load images, which are forked."""
    ready, wait = os.pipe(), os.pipe()
    with claimed(tmp_path / "b", "Wait."):
        child = os.fork()
        if not child:
            os.write(ready[1], b"x")
            os.read(wait[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        with pytest.raises(UserError), claimed(tmp_path / "b", "Wait."):
            pass
    try:
        with claimed(tmp_path / "b", "Wait.") as held:
            assert held
    finally:
        os.write(wait[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*ready, *wait):
            os.close(descriptor)


def test_where_there_are_no_locks_work_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(*_: Any) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    with claimed(tmp_path / "b", "Wait.") as held:
        assert not held
    monkeypatch.undo()
    with claimed(tmp_path / "no" / "such" / "b", "Wait.") as held:
        assert not held


def test_what_is_no_file_in_its_place_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".b.lock").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / ".c.lock")
    with claimed(tmp_path / "b", "Wait.") as held:
        assert not held
    with claimed(tmp_path / "c", "Wait."):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["ftruncate", "pwrite"])
def test_a_full_disk_does_not_undo_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its holder's number is not there then, the lock is."""

    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with claimed(tmp_path / "b", "Wait.") as held:
        assert held
        with pytest.raises(UserError, match=r"another process is writing there\. Wait\.$"), claimed(tmp_path / "b", "Wait."):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_closed_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.close

    def failing(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", failing)
    with claimed(tmp_path / "b", "Wait.") as held:
        assert held
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
