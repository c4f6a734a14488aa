"""`import slimtrain` and its plain modules work where torch cannot be imported; what needs torch says so by failing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

PLAIN = (
    *(
        "slimtrain",
        "slimtrain.models.channels",
        "slimtrain.models.registry",
        "slimtrain.models.spec",
        "slimtrain.models",
        "slimtrain.data.noise",
    ),
    *(
        "slimtrain.base.errors",
        "slimtrain.costs.cost",
        "slimtrain.data.images",
        "slimtrain.config.published_config",
        "slimtrain.config.config",
    ),
    *(
        "slimtrain.search.from_plans",
        "slimtrain.search.request",
        "slimtrain.search.supernet",
        "slimtrain.models.plan_file",
        "slimtrain.search.slimming",
        "slimtrain.search.greedy",
    ),
    *("slimtrain.costs.cost_model", "slimtrain.search.trace", "slimtrain.cli"),
)
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "safetensors")


def run(code: str) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"  # None there makes an import fail
    command = [sys.executable, "-c", blocked + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("module", PLAIN)
def test_a_plain_module_imports_without_torch(module: str) -> None:
    done = run(f"import {module}")
    assert done.returncode == 0, done.stderr


def test_plans_and_costs_are_made_without_torch() -> None:
    done = run(
        "from slimtrain.models.published import published_spec\n"
        "from slimtrain.costs.cost import CostCounter\n"
        "from slimtrain.data.noise import noise_images\n"
        "spec = published_spec('us_mobilenet_v1')\n"
        "print(spec.plan(0.5).name, CostCounter(spec, 224)(spec.plan(0.5)).macs, noise_images(1, 32).shape)"
    )
    assert done.stdout.split(" ", 2) == ["x0_5", "149497088", "(1, 3, 32, 32)\n"], done.stderr


@pytest.mark.parametrize(
    "module", ["slimtrain.slimmable.layers", "slimtrain.checkpoints.reading", "slimtrain.checkpoints.checkpoint"]
)
def test_the_barrier_of_these_tests_bites(module: str) -> None:
    done = run(f"import {module}")
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr and "torch" in done.stderr


def test_slimtrain_imports_nothing_of_slimexport_or_benchmarks() -> None:
    done = run(
        "import sys, pkgutil, importlib, slimtrain\n"
        "sys.modules.update(dict.fromkeys(('slimexport', 'benchmarks')))\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxruntime', 'safetensors'): del sys.modules[name]\n"
        "for module in pkgutil.walk_packages(slimtrain.__path__, 'slimtrain.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
    )
    assert done.returncode == 0, done.stderr
