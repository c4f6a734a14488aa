"""An answer as the body of a response: JSON, or JSON and then tensors (Open Inference Protocol, KServe v2, with Triton's
binary tensor data extension)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.serving.answer import Answer
from slimexport.target.serving.http.datatypes import NAMES
from slimexport.target.serving.http.infer_request import LITTLE, InferRequest, Wanted
from slimexport.target.serving.http.refusals import Refusal

VERSION = "1"  # of the model: a bundle has one
DATATYPES = {np.dtype(name): datatype for name, datatype in NAMES.items()}
TEXT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # to make it takes longer than to use it
JSON_TYPE, BINARY_TYPE = b"application/json", b"application/octet-stream"


class Written(NamedTuple):
    """The first `json_bytes` of `content` are JSON; None: all are."""

    content: bytes
    json_bytes: int | None = None

    @property
    def media_type(self) -> bytes:
        return JSON_TYPE if self.json_bytes is None else BINARY_TYPE


class Responses:
    """The bodies of a model's responses. Their JSON is written in pieces, of which most are known from one before: an encoder
    takes longer than all else that is done with an answer."""

    def __init__(self, model: str) -> None:
        self._head = f'{{"model_name":{_json(model)},"model_version":{_json(VERSION)},'
        self._labels: dict[str, str] = {}
        self._outputs: dict[tuple[str, tuple[int, ...]], str] = {}  # of one as bytes, float32, by its name and shape

    def write(self, request: InferRequest, answer: Answer) -> Written:
        """The body. Refusal where an output that is to be JSON is not finite."""
        parts: list[Any]
        wanted, array = request.outputs, answer.output
        if (
            len(wanted) == 1
            and wanted[0].binary
            and not isinstance(array, dict)
            and array.dtype is LITTLE
            and array.flags.c_contiguous
        ):  # as mostly
            outputs = self._outputs.get((wanted[0].name, array.shape))
            if outputs is None:
                outputs = _json([_as_bytes(wanted[0].name, array)])
                self._outputs[wanted[0].name, array.shape] = outputs
            parts = [array]
        else:
            arrays = array if isinstance(array, dict) else {wanted[0].name: array}
            outputs, parts = _written(wanted, arrays)
        label = self._labels.get(answer.name)
        if label is None:
            label = self._labels[answer.name] = _json(answer.name if answer.width is None else answer.width)
        text = (
            f'{self._head}{"" if request.id is None else _named(request.id)}"parameters":{{"width":{label},'
            f'"batch":{answer.batch},"queued_ms":{answer.queued_ms:.3f},"computed_ms":{answer.computed_ms:.3f},'
            f'"late":{"true" if answer.late else "false"}}},"outputs":{outputs}}}'
        ).encode("ascii")
        return Written(b"".join([text, *parts]), len(text)) if parts else Written(text)


def _json(value: Any) -> str:
    return TEXT.encode(value)


def _named(identity: str) -> str:
    return f'"id":{_json(identity)},'


def _written(wanted: Sequence[Wanted], arrays: Mapping[str, Array]) -> tuple[str, list[bytes]]:
    """The JSON of outputs, and the bytes of those that are asked for so."""
    outputs, parts = [], []
    for name, binary in wanted:
        array = np.ascontiguousarray(arrays[name])
        if binary:
            outputs.append(_as_bytes(name, array))
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        else:
            outputs.append({**_described(name, array), "data": _numbers(name, array)})
    return _json(outputs), parts


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[array.dtype.newbyteorder("=")], "shape": list(array.shape)}


def _as_bytes(name: str, array: Array) -> dict[str, Any]:
    return {**_described(name, array), "parameters": {"binary_data_size": array.nbytes}}


def _numbers(name: str, array: Array) -> list[Any]:
    if not np.isfinite(array).all():
        raise Refusal(500, f"output {name!r} has numbers that are not finite, which JSON does not hold. Ask for it as bytes.")
    return array.ravel().tolist()
