"""Results are a matter of the network alone: not of threads, nor of what ran before, nor of what torch was told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimexport import export
from slimexport.dense import dense_network
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.request import Proof
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.graph_dense import stored_tensors
from tests.properties.cases import EXACT, Case, Module, cases, difference, modules, plans, published_cases, tensors_of
from tests.properties.counting import counted
from tests.support import ROOT


def file_of(case: Case) -> bytes:
    model = write_graph(case.spec.sizing(case.plan, case.source.image_size), stored_tensors(case.network, case.plan))
    return model.SerializeToString(deterministic=True)


# ---------------------------------------------------------------------------------------------------------- threads


def threads_change_nothing(case: Case) -> None:
    """Files to the bit, for folding adds nothing up; logits up to the order of sums."""
    content, logits = file_of(case), case.run(case.images(2))
    torch.set_num_threads(2)
    try:
        assert file_of(case) == content
        assert difference(case.run(case.images(2)), logits) < EXACT
    finally:
        torch.set_num_threads(1)


# ------------------------------------------------------------------------------------------------- what ran before


def other_plans_leave_nothing(case: Case, data: st.DataObject) -> None:
    """A plan gives to the bit what it gave before others ran, in training mode too, and after its dense form was made."""
    x = case.images(2)
    before = tensors_of(case.run(x))
    other = data.draw(plans(case.spec))
    if not case.exact.has_statistics(other):
        calibrate(case.exact, [other], [case.images(4)])
    with case.exact.at(other), torch.no_grad():
        case.exact(case.images(3))
    dense = dense_network(case.exact, other)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.fill_(float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(case.run(x)), before, strict=True))


@given(cases(published_cases()), st.data())
def test_a_published_network_by_itself(case: Case, data: st.DataObject) -> None:
    with counted("published: threads change nothing"):
        threads_change_nothing(case)
    with counted("published: other plans leave nothing"):
        other_plans_leave_nothing(case, data)


@given(cases(modules), st.data())
def test_a_traced_network_by_itself(case: Case, data: st.DataObject) -> None:
    with counted("traced: threads change nothing"):
        threads_change_nothing(case)
    with counted("traced: other plans leave nothing"):
        other_plans_leave_nothing(case, data)


# ------------------------------------------------------------------------------------------------ whole exports


def exported(source: Module, images: torch.Tensor, widths: Sequence[float], folder: Path) -> dict[str, bytes]:
    """A module through everything: made slimmable, calibrated, saved, exported. File -> content, the reference's arrays by
    name among them."""
    network = source.network(images)
    calibrate(network, [network.plan(width) for width in widths if width < 1], [images])
    statistics = (0.5,) * network.spec.in_channels
    save(own_content(network, source.image_size, statistics, statistics), folder / "mine.pt")
    manifest = export(folder / "mine.pt", widths=list(widths), output_dir=folder / "bundle", proof=Proof(verify=False))
    files = {a.file: (folder / "bundle" / a.file).read_bytes() for a in manifest.artifacts}
    with np.load(folder / "bundle" / "reference.npz") as reference:
        files |= {name: reference[name].tobytes() for name in reference.files}
        assert {str(reference[name].dtype) for name in reference.files} <= {"float32", "float64", "int64"}
    return files


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def digest(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def seeded() -> Iterator[None]:
    torch.manual_seed(12345)
    np.random.seed(12345)
    random.seed(12345)
    yield


@contextmanager
def anomalies() -> Iterator[None]:
    with torch.autograd.set_detect_anomaly(True):
        yield


@contextmanager
def no_mkldnn() -> Iterator[None]:
    """Sums run in another order: left to the tolerance."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


WIDTHS = {"us": (0.5, 1.0), "s": (0.6, 1.0)}
STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype float64": default_dtype,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "deterministic": deterministic,
    "another seed": seeded,
    "default device meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomalies": anomalies,
}


# Networks of a list one after the other in a process of their own, their widths too.
ALONE = """
import json, pickle, sys
from pathlib import Path
import torch
from tests.properties.test_isolation import digest, exported, folder

torch.set_num_threads(1)
digests = []
for source, widths in pickle.loads(Path(sys.argv[1]).read_bytes()):
    with folder() as path:
        digests.append(digest(exported(source, source.images(8), widths, path)))
print(json.dumps(digests))
"""


@settings(max_examples=max(1, settings().max_examples // 100))
@given(st.lists(modules, min_size=3, max_size=3))
def test_the_order_of_networks_and_widths_changes_no_file(sources: list[Module]) -> None:
    with counted("files in another process, in another order"):
        expected = []
        for source in sources:
            with folder() as here:
                expected.append(digest(exported(source, source.images(8), WIDTHS[source.family], here)))
        turned = [(dataclasses.replace(source), WIDTHS[source.family][::-1]) for source in sources[::-1]]
        with folder() as path:
            (path / "sources").write_bytes(pickle.dumps(turned))
            ran = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", ALONE, str(path / "sources")],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout.splitlines()[-1])[::-1] == expected


@given(modules, st.sampled_from(sorted(STATES)))
def test_what_torch_was_told_changes_no_file(source: Module, state: str) -> None:
    with counted(f"global state: {state}"):
        images, widths = source.images(8), WIDTHS[source.family]
        assert source.module  # the user's, which is there before
        with folder() as plain:
            expected = exported(source, images, widths, plain)
        with folder() as changed, STATES[state]():
            files = exported(source, images, widths, changed)
        assert digest(files) == digest(expected)
