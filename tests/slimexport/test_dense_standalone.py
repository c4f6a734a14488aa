"""A dense network saved with `torch.save` loads and computes the same where this project is not installed."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from slimexport.dense import materialize
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import python

LOAD = """
import torch
from pathlib import Path
for name in sys.argv[2:]:
    kept = torch.load(Path(sys.argv[1]) / name, weights_only=False)
    with torch.inference_mode():
        outputs = kept["network"](kept["images"])
    assert torch.allclose(outputs, kept["outputs"], rtol=1e-5, atol=1e-5), name
    assert not any(m.split(".")[0] in ("slimtrain", "slimexport") for m in sys.modules if sys.modules[m] is not None)
    print(name, sum(p.numel() for p in kept["network"].parameters()))
"""
KINDS = (
    ("s_mobilenet_v1", 0.25, True),
    ("s_mobilenet_v2", 0.35, False),
    ("s_shufflenet", 0.5, True),
    ("autoslim_mnasnet", 1, True),
    ("s_resnet50", 0.25, True),
)


def test_saved_networks_run_without_this_project(tmp_path: Path) -> None:
    images = torch.from_numpy(noise_images(2, 32))
    expected = []
    for name, width, fold in KINDS:
        network = materialize(f"random:{name}", width, fold=fold)
        with torch.inference_mode():
            outputs = network(images)
        torch.save({"network": network, "images": images, "outputs": outputs}, tmp_path / name)
        params = sum(p.numel() for p in network.parameters())
        expected.append(f"{name} {params}")
        assert (tmp_path / name).stat().st_size <= 4 * params + 1_000_000, "the file drags more than the weights along"
    done = python(LOAD, tmp_path, *(name for name, *_ in KINDS), without=("slimtrain", "slimexport"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


def test_a_dense_network_can_be_copied_and_trained() -> None:
    """It is an ordinary module: a copy gives the same, and gradients reach every weight."""
    network = materialize("random:s_shufflenet", 0.5, fold=False)
    images = torch.from_numpy(noise_images(2, 64))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(images), network(images))
    network.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
