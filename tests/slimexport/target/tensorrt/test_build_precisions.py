"""NVIDIA's own builder, without a GPU, on every precision of every architecture; and what its parser lets pass, which is ours
to keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.typed import to_typed
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.target.precision import PRECISIONS
from slimexport.target.tensorrt.api import emission, supported
from slimexport.target.tensorrt.build import BuildFailed, build
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engines import folded
from slimexport.target.tensorrt.libraries import RTX_LIBRARY
from slimexport.target.tensorrt.plan_header import read_header
from slimtrain.data.noise import noise_images
from slimtrain.models.registry import ARCHITECTURES
from tests.support.onnx_helpers import stored
from tests.support.rtx import SIZE, engine_files, require_rtx, small_onnx, written

SETTINGS = BuildSettings(BatchRange(1, 2, 4))
NEWEST_OPSET = 22  # that TensorRT-RTX 1.7 and TensorRT 10 are known to read rightly; their parsers let later ones pass


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_precision_of_an_architecture_is_read_and_built(architecture: str, tmp_path: Path) -> None:
    trt, files = require_rtx(), engine_files(architecture)
    assert set(supported(trt)) == {name for name, row in PRECISIONS.items() if row.strong}
    sizes = {}
    for precision in supported(trt):
        wanted = emission(trt, precision)
        built = build(trt, written(tmp_path, files[wanted.onnx]), wanted, SETTINGS)
        assert read_header(built.plan, "x", RTX_LIBRARY).tensorrt == trt.__version__
        assert built.flags == (*wanted.flags, "STRONGLY_TYPED") and len(folded(built.warnings)) <= 2
        sizes[precision] = len(built.plan)
    weights = sum(array.size for array in map(numpy_helper.to_array, stored(files["fp32"]).values()))
    assert sizes["fp32"] > 4 * weights and 2 * weights < sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_files_are_what_parsers_do_not_check(architecture: str) -> None:
    """Zero points that are all 0 and signed, and opsets that are read as they are meant."""
    for precision, model in engine_files(architecture).items():
        assert model.opset_import[0].version <= NEWEST_OPSET, precision
        values = stored(model)
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = values[node.input[2]]
                assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any(), node.name
                assert (numpy_helper.to_array(values[node.input[1]]) > 0).all(), node.name


def int8_with(change: str) -> onnx.ModelProto:
    """MobileNet v1's int8 file with one thing wrong."""
    model = onnx.ModelProto()
    model.CopyFrom(engine_files("mobilenet_v1")["int8-fp16"])
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale, zero = (next(tensor for tensor in model.graph.initializer if tensor.name == name) for name in node.input[1:3])
    if change == "zero point":
        zero.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(zero), 3), zero.name))
    elif change == "scale":
        scale.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scale), scale.name))
    return model


@pytest.mark.parametrize(("change", "words"), [("zero point", "[Zz]ero"), ("scale", "[Ss]cale")])
def test_a_wrong_int8_file_is_refused_in_nvidias_words(change: str, words: str, tmp_path: Path) -> None:
    trt = require_rtx()
    with pytest.raises(BuildFailed, match=rf"net_x0_5\.onnx: TensorRT-RTX .*{words}"):
        build(trt, written(tmp_path, int8_with(change)), emission(trt, "int8"), SETTINGS)


@pytest.mark.parametrize(("target", "refused"), [("7.5", {"fp32", "tf32", "bf16"}), ("8.6", set()), ("12.0", set())])
def test_what_a_generation_of_gpus_lacks_is_the_builders_to_say(target: str, refused: set[str], tmp_path: Path) -> None:
    """Turing has neither bf16 nor, in RTX, products of fp32."""
    trt, files = require_rtx(), engine_files("mobilenet_v1")
    settings = BuildSettings(BatchRange(1, 2, 4), targets=(target,))
    for precision in supported(trt):
        wanted = emission(trt, precision)
        path = written(tmp_path, files[wanted.onnx])
        if precision in refused:
            with pytest.raises(BuildFailed, match=rf"engine of it for compute capability {target}\..* TensorRT says: .*sm|SM"):
                build(trt, path, wanted, settings)
        else:
            assert build(trt, path, wanted, settings).plan.startswith(RTX_LIBRARY.tag)


@pytest.mark.parametrize("operator", ["HardSwish", "HardSigmoid", "Sigmoid", "Elu", "LeakyRelu", "Erf", "Softplus", "Tanh"])
def test_activations_of_users_networks_are_read_in_every_number_type(operator: str, tmp_path: Path) -> None:
    """HardSwish in bf16 is not: that file has a HardSigmoid in its place."""
    trt, model = require_rtx(), small_onnx(operator=operator)
    for precision in ("fp16", "bf16"):
        typed, _ = to_typed(model, precision)
        onnx.checker.check_model(typed, full_check=True)
        assert build(trt, written(tmp_path, typed), emission(trt, precision), SETTINGS).plan


def test_files_for_tensorrt_8_are_of_the_last_opset_that_it_reads() -> None:
    """Its parser lets later ones pass, and reads them wrongly."""
    original = Original(small_onnx(), Calibration.of([noise_images(4, SIZE, 0)], "max"))
    sources = {row.weak.onnx for row in PRECISIONS.values() if row.weak}
    assert sources == {"fp32", "int8"}
    for name in sources:
        model = WRITERS[name](original).model
        assert (model.opset_import[0].version, model.ir_version) == (17, 8), name
