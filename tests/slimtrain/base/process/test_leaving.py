"""A process that left a thread behind ends with its exit code all the same."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from slimtrain.base.process.leaving import end_without_them, leave_behind, left_behind


@pytest.mark.parametrize(("code", "status"), [("3", 3), ("None", 0), ("'words'", 1)])
def test_a_process_ends_without_the_thread(code: str, status: int) -> None:
    script = (
        "import threading\n"
        "from slimtrain.base.process.leaving import end_without_them, leave_behind\n"
        "thread = threading.Thread(target=threading.Event().wait)\n"  # no daemon: a usual end waits for it
        "thread.start()\n"
        "leave_behind(thread)\n"
        "print('said')\n"
        f"end_without_them({code})\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (status, "said\n"), ran.stderr


def test_where_none_is_left_nothing_happens() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    leave_behind(thread)
    thread.join()
    assert not left_behind()
    end_without_them(3)
