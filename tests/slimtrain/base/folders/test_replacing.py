"""A folder takes another's name: whatever fails or interrupts, one of both is there whole, and nobody's files are lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.folders import replacing
from slimtrain.base.folders.claim import claimed
from slimtrain.base.folders.replacing import discard, exchange, recover, replace_folder, settle_left
from tests.support.export_helpers import tree

OLD = {"a": b"old", "notes": b"mine", "logs/1": b"mine too", "link": b"mine"}
NEW = {"a": b"new", "b": b"new"}
KEPT = {name: content for name, content in OLD.items() if name != "a"}
KEEPING = ("link", "logs", "notes")


def folders(place: Path) -> tuple[Path, Path]:
    """A new folder, under the hidden name of this process, and an old one."""
    new, old = place / f".f.partial-{os.getpid()}", place / "f"
    (old / "logs").mkdir(parents=True)
    new.mkdir()
    for name, content in OLD.items():
        if name != "link":
            (old / name).write_bytes(content)
    (old / "link").symlink_to("notes")
    for name, content in NEW.items():
        (new / name).write_bytes(content)
    return new, old


def without_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system, or a file system, that swaps no names."""
    monkeypatch.setattr(replacing, "exchange", lambda first, second: False)


ways = pytest.mark.parametrize("swaps", [True, False])


@ways
def test_all_is_replaced_and_what_is_kept_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool) -> None:
    if not swaps:
        without_swaps(monkeypatch)
    new, old = folders(tmp_path)
    replace_folder(new, old, KEEPING)
    assert tree(old) == {**NEW, **KEPT}
    assert (old / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_name_that_the_new_one_has_itself_is_the_new_ones(tmp_path: Path) -> None:
    new, old = folders(tmp_path)
    (new / "notes").write_bytes(b"new")
    replace_folder(new, old, KEEPING)
    assert tree(old)["notes"] == b"new"


def test_file_systems_without_links_get_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    new, old = folders(tmp_path)
    replace_folder(new, old, KEEPING)
    assert tree(old) == {**NEW, **KEPT}


class Fails:
    """Stands for a function of `os`: the call of a number does not come to pass, or is interrupted once it has."""

    def __init__(self, real: Callable[..., Any], number: int, error: BaseException, after: bool) -> None:
        self.real, self.number, self.error, self.after, self.calls = real, number, error, after, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls != self.number:
            return self.real(*arguments, **options)
        if self.after:
            self.real(*arguments, **options)
        raise self.error


@ways
@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("name", ["rename", "link"])
@pytest.mark.parametrize(
    ("error", "after"),
    [(OSError(errno.EBUSY, "Device or resource busy"), False), (KeyboardInterrupt(), False), (KeyboardInterrupt(), True)],
)
def test_whatever_fails_one_of_both_is_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, number: int, name: str, error: BaseException, after: bool
) -> None:
    if not swaps:
        without_swaps(monkeypatch)
    new, old = folders(tmp_path)
    failing = Fails(getattr(os, name), number, error, after)
    monkeypatch.setattr(os, name, failing)
    outcome: BaseException | None = None
    try:
        replace_folder(new, old, KEEPING)
    except (OSError, KeyboardInterrupt) as caught:
        outcome = caught
    copied = name == "link" and isinstance(error, OSError)
    assert outcome is (None if failing.calls < number or copied else error)
    monkeypatch.undo()
    discard(new, old)
    recover(old)
    assert tree(old) in (OLD, {**NEW, **KEPT})
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_what_cannot_be_moved_stops_it_while_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder that is a mount."""
    new, old = folders(tmp_path)
    (old / "mounted").mkdir()
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(source).name == "mounted":
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="busy"):
        replace_folder(new, old, ("logs", "mounted", "notes"))
    assert tree(old) == OLD and (old / "mounted").is_dir()


REPLACE = """
import os, signal, sys
from pathlib import Path
from slimtrain.base.folders import replacing
from slimtrain.base.folders.claim import claimed
stop = int(sys.argv[2])
if sys.argv[3] == "renames":
    replacing.exchange = lambda first, second: False
