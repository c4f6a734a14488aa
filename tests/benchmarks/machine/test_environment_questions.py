"""Looking at a machine changes nothing of it: while all of it is looked at, every call into NVML, every program and every file
that is opened is recorded, on machines of each kind."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.machine.environment import environment
from benchmarks.machine.gpu_state import open_gpu
from benchmarks.machine.notes import describe, notes
from benchmarks.machine.sampler import StateSampler
from tests.support.fake_machine import H200, NVMLError, fake_pynvml, jetson, no_pynvml

QUESTIONS = re.compile(r"nvml(Init|Shutdown|DeviceGet\w+|SystemGet\w+)$|NVML\w+$|__\w+__$")
SETTERS = ("sched_setaffinity", "sched_setscheduler", "setpriority", "nice", "setrlimit")
PROGRAM = """#!/bin/sh
case "$*" in
  *index,uuid,name*) echo "0, GPU-1, A GPU" ;;
  -q) echo "NV Power Mode: MODE_30W" ;;
esac
"""


class Recorder:
    """What Python does meanwhile, by its audit events: programs that are started, and files that are opened for writing."""

    def __init__(self) -> None:
        self.on = False
        self.programs: list[list[str]] = []
        self.written: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "subprocess.Popen":
            self.programs.append([Path(arguments[0]).name, *map(str, arguments[1][1:])])
        elif event in ("os.system", "os.exec", "os.posix_spawn"):
            self.programs.append([event, str(arguments[0])])
        elif event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            passing = isinstance(path, int) or path == os.devnull or "__pycache__" in str(path)
            if writes and not passing:
                self.written.append(str(path))
        elif event in ("os.rename", "os.remove", "os.chmod", "os.truncate", "os.mkdir", "os.link", "os.symlink"):
            self.written.append(f"{event} {arguments[0]}")


RECORDER = Recorder()  # a hook stays for as long as the process does


class AskedModule(ModuleType):
    """A module whose every name that is asked for is kept in `asked`; a function that it lacks fails as NVML's do."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(real=real, asked=set())

    def __getattribute__(self, name: str) -> Any:
        own = super().__getattribute__("__dict__")
        if name in ("__dict__", "asked", "__class__"):
            return own if name == "__dict__" else own.get(name, AskedModule)
        own["asked"].add(name)
        return getattr(own["real"], name)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recorder]:
    """Records while a test looks at machines on which nvidia-smi and nvpmodel are installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nvidia-smi", "nvpmodel"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("benchmarks.machine.environment.LOOK_S", 0.0)
    for name in SETTERS:
        monkeypatch.setattr(os, name, partial(pytest.fail, f"os.{name} was called"), raising=False)
    RECORDER.programs, RECORDER.written = [], []
    yield RECORDER
    RECORDER.on = False


def look_at_everything(root: Path, recorder: Recorder) -> dict[str, Any]:
    """The environment, and rounds on the CPU and on the GPU; what was found."""
    opener: Callable[[int], Any] = partial(open_gpu, root=root, variables={})
    recorder.on = True
    before = environment(root)
    for device in ("cpu", "cuda"):
        sampler = StateSampler(device, root, opener, period_s=0.001)
        sampler.start()
        while sampler._watch is not None and not sampler._watch._looks:
            pass
        sampler.stop()
        sampler.close()
    describe(before), notes(before, environment(root))
    recorder.on = False
    return before


def check(recorder: Recorder) -> set[str]:
    """Nothing was written, and programs were asked and no more; their names."""
    assert recorder.written == []
    for name, *words in recorder.programs:
        if name == "nvidia-smi":
            assert {word.partition("=")[0] for word in words} <= {"--id", "--query-gpu", "--query-compute-apps", "--format"}
        elif name == "nvpmodel":
            assert words == ["-q"]
        elif name == "uname":  # by Python's `platform`
            assert words == ["-p"]
        else:
            assert name == "git" and words[0] == "--no-optional-locks" and "describe" in words
    return {name for name, *_ in recorder.programs}


@pytest.mark.parametrize("driver", ["new", "old"])
def test_a_machine_with_nvml(driver: str, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = dict(H200)
    if driver == "old":  # what it is asked in place of a question that it does not know
        gpu |= {"GetCurrentClocksEventReasons": NVMLError("not found"), "GetCurrentClocksThrottleReasons": 4}
    fake_pynvml(monkeypatch, [gpu], SystemGetDriverVersion="575.57.08", SystemGetCudaDriverVersion=12090)
    module = AskedModule(sys.modules["pynvml"])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    machine = look_at_everything(tmp_path, recorder)
    assert machine["gpu"]["source"] == "nvml" and machine["gpu"]["state"]["reasons"] == ["sw_power_cap"]
    asked = {name for name in module.asked if name.startswith("nvml")}
    assert len(asked) > 15 and [name for name in module.asked if not QUESTIONS.match(name)] == []
    assert "nvidia-smi" not in check(recorder)


def test_a_jetson(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pynvml(monkeypatch)
    machine = look_at_everything(jetson(tmp_path), recorder)
    assert (machine["gpu"]["source"], machine["gpu"]["power_mode"]) == ("jetson", "MODE_30W")
    assert "nvpmodel" in check(recorder)


def test_a_machine_with_nvidia_smi_alone(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pynvml(monkeypatch)
    assert look_at_everything(tmp_path, recorder)["gpu"]["source"] == "nvidia-smi"
    assert "nvidia-smi" in check(recorder)
    assert any("--query-compute-apps=pid" in words for words in recorder.programs)


def test_this_machine(recorder: Recorder) -> None:
    look_at_everything(Path("/"), recorder)
    check(recorder)


def test_what_is_written_or_started_would_be_seen(recorder: Recorder, tmp_path: Path) -> None:
    recorder.on = True
    (tmp_path / "setting").write_text("1")
    (tmp_path / "setting").unlink()
    os.system("true")
    recorder.on = False
    assert recorder.written == [str(tmp_path / "setting"), f"os.remove {tmp_path / 'setting'}"]
    assert recorder.programs == [["os.system", "b'true'"]]
