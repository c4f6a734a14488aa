"""The table of precisions: every row is whole, and each is written, proven, built and run by what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimexport.cli import main
from slimexport.exporter import export
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.runner import onnx_runner
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.report import table
from slimexport.request import CalibrationImages
from slimexport.target.precision import (
    EXACT,
    OPTIONS,
    PRECISIONS,
    RUNTIMES,
    TOLERANCES,
    Difference,
    Direction,
    check_option,
    computed_from,
    files_of,
    needed_for,
    row_of,
)
from slimexport.target.proof.verify import prove
from slimexport.target.reference import Probes
from slimexport.target.runners import runs_on_cpu
from slimexport.target.serving.triton.repository import model_names
from slimexport.target.tensorrt.api import emission, strongly_typed, supported
from slimexport.target.tensorrt.check import check_engine
from slimexport.target.tensorrt.inspector import LayerCount
from slimexport.target.verification import Verification
from slimtrain.base.errors import UserError
from tests.support.bundle_helpers import artifact, manifest
from tests.support.trt_fake import VERSIONS
from tests.support.trt_helpers import build, engines_of, machine, write_bundle

ROWS = list(PRECISIONS.values())
FILES = [row.name for row in ROWS if row.weight_bytes is not None]
ENGINES = [row.name for row in ROWS if row.weak or row.strong]


def network() -> onnx.ModelProto:
    """Images [N, 3, 4, 4] -> [N, 5]: a convolution that every precision can be written of."""
    draw = np.random.default_rng(0)
    weight, head = draw.normal(size=(16, 3, 3, 3)).astype(np.float32), draw.normal(size=(5, 64)).astype(np.float32)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 4])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["conv"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["output"], transB=1),
    ]
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(head, "head")]
    graph = helper.make_graph(nodes, "net", [image], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 4, 4)).astype(np.float32)


def test_the_table_is_keyed_by_names_and_the_command_offers_each_option_once() -> None:
    assert list(PRECISIONS) == [row.name for row in ROWS]
    assert OPTIONS == ("fp32", "tf32", "fp16", "bf16", "int8")
    assert {row.option for row in ROWS} == set(OPTIONS)
    (option,) = [parameter for parameter in main.params if parameter.name == "precision"]
    assert option.help == "Number formats: fp32, tf32 (engines), fp16, bf16, int8."


def test_names_of_files_differ_and_fp32s_has_no_infix() -> None:
    assert PRECISIONS[EXACT].infix == ""
    assert len({row.infix for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_row_is_whole(name: str) -> None:
    row = PRECISIONS[name]
    assert row.name == name and row.option in OPTIONS
    assert (row.weight_bytes is not None) or (row.weak is not None) or (row.strong is not None), "neither file nor engine"
    for recipe in (row.weak, row.strong):
        assert recipe is None or PRECISIONS[recipe.onnx].weight_bytes is not None, "engines are built from files"
    proof = row.proof
    if isinstance(proof, Difference):
        assert 0 < proof.tolerance == TOLERANCES[name] < 0.1
        assert (proof.factor == 0) == (proof.most == 0) and (not proof.factor or proof.tolerance < proof.most < 0.5)
    else:
        assert isinstance(proof, Direction) and 0.9 < proof.least_cosine <= proof.engine_cosine < 1
    assert set(row.made_for) <= set(RUNTIMES)
    assert bool(row.made_for) is (row.weight_bytes is not None), "a file is for somebody"


def test_every_file_has_a_writer_and_every_writer_a_file() -> None:
    assert set(WRITERS) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_written_and_proven_as_its_row_says(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    row, folder = PRECISIONS[name], tmp_path_factory.mktemp("files")
    calibration = Calibration.of([images(20, 1)], "auto") if row.calibrated else None
    written = WRITERS[name](Original(network(), calibration))
    assert (written.int8 is not None) is row.calibrated
    content = written.model.SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    path = folder / "net.onnx"
    path.write_bytes(content)
    weights = sum(len(tensor.raw_data) for tensor in written.model.graph.initializer if len(tensor.dims) > 1)
    left = 16 * 27 * (not row.served) if row.calibrated else 0  # TensorRT's int8 leaves a convolution of 3 channels alone
    assert weights == (16 * 27 + 5 * 64) * (row.weight_bytes or 0) + left * (1 if name == "int8-fp16" else 3)
    runner = onnx_runner(path, name)
    assert runner.backend.endswith("(cast twin)") is not runs_on_cpu(name)
    probes = images(4, 2)
    original = folder / "exact.onnx"
    onnx.save(network(), original)
    logits = onnx_runner(original, EXACT)(probes).astype(np.float64)
    check = prove(runner, Probes.of(probes, logits), name, lambda: 0.0)
    assert check.status == "passed"
    assert (check.least_cosine is not None) is isinstance(row.proof, Direction)
    wrong = prove(runner, Probes.of(probes, -logits), name, lambda: 0.0)
    assert wrong.status == "failed"


@pytest.mark.parametrize("option", OPTIONS)
def test_what_an_option_writes_and_needs(option: str) -> None:
    expected = {"fp32": ["fp32"], "tf32": [], "int8": ["int8-cpu", "int8", "int8-fp16"]}.get(option, [option])
    assert [row.name for row in files_of(option)] == expected
    needed = {"tf32": ("fp32",), "fp16": ("fp32", "fp16")}.get(option, (option,))
    assert needed_for(option) == needed


@pytest.mark.parametrize(
    ("target", "expected"),
    [("all", ["int8-cpu", "int8", "int8-fp16"]), ("cpu", ["int8-cpu"]), ("tensorrt", ["int8", "int8-fp16"])],
)
def test_int8_files_of_one_target(target: str, expected: list[str]) -> None:
    assert [row.name for row in files_of("int8", target)] == expected
    assert [row.name for row in files_of("fp16", target)] == ["fp16"], "others are for all"


def test_an_unknown_int8_target_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"int8 target 'cpus': not known.*cpu.*Expected all, cpu, tensorrt\."):
        CalibrationImages("digits", int8_target="cpus")


def test_what_is_not_offered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the table, by an export, and by a build; a file's name that is no option is none of them."""
    machine(monkeypatch)
    for name in ("fp61", "int8-fp16", "int8-cpu"):
        for refused in (
            lambda name=name: check_option(name, engines=True),
            lambda name=name: export("random:us_mobilenet_v1", precisions=[name]),
            lambda name=name: build(write_bundle(tmp_path / name), precisions=[name]),
        ):
            with pytest.raises(UserError, match=f"'{name}': not known.*Available: fp32, tf32, fp16, bf16, int8"):
                refused()
    with pytest.raises(UserError, match="tf32: is a way to compute, not to store"):
        export("random:us_mobilenet_v1", precisions=["tf32"])
    check_option("tf32", engines=True)


