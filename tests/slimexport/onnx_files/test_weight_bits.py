"""Which CPUs saturate with weights of 8 bits, from files of made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimexport.onnx_files import weight_bits as module
from slimexport.onnx_files.weight_bits import saturates, weight_bits
from slimtrain.base.errors import UserError


def machine(root: Path, flags: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\nbugs\t\t: avx512_vnni\n")
    return root


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse4_2 avx2", True),
        ("fpu avx2 avx512f avx512bw", True),
        ("fpu avx2 avx_vnni", False),
        ("fpu avx512f avx512_vnni", False),
        ("fpu avx2 avx_vnni_int8", False),
        ("", True),
    ],
)
def test_x86_saturates_without_vnni(flags: str, expected: bool, tmp_path: Path) -> None:
    assert saturates("x86_64", machine(tmp_path, flags)) is expected
    assert saturates("AMD64", tmp_path) is expected
    assert saturates("aarch64", tmp_path) is False


def test_an_x86_that_does_not_tell_is_taken_to_saturate(tmp_path: Path) -> None:
    assert saturates("x86_64", tmp_path) is True
    assert saturates("arm64", tmp_path) is False


@pytest.mark.parametrize(("saturating", "bits"), [(True, 7), (False, 8)])
def test_auto_follows_the_cpu_and_what_is_asked_for_does_not(
    saturating: bool, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "saturates", lambda: saturating)
    assert (weight_bits("auto"), weight_bits("8"), weight_bits("7")) == (bits, 8, 7)


@pytest.mark.parametrize("asked", ["6", "", "eight"])
def test_other_bits_are_refused(asked: str) -> None:
    with pytest.raises(UserError, match="expected auto, 8 or 7"):
        weight_bits(asked)
