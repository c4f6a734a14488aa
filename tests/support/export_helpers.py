"""What the tests of slimexport share: running the command in this process, small checkpoints, Python without packages."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from slimexport import job
from slimexport.cli import main
from slimexport.onnx_files.graph_writer import write_graph as real_write_graph
from slimexport.target.bundle_writer import BundleWriter
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.reference import make_checkpoint
from tests.support import ROOT
from tests.support.bundle_helpers import artifact, manifest, write_manifest
from tests.support.outcomes import Outcome, outcome_of

torch.set_num_threads(1)  # small networks: on a busy machine two threads wait for each other longer than they work

GAIN = 0.95  # of MobileNet v1 in tests/reference/layouts

State = dict[str, torch.Tensor]


# ------------------------------------------------------------------------------------------------------- the command


def run(*args: str | Path, terminal: bool = False) -> Outcome:
    """`slimexport ARGS` in this process."""
    return outcome_of(main, "slimexport", *args, terminal=terminal)


def refused(outcome: Outcome, code: int, *parts: str) -> None:
    """The run failed with `code` and one message that holds all `parts`, and printed no result."""
    assert outcome.code == code, outcome
    message = outcome.err.replace("\n", " ")
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"
    assert "Traceback" not in message


def leaves_nothing(outcome: Outcome, out: Path, code: int, *parts: str) -> None:
    """Refused with these words, without output, and without a trace in `out`: no folder, no hidden folder."""
    refused(outcome, code, *parts)
    assert "slimexport: " in outcome.err or "Error: " in outcome.err
    assert outcome.out == ""
    assert list(out.iterdir()) == []


def python(
    code: str, *args: str | Path, without: Iterable[str] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -c CODE ARGS` in a process of its own, in which importing any package of `without` fails."""
    block = f"import sys\nfor name in {list(without)!r}:\n    sys.modules[name] = None\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", block + code, *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd or ROOT,
        check=False,
        timeout=300,
    )


# ------------------------------------------------------------------------------------------------------- checkpoints


def small_spec(family: str = "s", widths: tuple[float, ...] = (0.25, 0.5), classes: int = 10) -> NetworkSpec:
    """A MobileNet v1 of 1.3 M weights, with ten classes."""
    return NetworkSpec("mobilenet_v1", family, widths, classes, width_range=(0.25, 0.5) if family == "us" else None)


def random_state(spec: NetworkSpec) -> State:
    """Reproducible values for every tensor of `spec`, drawn as those of the reference checkpoints are."""
    with torch.device("meta"):
        empty = SlimmableNetwork(spec).state_dict()
    widest: dict[str, int] = {}
    for key, tensor in empty.items():
        if key.endswith("running_var"):
            layer = make_checkpoint.siblings(key)
            widest[layer] = max(widest.get(layer, 0), len(tensor))
    state = {}
    for key, tensor in empty.items():
        share = len(tensor) / widest[make_checkpoint.siblings(key)] if key.endswith("running_var") else 1.0
        kind = str(tensor.dtype).removeprefix("torch.")
        state[key] = torch.from_numpy(make_checkpoint.tensor_value(key, list(tensor.shape), kind, 0, GAIN, share))
    return state


def write_checkpoint(path: Path, spec: NetworkSpec | None = None, change: Callable[[State], object] | None = None) -> Path:
    """A file in the published layout (keys begin with `module.`), its state changed by `change` before it is saved."""
    state = random_state(spec or small_spec())
    if change is not None:
        change(state)
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path


@functools.cache
def opened(path: Path) -> Checkpoint:
    """The checkpoint at `path`, read once per session: not to be changed."""
    return open_checkpoint(path)


def last_norm(state: State, switch: int) -> str:
    """The key of the weights that the last norm has at one switch."""
    return [key for key in state if re.search(rf"\.bn\.{switch}\.weight$", key)][-1]


# ------------------------------------------------------------------------------------------------------------- ONNX


def check_onnx(content: bytes) -> onnx.ModelProto:
    """The model, once the full checker and strict shape inference have nothing to say."""
    onnx.checker.check_model(content, full_check=True)
    model = onnx.load_model_from_string(content)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def run_onnx(content: bytes | Path, images: NDArray[Any]) -> NDArray[Any]:
    """A model in onnxruntime on the CPU, as a user would run it."""
    source = content if isinstance(content, bytes) else str(content)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": images})[0])


# ---------------------------------------------------------------------------------------------------- small networks


class Wired(nn.Module):
    """Modules `parts`, and a forward pass given as a function of this module and the input."""

    def __init__(self, wiring: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.wiring = wiring
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.wiring(self, x)


def conv(inp: int = 3, out: int = 3, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A 3x3 convolution from 3 to 3 channels, unless said otherwise."""
    return nn.Conv2d(inp, out, kernel, **options)


# ---------------------------------------------------------------------------------------------------------- defects


def corrupt(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], object], only: str = "") -> None:
    """Let every ONNX model that the export makes (`only` those whose name ends so) be changed before it is written."""

    def write_graph(*args: Any, **kwargs: Any) -> onnx.ModelProto:
        model = real_write_graph(*args, **kwargs)
        if model.graph.name.endswith(only):
            change(model)
        return model

    monkeypatch.setattr(job, "write_graph", write_graph)


def edit_weight(model: onnx.ModelProto, name: str, edit: Callable[[NDArray[Any]], object]) -> None:
    """Change one initializer in place."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    edit(array)
    tensor.raw_data = array.tobytes()


def negate_largest(array: NDArray[Any]) -> None:
    """Flip the sign of the weight with the largest magnitude."""
    flat = array.reshape(-1)
    flat[np.abs(flat).argmax()] *= -1


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included: relative path -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------ what several files begin with


def export(checkpoint: str | Path, out: Path, *more: str | Path) -> Outcome:
    return run("--ckpt", checkpoint, "--image-size", "64", "--output-dir", out / "new" / "b", *more)


def bundle(folder: Path, *files: str) -> dict[str, bytes]:
    """A bundle that an earlier export left."""
    write_manifest(folder, manifest(*(artifact(Path(file).stem, file=file) for file in files)))
    for file in files:
        (folder / file).write_text(f"old {file}")
    (folder / "reference.npz").write_text("old reference")
    return tree(folder)


def fill(writer: BundleWriter, *files: str) -> None:
    for file in files:
        writer.write(file, f"new {file}".encode())
