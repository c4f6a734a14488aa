"""How many bits int8 weights may use on the machine that is to run them."""

from __future__ import annotations

import platform
from pathlib import Path

from slimtrain.base.errors import UserError

AUTO = "auto"
BITS = {"8": 8, "7": 7}  # as they are asked for
X86 = ("x86_64", "amd64", "i386", "i686")
VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8")  # flags of /proc/cpuinfo


def saturates(machine: str = "", root: Path = Path("/")) -> bool:
    """Whether this machine's CPU adds products of 8 bits in pairs of 16 bits, where they saturate: x86 without VNNI. An x86
    CPU that does not tell is taken for one."""
    if (machine or platform.machine()).lower() not in X86:
        return False
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return True
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not any(flag in flags for flag in VNNI)


def check_bits(asked: str) -> None:
    """UserError for anything but `8`, `7` and `auto`."""
    if asked not in (AUTO, *BITS):
        raise UserError(f"int8 weight bits {asked!r}: expected {AUTO}, {' or '.join(BITS)}.")


def weight_bits(asked: str) -> int:
    """`8`, `7`, or `auto`: 7 where this machine's CPU saturates with 8. UserError for anything else."""
    check_bits(asked)
    if asked == AUTO:
        return 7 if saturates() else 8
    return BITS[asked]
