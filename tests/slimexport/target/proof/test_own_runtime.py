"""The library and the processor are told apart from others, and nothing is told where the system does not say."""

from pathlib import Path

import onnxruntime
import pytest

from slimexport.target.backends import BACKENDS, CPU
from slimexport.target.proof.own_runtime import own_runtime

LINES = "processor\t: {number}\nmodel name\t: {name}\nflags\t\t: fpu avx2 {flag}\ncpu MHz\t\t: {mhz}\n\n"


def _system(folder: Path, name: str = "Some CPU", flag: str = "avx512_vnni", mhz: int = 2000) -> Path:
    (folder / "proc").mkdir(exist_ok=True)
    cores = [LINES.format(number=number, name=name, flag=flag, mhz=mhz + number) for number in range(2)]
    (folder / "proc/cpuinfo").write_text("".join(cores))
    return folder


def test_the_same_processor_is_the_same_at_any_clock_and_others_are_not(tmp_path: Path) -> None:
    here = own_runtime(CPU, _system(tmp_path))
    assert here is not None and f"onnxruntime {onnxruntime.__version__}" in here and "Some CPU" in here
    assert own_runtime(CPU, _system(tmp_path, mhz=3000)) == here
    assert own_runtime(CPU, _system(tmp_path, flag="amx")) != here
    assert own_runtime(CPU, _system(tmp_path, name="Another CPU")) != here


def test_what_does_not_tell_its_processor_is_not_the_same_as_anything(tmp_path: Path) -> None:
    assert own_runtime(CPU, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\n")
    assert own_runtime(CPU, tmp_path) is None


@pytest.mark.parametrize("backend", [*(name for name in BACKENDS if name != CPU), "onnxruntime-cpu (cast twin)"])
def test_only_the_file_itself_on_a_cpu_is_told(backend: str, tmp_path: Path) -> None:
    assert own_runtime(backend, _system(tmp_path)) is None
