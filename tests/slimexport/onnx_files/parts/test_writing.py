"""Files in parts: types, what a file of fewer bits detects, what is told of how it was written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.parts.writing import PartsOriginal
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.precision import row_of
from slimexport.target.runners import runs_on_cpu
from slimtrain.base.errors import UserError
from tests.support.detector_files import SIZE, detector_file
from tests.support.low_detectors import LOW, inner_of, low_file, parts_original


@pytest.mark.parametrize("precision", LOW)
def test_a_file_is_valid_and_its_ends_are_float32(precision: str) -> None:
    model = low_file(precision).model
    onnx.checker.check_model(model.SerializeToString(), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    for name in (*inner_of(model).values(), "boxes", "scores"):
        assert types[name] == TensorProto.FLOAT, name
    for node in model.graph.node:
        if node.op_type in ("RoiAlign", "TopK", "Softmax", "Exp"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name


@pytest.mark.parametrize("precision", LOW)
def test_a_file_gives_nearly_the_maps_and_logits_of_fp32(precision: str) -> None:
    file = low_file(precision)
    inner = inner_of(file.model)
    names = [inner[key] for key in inner if key.startswith(("map", "objectness"))]
    model = file.model if runs_on_cpu(precision) else cast_twin(file.model)
    outputs = []
    for one in (model, file.whole.model):
        probe = onnx.ModelProto()
        probe.CopyFrom(one)
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        outputs.append(cpu_session(probe).run(names, {"input": file.whole.images}))
    for name, given, exact in zip(names, *outputs, strict=True):
        assert given.dtype == np.float32
        error = np.abs(given - exact).max() / np.abs(exact).max()
        assert 0 < error < {"fp16": 1e-2, "bf16": 6e-2}.get(precision, 0.3), (name, error)


def test_weights_of_layers_are_half_as_large_or_a_quarter() -> None:
    whole = len(detector_file(width=1.0).model.SerializeToString())
    halves, quarters = (len(low_file(name).model.SerializeToString()) for name in ("fp16", "int8-cpu"))
    assert quarters < halves < whole


def test_what_fp16_does_to_weights_is_counted_over_all_parts() -> None:
    written = parts_original().write(row_of("fp16"))
    assert written.rounding is not None and written.int8 is None
    stored = written.model.graph.initializer
    halves = sum(int(np.prod(tensor.dims)) for tensor in stored if tensor.data_type == TensorProto.FLOAT16 and tensor.dims)
    assert written.rounding.weights == halves > 1000


def test_int8_tells_the_methods_of_all_parts() -> None:
    written = parts_original().write(row_of("int8-cpu"))
    assert written.int8 is not None
    assert written.int8.method == "max" and written.int8.weight_bits == 7
    assert written.int8.images + written.int8.held_back == 10
    (tried,) = written.int8.tried.values()
    assert tried is not None and tried.cosine > 0.9


def test_fp32_is_the_file_itself() -> None:
    original = parts_original()
    written = original.write(row_of("fp32"))
    assert written.model is original.model and written.recorded is None


def test_the_parts_that_a_file_is_written_from_are_the_fp32_model() -> None:
    file = low_file("int8-cpu")
    for one in (file.recorded.base, file.whole.model):
        onnx.checker.check_model(one, full_check=True)
    given, exact = (
        cpu_session(model).run(None, {"input": file.whole.images}) for model in (file.recorded.base, file.whole.model)
    )
    assert all(np.allclose(one, other, atol=1e-4) for one, other in zip(given, exact, strict=True))


def test_images_on_which_nothing_is_detected_calibrate_no_mask_head() -> None:
    whole = detector_file("mask_rcnn", width=1.0)
    model = onnx.ModelProto()
    model.CopyFrom(whole.model)
    inner = inner_of(model)
    (rows,) = [node for node in model.graph.node if inner["mask_rows"] in node.output]
    rows.output[0] = "some"
    place = list(model.graph.node).index(rows) + 1
    model.graph.node.insert(place, onnx.helper.make_node("Sub", ["some", "some"], [inner["mask_rows"]]))
    images = np.random.default_rng(9).standard_normal((5, 3, *SIZE)).astype(np.float32)
    original = PartsOriginal(model, inner, Calibration.of([images], "max"))
    with pytest.raises(UserError, match="nothing is detected"):
        original.write(row_of("int8-cpu"))
