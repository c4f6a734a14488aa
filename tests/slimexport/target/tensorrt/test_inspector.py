"""Counting layers by precision in the inspector's JSON, in the forms that TensorRT 8.6, 10 and 11 give it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slimexport.target.tensorrt.inspector import LayerCount, count_layers, layer_precision

DYNAMIC = [{"Name": "x", "Dimensions": [-1, 8, 4, 4], "Format/Datatype": "N/A due to dynamic shapes"}]


def tensor(text: str, key: str = "Format/Datatype") -> list[dict[str, Any]]:
    return [{"Name": "x", "Location": "Device", "Dimensions": [1, 8, 4, 4], key: text}]


def conv(weights: str, **more: Any) -> dict[str, Any]:
    return {"LayerType": "CaskConvolution", "Weights": {"Type": weights, "Count": 432}, "Inputs": DYNAMIC, **more}


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        (conv("Half"), "fp16"),
        (conv("Int8", TacticName="sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw"), "int8"),
        (conv("Float", TacticName="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc"), "tf32"),
        (conv("Float", TacticName="ampere_scudnn_128x64_relu_small_nn_v1"), "fp32"),
        (conv("BFloat16"), "bf16"),
        ({"LayerType": "CaskGemm", "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16_tn_n"}, "fp16"),
        ({"LayerType": "gemm", "TacticName": "ampere_h16816gemm_128x64_ldg8_stages"}, "fp16"),
        ({"LayerType": "gemm", "TacticName": "ampere_sgemm_32x32_sliced1x4"}, "fp32"),
        ({"LayerType": "conv", "Inputs": tensor("Int8"), "Outputs": tensor("Half")}, "int8"),
        ({"LayerType": "kgen", "TacticName": "__myl_CastAdd_0x12", "Inputs": tensor("BFloat16")}, "bf16"),
        ({"LayerType": "kgen", "Inputs": tensor("FP8")}, "fp8"),
        ({"Inputs": tensor("Half(64,1:8,...)")}, "fp16"),
        ({"Inputs": tensor("Thirty-two wide channel vectorized row major Int8 format")}, "int8"),
        ({"Inputs": tensor("Channel major FP16 format where channel % 8 == 0")}, "fp16"),
        ({"Inputs": tensor("Row major linear FP32")}, "fp32"),
        ({"Inputs": tensor("Float", "Datatype")}, "fp32"),
        ({"Inputs": DYNAMIC, "Outputs": tensor("Float")}, "fp32"),
        ({"Inputs": DYNAMIC, "Outputs": DYNAMIC}, "unknown"),
        ({"Inputs": tensor("Int32")}, "unknown"),
        ("a name only", "unknown"),
        ({"Weights": {"Type": "Half", "Count": 0}, "Inputs": tensor("Float")}, "fp32"),
    ],
)
def test_a_layers_precision(layer: Any, precision: str) -> None:
    assert layer_precision(layer) == precision


REFORMAT = {"LayerType": "Reformat", "Inputs": tensor("Float"), "Outputs": tensor("Half")}


@pytest.mark.parametrize(
    "rest",
    [
        {"Bindings": ["input", "output"]},
        {"I/O Tensors": [{"Name": "input", "Datatype": "Float"}], "Execution Configuration": {}},
    ],
    ids=["8.6 and 10", "11"],
)
def test_all_layers_are_counted_and_those_with_weights_apart(rest: dict[str, Any]) -> None:
    """In 8.6 and 10 depthwise layers have a type of their own and a fully connected one is a convolution."""
    layers = [
        REFORMAT,
        conv("Half"),
        conv("Half", LayerType="CudaDepthwiseConvolution"),
        conv("Float", LayerType="Scale"),
        "name",
    ]
    count = count_layers(json.dumps({"Layers": layers, **rest}))
    assert count.all == {"fp16": 2, "fp32": 2, "unknown": 1}
    assert count.weighted == {"fp16": 2, "fp32": 1}


def test_control_characters_in_text_are_read() -> None:
    """As in the `Metadata` of TensorRT 8.6, between the names of ONNX nodes."""
    layer = json.dumps(conv("Half", Metadata="[ONNX Layer: /a/Conv?[ONNX Layer: /a/Relu"))
    assert count_layers(f'{{"Layers": [{layer}]}}'.replace("?", "\x1f\x1e\n")).weighted == {"fp16": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "3", '{"Layers": null}', '{"Layers": "x"}'])
def test_text_that_is_no_list_of_layers_counts_nothing(text: str) -> None:
    assert count_layers(text) == LayerCount({}, {})
    assert count_layers(text).verdict("fp16") == "unknown"


@pytest.mark.parametrize(
    ("counts", "precision", "verdict"),
    [
        ({"fp16": 5}, "fp16", "used"),
        ({"fp16": 5, "fp32": 5}, "fp16", "used"),
        ({"fp16": 4, "fp32": 5}, "fp16", "partly"),
        ({"fp32": 5}, "fp16", "not used"),
        ({"fp32": 5}, "fp32", "used"),
        ({"fp16": 5}, "fp32", "not used"),
        ({"int8": 5, "fp16": 2}, "int8", "used"),
        ({"fp16": 5}, "int8", "not used"),
        ({"unknown": 5}, "int8", "unknown"),
        ({"unknown": 50, "fp16": 1}, "fp16", "used"),
        ({"fp32": 5}, "tf32", "unknown"),
        ({"fp32": 5, "tf32": 1}, "tf32", "used"),
    ],
)
def test_whether_a_precision_is_used(counts: dict[str, int], precision: str, verdict: str) -> None:
    assert LayerCount({"unknown": 100}, counts).verdict(precision) == verdict


def test_without_weighted_layers_that_tell_all_layers_decide() -> None:
    """As where one layer is a whole fused graph."""
    assert LayerCount({"fp16": 3}, {"unknown": 2}).verdict("fp16") == "used"
    assert LayerCount({"fp16": 3}, {}).verdict("int8") == "not used"
    assert LayerCount({"unknown": 3}, {"unknown": 3}).verdict("fp32") == "unknown"
