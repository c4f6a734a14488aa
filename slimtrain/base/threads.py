"""How the threads of torch on the CPU wait for each other. Standard library only.

GNU OpenMP, which torch brings, lets threads that wait spin without end where as many are there as cores, so that beside one
busy process a step of training takes many times as long. How long they spin is read from the environment once, when torch is
imported: it is set when this file is, which `slimtrain/__init__.py` does, whichever way the package is used.
"""

from __future__ import annotations

import os
import sys

# Measured on two cores, a step of the quick start: spinning without end 0.21 s, 5.4 s beside one busy process; never spinning
# 0.40 s and 0.57 s; with this count 0.23 s and 0.65 s.
SPINS = {"GOMP_SPINCOUNT": "5000"}
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by whoever sets one of them


def bound_spinning() -> bool:
    """Bound how long waiting threads spin, unless the user chose it; whether that comes too late, torch being there already.
    Processes that are started from here have it in either case."""
    if any(key in os.environ for key in CHOSEN):
        return False
    os.environ.update(SPINS)
    return "torch" in sys.modules


LATE = bound_spinning()


def advice() -> str:
    """What a run on the CPU says where torch was imported before its threads could be told; nothing otherwise."""
    if not LATE:
        return ""
    key, value = next(iter(SPINS.items()))
    return (
        "torch was imported before slimtrain, so its threads spin while they wait for each other: on a busy machine training "
        f"is several times slower. Import slimtrain first, or set {key}={value} in the environment."
    )
