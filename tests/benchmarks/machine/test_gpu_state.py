"""GPUs read through a made-up NVML, nvidia-smi and Jetson; which of several is CUDA's; and that only questions are asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import gpu_state
from benchmarks.machine.gpu_choice import Listed, NoGpu, anonymous, choose, short_hash
from benchmarks.machine.gpu_jetson import JetsonReader
from benchmarks.machine.gpu_nvml import NvmlReader
from benchmarks.machine.gpu_reasons import reason_names, slowing
from benchmarks.machine.gpu_smi import SmiReader
from benchmarks.machine.gpu_state import describe_gpu, open_gpu
from tests.support.fake_machine import H200, NOT_SUPPORTED, SMI_VALUES, FakeSmi, NVMLError, fake_pynvml, jetson, lay, no_pynvml

MACHINE = Path(gpu_state.__file__).parent
TWO_ALIKE = [Listed(0, "GPU-aaaa-1", "A100"), Listed(1, "GPU-aabb-2", "A100")]
TWO_KINDS = [Listed(0, "GPU-aaaa-1", "T400"), Listed(1, "GPU-aabb-2", "A100")]


# --------------------------------------------------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("mask", "names", "slow"),
    [
        (0x0, [], []),
        (0x1, ["gpu_idle"], []),
        (0x2, ["applications_clocks_setting"], []),
        (0x4, ["sw_power_cap"], ["sw_power_cap"]),
        (0x8, ["hw_slowdown"], ["hw_slowdown"]),
        (0x10, ["sync_boost"], ["sync_boost"]),
        (0x20, ["sw_thermal_slowdown"], ["sw_thermal_slowdown"]),
        (0x40, ["hw_thermal_slowdown"], ["hw_thermal_slowdown"]),
        (0x80, ["hw_power_brake_slowdown"], ["hw_power_brake_slowdown"]),
        (0x100, ["display_clock_setting"], ["display_clock_setting"]),
        (0x25, ["gpu_idle", "sw_power_cap", "sw_thermal_slowdown"], ["sw_power_cap", "sw_thermal_slowdown"]),
        (0x8000_0001, ["gpu_idle", "unknown_0x80000000"], ["unknown_0x80000000"]),
    ],
)
def test_bits_are_named_and_harmless_ones_told_apart(mask: int, names: list[str], slow: list[str]) -> None:
    assert reason_names(mask) == names
    assert slowing(names) == slow


def test_reasons_that_slow_down_are_told_once() -> None:
    assert slowing(["sw_power_cap", "gpu_idle", "hw_slowdown", "sw_power_cap"]) == ["hw_slowdown", "sw_power_cap"]


# ---------------------------------------------------------------------------------------------------------- choice


@pytest.mark.parametrize(
    ("visible", "device", "index"),
    [
        (None, 0, 0),
        (None, 1, 1),
        ("1", 0, 1),
        (" 1 , 0", 0, 1),
        ("1,0", 1, 0),
        ("GPU-aabb-2", 0, 1),
        ("GPU-aab", 0, 1),
        ("GPU-aabb-2,0", 1, 0),
        ("MIG-GPU-aabb-2/1/0", 0, 1),
        ("0,-1,1", 0, 0),
    ],
)
def test_the_visible_gpus_are_counted_in_their_order(visible: str | None, device: int, index: int) -> None:
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert choose(TWO_ALIKE, device, variables) == (TWO_ALIKE[index], True)


@pytest.mark.parametrize("visible", ["", "-1", "2", "NoDevFiles", "GPU-aa", "GPU-cc", "-1,0", "MIG-123e4567-e89b"])
def test_no_gpu_is_left_where_the_first_entry_names_none_or_several(visible: str) -> None:
    with pytest.raises(NoGpu, match="CUDA_VISIBLE_DEVICES="):
        choose(TWO_ALIKE, 0, {"CUDA_VISIBLE_DEVICES": visible})


def test_the_list_ends_at_the_first_entry_that_is_none() -> None:
    with pytest.raises(NoGpu, match="CUDA has 1 of 2 GPUs"):
        choose(TWO_ALIKE, 1, {"CUDA_VISIBLE_DEVICES": "0,-1,1"})


def test_an_instance_of_the_only_gpu_is_on_it() -> None:
    assert choose(TWO_ALIKE[:1], 0, {"CUDA_VISIBLE_DEVICES": "MIG-123e4567-e89b"}) == (TWO_ALIKE[0], True)


@pytest.mark.parametrize(
    ("variables", "sure"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "1"}, False),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, False),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, True),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aabb-2"}, True),
    ],
)
def test_among_different_gpus_a_number_is_sure_only_in_the_order_of_the_bus(variables: dict[str, str], sure: bool) -> None:
    assert choose(TWO_KINDS, 0, variables)[1] is sure


def test_a_machine_without_gpus_says_so() -> None:
    with pytest.raises(NoGpu, match="no GPU"):
        choose([], 0, {})


def test_uuids_are_hashed() -> None:
    uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    assert anonymous(f"0,{uuid},MIG-{uuid}/1/0") == f"0,GPU-#{short_hash(uuid)},MIG-#{short_hash(f'MIG-{uuid}/1/0')}"
    assert anonymous("0,1") == "0,1"
    assert len(short_hash(uuid)) == 12 and short_hash(uuid) not in uuid


# ------------------------------------------------------------------------------------------------------------ NVML


def test_nvml_tells_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [H200], SystemGetDriverVersion="575.57.08", SystemGetCudaDriverVersion=12090)
    reader = NvmlReader(0, {})
    assert reader.facts() == {
        "name": "NVIDIA H200",
        "uuid_sha256": short_hash(str(H200["GetUUID"])),
        "index": 0,
        "sure": True,
        "driver": "575.57.08",
        "cuda_driver": "12.9",
        "compute_capability": "9.0",
        "memory_mib": 143771,
        "compute_mode": "default",
        "persistence": True,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 3201,
        "application_sm_clock_mhz": 1980,
        "application_memory_clock_mhz": 3201,
        "ecc": True,
        "mig": False,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
    }
    assert reader.state() == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 3201,
        "power_w": 412.345,
        "temperature_c": 61,
        "reasons": ["sw_power_cap"],
        "utilization_percent": 97,
        "pstate": "P0",
    }
    assert reader.other_processes() == 1


def test_what_nvml_cannot_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [dict.fromkeys(H200, NOT_SUPPORTED)], SystemGetDriverVersion=NOT_SUPPORTED)
    reader = NvmlReader(0, {})
    kept = {"name": "GPU", "index": 0, "sure": True}
    assert {key: value for key, value in reader.facts().items() if value is not None} == kept
    assert set(reader.state().values()) == {None}
    assert reader.other_processes() is None


def test_old_drivers_call_reasons_otherwise_and_old_modules_give_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    old: dict[str, Any] = {**H200, "GetName": b"Tesla T4", "GetCurrentClocksThrottleReasons": 0x28}
    del old["GetCurrentClocksEventReasons"], old["GetMigMode"]
    fake_pynvml(monkeypatch, [old], SystemGetDriverVersion=b"450.80.02")
    reader = NvmlReader(0, {})
    assert reader.state()["reasons"] == ["hw_slowdown", "sw_thermal_slowdown"]
    facts = reader.facts()
    assert (facts["name"], facts["driver"], facts["mig"], facts["cuda_driver"]) == ("Tesla T4", "450.80.02", None, None)


def test_an_unknown_performance_state_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [{**H200, "GetPerformanceState": 32, "GetCurrentClocksEventReasons": 0}])
    state = NvmlReader(0, {}).state()
    assert (state["pstate"], state["reasons"]) == (None, [])


def test_nvml_reads_the_gpu_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    second = {**H200, "GetUUID": "GPU-22", "GetClockInfo": {1: 345, 2: 405}}
    fake_pynvml(monkeypatch, [H200, second])
    reader = NvmlReader(0, {"CUDA_VISIBLE_DEVICES": "GPU-22"})
    assert (reader.facts()["index"], reader.state()["sm_clock_mhz"]) == (1, 345)
    assert NvmlReader(1, {}).state()["sm_clock_mhz"] == 345


def test_nvml_without_a_driver_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [], Init=NVMLError("NVML Shared Library Not Found"))
    with pytest.raises(NoGpu, match="NVML Shared Library Not Found"):
        NvmlReader(0, {})


def test_nvml_that_cannot_list_its_gpus_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])

    def lost() -> int:
        raise NVMLError("GPU is lost")

    monkeypatch.setattr("pynvml.nvmlDeviceGetCount", lost)
    with pytest.raises(NoGpu, match="GPU is lost"):
        NvmlReader(0, {})
    assert calls[-1] == "nvmlShutdown"


def test_nvml_is_let_go_of_where_no_gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])
    with pytest.raises(NoGpu, match="0 of 1"):
        NvmlReader(0, {"CUDA_VISIBLE_DEVICES": ""})
    assert calls[-1] == "nvmlShutdown"


# ------------------------------------------------------------------------------------------------------ nvidia-smi


def test_nvidia_smi_tells_all() -> None:
    smi = FakeSmi()
    reader = SmiReader(0, {}, smi)
    assert reader.facts() == {
        "name": "NVIDIA GeForce RTX 4090",
        "uuid_sha256": short_hash(smi.uuid(0)),
        "index": 0,
        "sure": True,
        "driver": "535.183.01",
        "compute_capability": "8.9",
        "compute_mode": "exclusive process",
        "memory_mib": 24564,
        "power_limit_w": 450,
        "max_sm_clock_mhz": 3105,
        "max_memory_clock_mhz": 10501,
        "application_sm_clock_mhz": None,
        "application_memory_clock_mhz": None,
        "pcie_generation": 1,
        "pcie_generation_max": 4,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "persistence": False,
        "ecc": None,
        "mig": None,
    }
    assert reader.state() == {
        "sm_clock_mhz": 2520,
        "memory_clock_mhz": 10251,
        "power_w": 318.42,
        "temperature_c": 71,
        "utilization_percent": 99,
        "reasons": ["sw_power_cap", "sw_thermal_slowdown"],
        "pstate": "P2",
    }
    assert reader.other_processes() == 1


@pytest.mark.parametrize("known", ["clocks_event_reasons.active", "clocks_throttle_reasons.active"])
def test_fields_that_an_nvidia_smi_does_not_know_are_left_out_and_not_asked_again(known: str) -> None:
    reasons = {"clocks_event_reasons.active", "clocks_throttle_reasons.active"}
    smi = FakeSmi(unknown=[*(reasons - {known}), "utilization.gpu", "compute_cap"])
    reader = SmiReader(0, {}, smi)
    state = reader.state()
    assert state["reasons"] == ["sw_power_cap", "sw_thermal_slowdown"]
    assert (state["utilization_percent"], state["sm_clock_mhz"], state["pstate"]) == (None, 2520, "P2")
    assert (reader.facts()["compute_capability"], reader.facts()["driver"]) == (None, "535.183.01")
    asked = len(smi.calls)
    assert reader.state() == state
    assert len(smi.calls) == asked + 1


@pytest.mark.parametrize(
    "value", ["[N/A]", "N/A", "[Not Supported]", "Not Supported", "[Unknown Error]", "", "[GPU is lost]", "nan"]
)
def test_what_nvidia_smi_cannot_tell_is_none(value: str) -> None:
    reader = SmiReader(0, {}, FakeSmi(values=dict.fromkeys(SMI_VALUES, value)))
    found = {**reader.facts(), **reader.state()}
    told = {"name", "uuid_sha256", "index", "sure"} | (
        {"driver", "compute_capability", "compute_mode", "pstate"} if value == "nan" else set()
    )
    assert {key for key, each in found.items() if each is not None} == told


def test_a_refusal_of_every_field_ends() -> None:
    reader = SmiReader(0, {}, FakeSmi(unknown=list(SMI_VALUES)))
    assert set(reader.state().values()) == {None}


def test_nvidia_smi_reads_the_gpu_that_cuda_uses() -> None:
    smi = FakeSmi(gpus=("A", "A", "A"))
    assert SmiReader(0, {"CUDA_VISIBLE_DEVICES": smi.uuid(2)[:6]}, smi).facts()["index"] == 2
    assert "--id=2" in smi.calls[-1]


def test_in_windows_subsystem_for_linux_it_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    reader = SmiReader(0, {}, FakeSmi(program="/usr/lib/wsl/lib/nvidia-smi"))
    assert reader.state()["sm_clock_mhz"] == 2520


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (None, "not installed"),
        ((9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"), "couldn't communicate"),
        ((0, "No devices were found\n"), "No devices were found"),
        ((6, ""), "exit status 6"),
    ],
)
def test_nvidia_smi_that_does_not_work_says_why(answer: tuple[int, str] | None, match: str) -> None:
    with pytest.raises(NoGpu, match=match):
        SmiReader(0, {}, lambda words: answer)


def test_a_program_that_breaks_down_later_tells_nothing() -> None:
    smi = FakeSmi()
    reader = SmiReader(0, {}, smi)
    for answer in (None, (15, ""), (0, ""), (0, "1, 2\n")):
        reader._run = lambda words, answer=answer: answer  # type: ignore[misc]
        assert set(reader.state().values()) == {None}
    reader._run = lambda words: None
    assert reader.other_processes() is None


# ---------------------------------------------------------------------------------------------------------- Jetson


def test_a_jetson_is_read_from_its_files(tmp_path: Path) -> None:
    answer = "NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W\n2\n"
    reader = JetsonReader(0, {}, jetson(tmp_path), lambda words: (0, answer) if words == ["nvpmodel", "-q"] else None)
    assert reader.facts() == {
        "name": "NVIDIA Jetson AGX Orin Developer Kit",
        "index": 0,
        "sure": True,
        "driver": "L4T 35.4.1",
        "min_sm_clock_mhz": 306.0,
        "max_sm_clock_mhz": 1300.5,
        "governor": "nvhost_podgov",
        "clocks_locked": False,
        "power_mode": "MODE_30W",
    }
    assert reader.state() == {"sm_clock_mhz": 918.0, "temperature_c": 49.0}


def test_locked_clocks_of_a_jetson_show(tmp_path: Path) -> None:
    lay(jetson(tmp_path), {"sys/class/devfreq/17000000.ga10b/min_freq": "1300500000"})
    facts = JetsonReader(0, {}, tmp_path, lambda words: None).facts()
    assert (facts["clocks_locked"], facts["power_mode"]) == (True, None)


def test_other_boards_are_no_jetson(tmp_path: Path) -> None:
    lay(
        tmp_path, {"proc/device-tree/compatible": "rockchip,rk3588\0", "sys/class/devfreq/fb000000.gpu/cur_freq": "1000000000"}
    )
    with pytest.raises(NoGpu, match="not a Jetson"):
        JetsonReader(0, {}, tmp_path)


def test_a_jetson_can_hide_its_gpu(tmp_path: Path) -> None:
    with pytest.raises(NoGpu, match="CUDA_VISIBLE_DEVICES"):
        JetsonReader(0, {"CUDA_VISIBLE_DEVICES": "-1"}, jetson(tmp_path))


# ------------------------------------------------------------------------------------------------ whichever is there


@pytest.fixture
def no_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.plain_files.shutil.which", lambda name: None)


@pytest.mark.usefixtures("no_smi")
def test_without_any_way_the_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pynvml(monkeypatch)
    found, reason = describe_gpu(root=tmp_path, variables={})
    assert found is None
    assert reason == "nvidia-ml-py is not installed; not a Jetson; nvidia-smi is not installed, or does not answer"


@pytest.mark.usefixtures("no_smi")
def test_nvml_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])
    found, reason = describe_gpu(root=jetson(tmp_path), variables={})
    assert found is not None and reason is None
    assert (found["source"], found["name"], found["state"]["sm_clock_mhz"], found["other_processes"]) == (
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
    found, _ = describe_gpu(root=tmp_path, variables={})
    assert found is not None and found["source"] == "nvidia-smi"


# --------------------------------------------------------------------------------------------- only questions are asked


def sources() -> dict[str, str]:
    """All but what sets this process's own threads."""
    return {path.name: path.read_text(encoding="utf-8") for path in MACHINE.glob("*.py") if path.name != "threads.py"}


def test_no_source_calls_what_changes_a_setting() -> None:
    texts = sources()
    assert len(texts) >= 12
    allowed = re.compile(r"nvml(Init|Shutdown|DeviceGet\w+|SystemGet\w+|Clocks\w+Reasons)$")
    asked = {word for text in texts.values() for word in re.findall(r"\bnvml[A-Z]\w*", text)}
    assert len(asked) > 15
    assert [word for word in sorted(asked) if not allowed.match(word)] == []
    setters = re.compile(r"write_text|write_bytes|\bopen\(|sched_setaffinity|setpriority|os\.nice|sudo|jetson_clocks\"")
    assert [name for name, text in texts.items() if setters.search(text)] == []


def test_nvidia_smi_and_nvpmodel_are_only_asked(tmp_path: Path) -> None:
    smi, asked = FakeSmi(), list[Any]()
    reader = SmiReader(0, {}, smi)
    reader.facts(), reader.state(), reader.other_processes()
    options = {word.partition("=")[0] for words in smi.calls for word in words[1:]}
    assert options == {"--id", "--query-gpu", "--query-compute-apps", "--format"}
    JetsonReader(0, {}, jetson(tmp_path), asked.append).facts()
    assert asked == [["nvpmodel", "-q"]]
