"""The peer's way to an ONNX file: torch's own exporter, as its documentation has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OPSET = 18  # the lowest that torch's exporter keeps


def torch_onnx(network: Any, images: Any, path: Path) -> None:
    """Write a torch module as ONNX with torch.onnx.export: one file, any batch. `images` are a batch of two or more."""
    import torch

    torch.onnx.export(
        network,
        (images,),
        path,
        dynamo=True,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
