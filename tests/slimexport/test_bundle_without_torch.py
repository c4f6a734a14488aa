"""What a target does with a bundle, in a process that has numpy, click and onnxruntime only."""

from __future__ import annotations

from pathlib import Path

from tests.support.export_helpers import python, run, write_checkpoint

# What a board lacks that had `pip install --no-deps .` and then numpy, click and onnxruntime
HEAVY = ("torch", "torchvision", "onnx", "yaml", "tqdm", "safetensors", "PIL", "scipy")


def test_a_bundle_is_verified_end_to_end_without_torch_and_onnx(tmp_path: Path) -> None:
    """By the library and by the command; and a file is run."""
    checkpoint = write_checkpoint(tmp_path / "x.pt")
    assert run("--ckpt", checkpoint, "--image-size", "64", "--output-dir", tmp_path / "b").code == 0
    code = """
import numpy
from slimexport import open_network, verify_bundle

print([artifact.verification.status for artifact in verify_bundle(sys.argv[1])])
with open_network(sys.argv[1], 0.5) as network:
    print(network(numpy.zeros((2, 3, 64, 64), numpy.float32)).shape)
from slimexport.cli import main
main(["--bundle", sys.argv[1], "--verify-only"], prog_name="slimexport")
"""
    done = python(code, tmp_path / "b", without=HEAVY)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['passed', 'passed']"
    assert lines[1] == "(2, 10)"
    assert [line.split()[0] for line in lines[3:5]] == ["0.25", "0.5"]
