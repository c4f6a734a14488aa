"""The GPU by whichever way a machine offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine import gpu_state
from benchmarks.machine.gpu_smi import SmiReader
from benchmarks.machine.gpu_state import describe_gpu, open_gpu
from tests.support.fake_machine import H200, NOT_SUPPORTED, FakeSmi, fake_pynvml, jetson, no_pynvml


@pytest.fixture
def no_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.plain_files.shutil.which", lambda name: None)


@pytest.mark.usefixtures("no_smi")
def test_without_any_way_the_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pynvml(monkeypatch)
    gpu, reason = describe_gpu(root=tmp_path, variables={})
    assert gpu is None
    assert reason == "nvidia-ml-py is not installed; not a Jetson; nvidia-smi is not installed, or does not answer"


@pytest.mark.usefixtures("no_smi")
def test_nvml_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])
    gpu, reason = describe_gpu(root=jetson(tmp_path), variables={})
    assert gpu is not None and reason is None
    assert (gpu["source"], gpu["name"], gpu["state"]["sm_clock_mhz"], gpu["other_processes"]) == (
        "nvml",
        "NVIDIA H200",
        1755,
        1,
    )
    assert calls[-1] == "nvmlShutdown"


@pytest.mark.usefixtures("no_smi")
def test_nvml_that_cannot_tell_the_clock_gives_way_to_a_jetsons_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an Orin."""
    calls = fake_pynvml(monkeypatch, [{**H200, "GetClockInfo": NOT_SUPPORTED}])
    reader = open_gpu(0, jetson(tmp_path), {})
    assert (reader.source, reader.state()["sm_clock_mhz"]) == ("jetson", 918.0)
    assert calls[-1] == "nvmlShutdown"


@pytest.mark.usefixtures("no_smi")
def test_a_reader_that_cannot_tell_the_clock_is_better_than_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for an instance of a GPU, or a virtual GPU."""
    fake_pynvml(monkeypatch, [{**H200, "GetClockInfo": NOT_SUPPORTED}])
    assert open_gpu(0, tmp_path, {}).facts()["name"] == "NVIDIA H200"


def test_nvidia_smi_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pynvml(monkeypatch)
    monkeypatch.setattr(gpu_state, "SmiReader", lambda device, seen: SmiReader(device, seen, FakeSmi()))
    gpu, _ = describe_gpu(root=tmp_path, variables={})
    assert gpu is not None and gpu["source"] == "nvidia-smi"
