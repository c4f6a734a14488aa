"""An answer as the body of a response: JSON, or JSON and then tensors (Open Inference Protocol, KServe v2, with Triton's
binary tensor data extension)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.serving.answer import Answer
from slimexport.target.serving.http.datatypes import NAMES
from slimexport.target.serving.http.infer_request import InferRequest
from slimexport.target.serving.http.refusals import Refusal

VERSION = "1"  # of the model: a bundle has one
DATATYPES = {np.dtype(name): datatype for name, datatype in NAMES.items()}
TEXT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # to make it takes longer than to use it
JSON_TYPE, BINARY_TYPE = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Written:
    """The first `json_bytes` of `content` are JSON; None: all are."""

    content: bytes
    json_bytes: int | None = None

    @property
    def media_type(self) -> str:
        return JSON_TYPE if self.json_bytes is None else BINARY_TYPE


def write_response(model: str, request: InferRequest, answer: Answer) -> Written:
    """The body. Refusal where an output that is to be JSON is not finite."""
    arrays = answer.output if isinstance(answer.output, dict) else {request.outputs[0].name: answer.output}
    outputs, parts = [], []
    for wanted in request.outputs:
        array = np.ascontiguousarray(arrays[wanted.name])
        datatype = DATATYPES[array.dtype.newbyteorder("=")]
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": list(array.shape)}
        if wanted.binary:
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = _numbers(wanted.name, array)
        outputs.append(output)
    content = {
        "model_name": model,
        "model_version": VERSION,
        **({} if request.id is None else {"id": request.id}),
        "parameters": {
            "width": answer.name if answer.width is None else answer.width,
            "batch": answer.batch,
            "queued_ms": round(answer.queued_ms, 3),
            "computed_ms": round(answer.computed_ms, 3),
            "late": answer.late,
        },
        "outputs": outputs,
    }
    text = TEXT.encode(content).encode("ascii")
    return Written(b"".join([text, *parts]), len(text)) if parts else Written(text)


def _numbers(name: str, array: Array) -> list[Any]:
    if not np.isfinite(array).all():
        raise Refusal(500, f"output {name!r} has numbers that are not finite, which JSON does not hold. Ask for it as bytes.")
    return array.ravel().tolist()
