"""Files are either what they were before or whole; what a disk refuses is an error with what to do."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slimtrain.base import files
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.files import (
    AGAIN,
    RUN,
    Advice,
    disk_error,
    file_sha256,
    library_name,
    partial_file,
    remove_partials,
    replace_both,
    write_atomically,
)
from slimtrain.base.process.locks import lock
from tests.support.run_helpers import tree


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"first")
    write_atomically(tmp_path / "a" / "b" / "file", memoryview(b"second"))
    assert tree(tmp_path) == {"a/b/file": b"second"}


class Stopped(BaseException):
    """As Ctrl-C is: no Exception."""


@pytest.mark.parametrize("place", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError, "no space left on its disk.*untouched"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ResourceError, "no space left"),
        (OSError(errno.EROFS, "Read-only file system"), UserError, "cannot be written .Read-only file system"),
        (Stopped("now"), Stopped, "now"),
    ],
    ids=["full", "quota", "read-only", "interrupted"],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
    expected: type[BaseException],
    words: str,
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise error

    write_atomically(tmp_path / "last.pt", b"old")
    monkeypatch.setattr(os, place, fail)
    with pytest.raises(expected, match=words) as caught:
        write_atomically(tmp_path / "last.pt", b"new", RUN)
    assert type(caught.value) is expected
    assert tree(tmp_path) == {"last.pt": b"old"}


def test_a_disk_that_fills_up_in_the_middle_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes no byte."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    write_atomically(tmp_path / "last.pt", b"old")
    monkeypatch.setattr(files, "_begun", lambda partial: io.FileIO("/dev/full", "wb"))
    with pytest.raises(ResourceError, match="MiB are needed"):
        write_atomically(tmp_path / "last.pt", b"n" * 2**20)
    assert tree(tmp_path) == {"last.pt": b"old"}
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("inner", ["last.pt", "deeper/last.pt"])
def test_a_folder_that_is_a_file_is_bad_input(tmp_path: Path, inner: str) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot be written") as caught:
        write_atomically(tmp_path / "runs" / inner, b"new")
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == {"runs": b"a file"}


def test_a_folder_in_the_files_place_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "last.pt", b"new", RUN)
    assert os.listdir(tmp_path) == ["last.pt"]


def test_what_a_killed_run_had_begun_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.pt.partial-17", ".best.pt.partial-4", "last.pt", ".hidden", "x.partial-1"):
        (tmp_path / name).write_text("x")
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "last.pt", "x.partial-1"]
    remove_partials(tmp_path / "nowhere")


def test_a_partial_file_is_gone_unless_it_was_renamed(tmp_path: Path) -> None:
    with partial_file(tmp_path / "a", b"one") as partial:
        assert partial.read_bytes() == b"one" and partial.name.startswith(".")
    assert tree(tmp_path) == {}
    with partial_file(tmp_path / "a", b"two") as partial:
        os.replace(partial, tmp_path / "a")
    with pytest.raises(Stopped), partial_file(tmp_path / "a", b"three"):
        raise Stopped
    assert tree(tmp_path) == {"a": b"two"}


BEGIN = """
import sys, time
from pathlib import Path
from slimtrain.base.files import partial_file
with partial_file(Path(sys.argv[1]), b"half"):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_and_what_a_living_one_makes_does_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "[a]*.yml"
    (tmp_path / ".[a]x.yml.partial-1").write_text("of another file")
    with subprocess.Popen([sys.executable, "-c", BEGIN, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            others = f".{path.name}.partial-{process.pid}"
            write_atomically(path, b"one")
            assert tree(tmp_path) == {path.name: b"one", others: b"half", ".[a]x.yml.partial-1": b"of another file"}
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert (tmp_path / others).exists(), "nobody was left to remove it"
        finally:
            process.kill()
    write_atomically(path, b"two")
    assert tree(tmp_path) == {path.name: b"two", ".[a]x.yml.partial-1": b"of another file"}


def test_a_file_that_was_taken_for_a_killed_processs_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock another process removes it."""
    tries = 0

    def lock_later(descriptor: int) -> bool | None:
        nonlocal tries
        tries += 1
        if tries == 1:
            (tmp_path / f".a.partial-{os.getpid()}").unlink()
        return lock(descriptor)

    monkeypatch.setattr(files, "lock", lock_later)
    write_atomically(tmp_path / "a", b"one")
    assert tries > 1 and tree(tmp_path) == {"a": b"one"}


def test_where_there_are_no_locks_nothing_of_others_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".a.partial-1").write_text("whose?")
    (tmp_path / f".a.partial-{os.getpid()}").write_text("of one that had this number")
    monkeypatch.setattr(files, "lock", lambda descriptor: None)
    write_atomically(tmp_path / "a", b"one")
    assert tree(tmp_path) == {"a": b"one", ".a.partial-1": b"whose?"}


@pytest.mark.parametrize("interrupted", [None, 0, 1], ids=["whole", "before", "between"])
def test_two_files_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int | None) -> None:
    """Ctrl-C after the first has its name leaves the second with its own too."""
    names = [tmp_path / name for name in ("new_plan", "plan", "new_manifest", "manifest")]
    for path in names:
        path.write_text(path.name)
    real, calls = os.replace, iter(range(3))

    def replace(source: Path, target: Path) -> None:
        if next(calls) == interrupted:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    changed = (names[0], names[1]), (names[2], names[3])
    if interrupted is None:
        replace_both(*changed)
    else:
        with pytest.raises(KeyboardInterrupt):
            replace_both(*changed)
    done = interrupted != 0
    assert [path.read_text() for path in (names[1], names[3])] == (
        ["new_plan", "new_manifest"] if done else ["plan", "manifest"]
    )


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_a_digest_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("code", "advice", "error", "message"),
    [
        (errno.ENOSPC, AGAIN, ResourceError, "x: no space left on its disk (5 MiB). Free some space and run again."),
        (errno.EDQUOT, Advice(full="Clear up."), ResourceError, "x: no space left on its disk (5 MiB). Clear up."),
        (errno.EACCES, AGAIN, UserError, "x: cannot be written (Permission denied)."),
        (errno.EACCES, RUN, UserError, "x: cannot be written (Permission denied). Choose another output_dir."),
    ],
)
def test_what_a_failed_write_is_to_the_user(code: int, advice: Advice, error: type[UserError], message: str) -> None:
    refusal = disk_error(Path("x"), OSError(code, os.strerror(code)), advice, "5 MiB")
    assert type(refusal) is error and str(refusal) == message


def test_a_name_for_libraries_is_good_whatever_the_files_own(tmp_path: Path) -> None:
    for name in (b"plain", "ü中".encode(), b"\xff\xfe"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(name)
        with library_name(path) as given:
            assert Path(given).read_bytes() == name and given.encode()
    assert given.startswith("/proc/self/fd/") and not os.path.exists(given)
