"""What `import slimtrain` offers: the public names, loaded when they are asked for, each with an example that runs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import slimtrain
from tests.support import ROOT
from tests.support.doc_examples import run_examples

NAMES = [name for name in slimtrain.__all__ if name != "__version__"]
PROMISED = {
    *(
        "train",
        "search",
        "read_config",
        "Config",
        "open_checkpoint",
        "save",
        "calibrate",
        "evaluate",
        "SlimmableNetwork",
        "make_slimmable",
    ),
    *("NetworkSpec", "ChannelPlan", "published_spec", "UserError"),
}


def test_all_that_was_promised_is_offered() -> None:
    assert set(NAMES) == PROMISED
    assert set(slimtrain.__all__) <= set(dir(slimtrain))


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_examples(inspect.getdoc(getattr(slimtrain, name)) or "", name) >= 2


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = slimtrain.serach


def test_importing_loads_nothing_heavy_and_asking_for_plain_values_neither() -> None:
    code = (
        "import sys, slimtrain\n"
        "slimtrain.Config, slimtrain.NetworkSpec, slimtrain.ChannelPlan, slimtrain.published_spec, slimtrain.UserError\n"
        "assert slimtrain.read_config('digits').network == 'us_mobilenet_v1'\n"
        "print([name for name in ('torch', 'torchvision', 'onnx', 'onnxruntime', 'safetensors') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


def test_the_search_can_be_called_whatever_was_imported_before() -> None:
    code = (
        "import slimtrain\nassert callable(slimtrain.search)\n"
        "import slimtrain.search.slimming\nassert callable(slimtrain.search)\n"
        "from slimtrain import search\nassert search is slimtrain.search\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_plans_and_costs_are_made_without_torch() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'onnx', 'onnxruntime', 'safetensors')))\n"
        "from slimtrain import published_spec\n"
        "from slimtrain.costs.cost import CostCounter\n"
        "from slimtrain.data.noise import noise_images\n"
        "spec = published_spec('us_mobilenet_v1')\n"
        "print(spec.plan(0.5).name, CostCounter(spec, 224)(spec.plan(0.5)).macs, noise_images(1, 32).shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "x0_5 149497088 (1, 3, 32, 32)\n", ran.stderr
