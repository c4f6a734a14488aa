"""The commands on a board without torch and PyYAML: one line that says what to install, exit code 3."""

from __future__ import annotations

import pytest

from tests.support.export_helpers import python

MISSING = ("torch", "torchvision", "yaml", "onnx", "tqdm", "safetensors")


@pytest.mark.parametrize("words", [("train", "digits"), ("--help",), ()], ids=str)
def test_slimtrain_says_what_to_install(words: tuple[str, ...]) -> None:
    program = f"from slimtrain.__main__ import main\nsys.argv = ['slimtrain', *{words!r}]\nmain()"
    done = python(program, without=MISSING)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("slimtrain: the package yaml is not installed") and "slimmable-deploy[full]" in line


def test_training_without_torch_alone_says_what_to_install() -> None:
    done = python(
        "from slimtrain.__main__ import main\nsys.argv = ['slimtrain', 'train', 'digits']\nmain()", without=("torch",)
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("slimtrain: the package torch is not installed")
    assert "slimmable-deploy[full]" in done.stderr and "Traceback" not in done.stderr


def test_an_export_says_what_to_install() -> None:
    program = "from slimexport.cli import main\nmain(['--ckpt', 'random:us_mobilenet_v1', '--output-dir', 'none'])"
    done = python(program, without=MISSING)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("slimexport: the package ") and "slimmable-deploy[full]" in line