@pytest.mark.parametrize("name", FILES)
def test_only_fp32s_files_are_computed_in_other_ways(name: str) -> None:
    assert computed_from(name) == (("fp32", "tf32") if name == EXACT else (name,))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_built_from_its_rows_file_and_proven(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row, board = PRECISIONS[name], machine(monkeypatch, version)
    recipe = row.strong if strongly_typed(board.trt) else row.weak
    assert (name in supported(board.trt)) is (recipe is not None)
    if recipe is None:
        return
    assert (emission(board.trt, name).onnx, emission(board.trt, name).flags) == (recipe.onnx, recipe.flags)
    bundle = write_bundle(tmp_path_factory.mktemp("engines") / "b", (recipe.onnx,), (0.5,))
    build(bundle, precisions=[name])
    (engine,) = engines_of(bundle).values()
    assert engine.file == f"net_x0_5{row.infix}.plan" and engine.engine is not None
    assert engine.engine.onnx == f"net_x0_5{PRECISIONS[recipe.onnx].infix}.onnx"
    assert set(recipe.flags) <= set(engine.engine.flags)
    assert (engine.verification.least_cosine is not None) is isinstance(row.proof, Direction)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_held_to_its_rows_proof(name: str) -> None:
    probes, proof = Probes.of(images(4, 0), np.eye(4, 5) * 3.0), PRECISIONS[name].proof

    class Off:
        backend = "tensorrt"

        def __init__(self, share: float) -> None:
            self.share = share

        def __call__(self, images: np.ndarray) -> np.ndarray:
            chosen = [int(np.abs(probes.images - image).sum((1, 2, 3)).argmin()) for image in images]
            outputs = probes.expected[0].values[chosen].copy()
            outputs[:, 4] += 3 * self.share
            return outputs

    limit = proof.tolerance if isinstance(proof, Difference) else 0.15
    assert check_engine(Off(0.9 * limit), probes, name, [1, 4]).status == "passed"
    assert check_engine(Off(1.5 * limit), probes, name, [1, 4]).status == "failed"


@pytest.mark.parametrize("name", ENGINES)
def test_layers_tell_of_a_precision_or_nothing_is_known(name: str) -> None:
    other = next(row.name for row in ROWS if row.name != name and row.shown)
    assert LayerCount({name: 2}, {name: 2}).verdict(name) == "used"
    assert LayerCount({other: 2}, {other: 2}).verdict(name) == ("not used" if PRECISIONS[name].shown else "unknown")


@pytest.mark.parametrize("name", FILES)
def test_triton_serves_what_onnxruntime_loads(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = tmp_path_factory.mktemp("b")
    described = manifest(artifact(), artifact(precision=name, name="other"))
    assert (len(model_names(bundle, described)) == 2) is PRECISIONS[name].served


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_table_that_is_printed_takes_every_precision(name: str) -> None:
    lines = table([artifact(precision=name, verification=Verification(status="skipped"))]).splitlines()
    assert (name in lines[1]) is (name != EXACT)


def test_an_unknown_precision_is_treated_as_fp32() -> None:
    assert row_of("fp61") is PRECISIONS[EXACT]


def test_torch_has_the_types_that_rows_name() -> None:
    import torch

    for row in ROWS:
        assert not row.torch or isinstance(getattr(torch, row.torch), torch.dtype)
        assert not row.torch or getattr(torch, row.torch).itemsize == row.item_bytes
