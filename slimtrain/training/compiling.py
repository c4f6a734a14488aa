"""torch.compile for networks that change their width.

Every plan is a graph of its own, so compiling whatever is drawn would go on for the whole run, and torch gives up after
a few. Here the plans that come back are compiled, each once: the switches of an S or AutoSlim network, the two ends of
a US network's range (half of the default sandwich, and its most expensive part), and, where `width_step` makes the drawn
widths finitely many, these too. Any other plan runs eagerly. The number of compilations is thus known beforehand.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import ResourceError
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork

Forward = Callable[[Tensor], Tensor]
MOST_PLANS = 64
SYNCHRONIZES = (2, 14)  # the first torch that was seen to compile collectives in norms rightly


def check_compiling(synchronized: bool) -> None:
    """ResourceError where this torch compiles norms over several processes to wrong gradients: 2.11 does, 2.14 does not."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if synchronized and version < SYNCHRONIZES:
        raise ResourceError(
            f"compile with sync_norm on several processes: torch {torch.__version__} computes wrong gradients there, 2.14 and "
            "later are right. Set one of them to false, or update torch."
        )


def check_compiler(device: torch.device) -> None:
    """ResourceError where torch.compile lacks what it builds its kernels with: a C++ compiler on the CPU, Triton and a C
    compiler on a GPU, and Python's headers."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ResourceError(
                "--compile: needs Triton on a GPU, which is not installed: pip install triton, or leave it off."
            )
        commands, language, package, variable = [os.environ.get("CC", ""), "gcc", "clang", "cc"], "C", "gcc", "CC"
    else:  # as torch's inductor looks for one
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        commands, language, package, variable = [os.environ.get("CXX", usual)], "C++", "g++", "CXX"
    if not any(_runs(command) for command in commands):
        raise ResourceError(
            f"--compile: needs a {language} compiler, and {' or '.join(filter(None, commands))} cannot be run here. Install "
            f"one (apt-get install {package}), or name another in {variable}, or leave --compile off."
        )
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.exists():
        raise ResourceError(
            f"--compile: needs Python's headers, and {headers} is not there. Install them (apt-get install python3-dev), or "
            "leave --compile off."
        )


def _runs(command: str) -> bool:
    """Whether a command, perhaps of several words, as `ccache g++`, is found."""
    words = shlex.split(command)
    return bool(words) and all(shutil.which(word) for word in words if not word.startswith("-"))


class CompiledForward:
    """Runs `network` at its active plan, compiled for the plans of `plans` (at most 64, the first ones).

    `compiled` holds the plans that have been compiled so far; `backend` is torch.compile's.
    """

    def __init__(
        self, network: SlimmableNetwork, plans: Sequence[ChannelPlan], backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        import torch._dynamo

        self.network = network
        self.plans = frozenset(list(dict.fromkeys(plans))[:MOST_PLANS])
        self.compiled: set[ChannelPlan] = set()
        # One cache holds all plans' graphs. Each may need four: the parts of a batch have two sizes where it cannot be
        # divided evenly, and those of an epoch's last, short batch two others.
        config, graphs = torch._dynamo.config, 4 * len(self.plans) + 2
        config.recompile_limit = max(config.recompile_limit, graphs)
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, graphs)
        self.run = torch.compile(network, dynamic=False, backend=backend)

    def __call__(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes]."""
        plan = self.network.active
        if plan not in self.plans:
            return self.network(images)
        self.compiled.add(plan)
        logits: Tensor = self.run(images)
        return logits