count = 0
def dying(real):
    def call(*arguments, **options):
        global count
        for when in ("before", "after"):
            count += 1
            if count == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            if when == "before":
                given = real(*arguments, **options)
        return given
    return call
for name in ("rename", "link"):
    setattr(os, name, dying(getattr(os, name)))
replacing.exchange = dying(replacing.exchange)
replacing.replace_folder(next(Path(sys.argv[1]).glob(".f.partial-*")), Path(sys.argv[1]) / "f", ("link", "logs", "notes"))
"""


@pytest.mark.parametrize("way", ["swap", "renames"])
def test_killed_anywhere_the_next_one_finds_one_of_both_whole(tmp_path: Path, way: str) -> None:
    outcomes = []
    for stop in range(1, 20):
        place = tmp_path / str(stop)
        _, old = folders(place)
        done = subprocess.run([sys.executable, "-c", REPLACE, place, str(stop), way], check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        if way == "swap":
            assert tree(old)["a"] in (b"old", b"new"), "there at every moment"
        recover(old)
        assert tree(old) in (OLD, {**NEW, **KEPT})
        assert [path.name for path in place.iterdir()] == ["f"]
        outcomes.append(tree(old)["a"])
        if done.returncode == 0:
            break
    assert done.returncode == 0 and {b"old", b"new"} == set(outcomes)


def test_what_cannot_be_given_back_is_left_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    new, old = folders(tmp_path)
    (old / "logs").rename(new / "logs")

    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    discard(new, old)
    assert (new / "logs" / "1").read_bytes() == b"mine too"
    assert f"{new}: holds logs, which could not be moved back to {old}. The next command that writes there" in caplog.text
    monkeypatch.undo()
    recover(old)
    assert tree(old) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@ways
@pytest.mark.parametrize("from_call", range(1, 8))
def test_on_a_disk_that_refuses_all_from_one_call_on_the_next_one_finds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, from_call: int
) -> None:
    """What somebody put beside it can then not be given back by the one that moved it."""
    new, old = folders(tmp_path)
    calls = 0

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= from_call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        return call

    for name in ("rename", "link"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    monkeypatch.setattr(shutil, "copy2", refusing(shutil.copy2))
    monkeypatch.setattr(replacing, "exchange", refusing(exchange) if swaps else lambda first, second: False)
    refused = False
    try:
        replace_folder(new, old, KEEPING)
    except OSError:
        refused = True
        discard(new, old)
        if old.exists() and not (old / "logs").exists():
            assert calls > 4, "a folder is moved last, when all else has come to pass"
    assert refused == (calls >= from_call)
    monkeypatch.undo()
    recover(old)
    assert tree(old) == (OLD if refused else {**NEW, **KEPT})
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_command_that_refuses_a_folder_settles_what_is_left_of_it_and_writes_nothing_else(tmp_path: Path) -> None:
    new, old = folders(tmp_path)
    (old / "logs").rename(new / "logs")
    (tmp_path / ".f.lock").touch()
    settle_left(old)
    assert tree(tmp_path) == {f"f/{name}": content for name, content in OLD.items()}
    os.chmod(tmp_path, 0o555)
    try:
        settle_left(old)
    finally:
        os.chmod(tmp_path, 0o755)


def test_what_a_process_at_work_has_begun_is_left_to_it(tmp_path: Path) -> None:
    new, old = folders(tmp_path)
    with claimed(old, ""):
        settle_left(old)
        assert tree(new) == NEW


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no renameat2")
def test_names_are_swapped_or_the_reason_is_raised(tmp_path: Path) -> None:
    new, old = folders(tmp_path)
    assert exchange(new, old) and tree(new) == OLD and tree(old) == NEW
    with pytest.raises(FileNotFoundError, match="No such file"):
        exchange(tmp_path / "none", old)
