"""Help and usage errors come at once: in a process where importing torch (and onnx) fails, they still work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.export_helpers import python

CASES = {
    "help": (["--help"], 0, "Usage"),
    "version": (["--version"], 0, "slimexport"),
    "environment": (["--env"], 0, "torch"),
    "nothing": ([], 2, "--ckpt"),
    "unknown option": (["--widht", "1"], 2, "--widths"),
    "bad widths": (["--ckpt", "random:s_resnet50", "--widths", "abc"], 2, "not a number"),
    "zero width": (["--ckpt", "random:s_resnet50", "--widths", "0"], 2, "positive"),
    "bad macs": (["--ckpt", "random:s_resnet50", "--macs", "abc"], 2, "not a number"),
    "bad switches": (["--ckpt", "random:s_resnet50", "--switches", "all"], 2, "--switches"),
    "format": (["--ckpt", "random:s_resnet50", "--format", "tensorrt"], 2, "trt"),
    "precision": (["--ckpt", "random:s_resnet50", "--precision", "fp61"], 2, "fp16"),
    "random typo": (["--ckpt", "random:s_resnet5"], 2, "s_resnet50"),
    "missing file": (["--ckpt", "none.pt"], 2, "no such file"),
    "probes": (["--ckpt", "random:s_resnet50", "--probes", "1"], 2, "--probes"),
    "both": (["--ckpt", "x", "--bundle", "y"], 2, "not both"),
    "bundle alone": (["--bundle", "y"], 2, "--verify-only"),
    "no bundle": (["--bundle", "none", "--verify-only"], 2, "manifest.json"),
    "network typo": (["--ckpt", "here.pt", "--network", "us_mobilnet_v1"], 2, "us_mobilenet_v1"),
    "image size": (["--ckpt", "here.pt", "--image-size", "0"], 2, "image"),
}
RUN = """
import contextlib, io, json
from slimexport.cli import main

results = {}
for name, (args, _, _) in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(args, prog_name="slimexport")
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException as error:
        code, err = f"{type(error).__name__}: {error}", io.StringIO()
    results[name] = code, out.getvalue() + err.getvalue()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str]]:
    folder: Path = tmp_path_factory.mktemp("usage")
    (folder / "here.pt").write_bytes(b"not read")
    done = python(RUN, json.dumps(CASES), without=("torch", "onnx", "torchvision"), cwd=folder)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, tuple[object, str]] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("name", CASES)
def test_it_needs_no_torch(results: dict[str, tuple[object, str]], name: str) -> None:
    _, code, part = CASES[name]
    assert results[name][0] == code
    assert part in results[name][1]
