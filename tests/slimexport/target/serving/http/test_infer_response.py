"""Answers as bytes, read back by the protocol's rules."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.answer import Answer
from slimexport.target.serving.http.infer_request import InferRequest, Wanted
from slimexport.target.serving.http.infer_response import Responses, Written
from slimexport.target.serving.http.refusals import Refusal
from tests.support.http_serving import images, logits

LOGITS = logits(images(2), 0.5)


def written(output: Any, *wanted: tuple[str, bool], **changes: Any) -> Written:
    values: dict[str, Any] = {"width": 0.5, "name": "0.5", "batch": 8, "queued_ms": 1.23456, "computed_ms": 2.0}
    request = InferRequest(images(2), tuple(Wanted(*output) for output in wanted), id=changes.pop("id", None))
    return Responses("net").write(request, Answer(output, **{**values, **changes}))


def test_json_holds_every_number_exactly() -> None:
    body = written(LOGITS, ("output", False))
    assert (body.json_bytes, body.media_type) == (None, b"application/json")
    (output,) = json.loads(body.content)["outputs"]
    assert output.items() >= {"name": "output", "datatype": "FP32", "shape": [2, 5]}.items()
    np.testing.assert_array_equal(np.array(output["data"], np.float32), LOGITS.ravel())


def test_parameters_tell_the_width_and_the_times() -> None:
    assert json.loads(written(LOGITS, ("output", False)).content)["parameters"] == {
        "width": 0.5,
        "batch": 8,
        "queued_ms": 1.235,
        "computed_ms": 2.0,
        "late": False,
    }


def test_a_plan_without_a_width_is_told_by_its_name() -> None:
    assert json.loads(written(LOGITS, ("output", False), width=None, name="slim").content)["parameters"]["width"] == "slim"


def test_the_id_is_the_request_s_and_none_where_it_had_none() -> None:
    assert json.loads(written(LOGITS, ("output", False), id="mine").content)["id"] == "mine"
    assert "id" not in json.loads(written(LOGITS, ("output", False)).content)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float16", "FP16"),
        ("float32", "FP32"),
        ("float64", "FP64"),
        ("int8", "INT8"),
        ("int32", "INT32"),
        ("int64", "INT64"),
        ("uint8", "UINT8"),
        ("bool", "BOOL"),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_every_number_type_comes_back(dtype: str, name: str, binary: bool) -> None:
    array = np.array([[0, 1], [1, 2]]).astype(dtype)
    body = written(array, ("output", binary))
    text = body.content[: body.json_bytes]
    (output,) = json.loads(text)["outputs"]
    assert output["datatype"] == name
    if binary:
        raw = body.content[len(text) :]
        assert output["parameters"]["binary_data_size"] == len(raw)
        np.testing.assert_array_equal(np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(2, 2), array)
    else:
        np.testing.assert_array_equal(np.array(output["data"]).reshape(2, 2), array)


def test_several_outputs_come_in_the_order_asked_for_some_as_bytes() -> None:
    best = LOGITS.argmax(1)
    body = written({"output": LOGITS, "best": best}, ("best", True), ("output", False))
    assert body.media_type == b"application/octet-stream" and body.json_bytes is not None
    first, second = json.loads(body.content[: body.json_bytes])["outputs"]
    assert (first["name"], first["shape"], second["name"]) == ("best", [2], "output")
    np.testing.assert_array_equal(np.frombuffer(body.content[body.json_bytes :], "<i8"), best)
    np.testing.assert_array_equal(np.array(second["data"], np.float32), LOGITS.ravel())


def test_an_array_that_is_not_in_rows_is_written_as_if_it_were() -> None:
    body = written(LOGITS[:, ::2], ("output", True))
    np.testing.assert_array_equal(np.frombuffer(body.content[body.json_bytes :], "<f4").reshape(2, 3), LOGITS[:, ::2])


@pytest.mark.parametrize("order", "<>")
def test_numbers_of_either_byte_order_are_written_in_the_protocol_s(order: str) -> None:
    body = written(LOGITS.astype(f"{order}f4"), ("output", True))
    assert json.loads(body.content[: body.json_bytes])["outputs"][0]["datatype"] == "FP32"
    np.testing.assert_array_equal(np.frombuffer(body.content[body.json_bytes :], "<f4").reshape(2, 5), LOGITS)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_json_cannot_hold_is_given_as_bytes_only(number: float) -> None:
    array = np.array([[number]], np.float32)
    with pytest.raises(Refusal, match="not finite") as refusal:
        written(array, ("output", False))
    assert refusal.value.status == 500
    body = written(array, ("output", True))
    np.testing.assert_array_equal(np.frombuffer(body.content[body.json_bytes :], "<f4"), array[0])


def test_what_is_known_from_a_response_before_is_said_of_the_next_as_it_is() -> None:
    """Other numbers, times, widths, shapes, names and identities in turn, each against one that knows nothing."""
    known = Responses("net")
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (LOGITS, "output", {}),
        (LOGITS + 1, "output", {"name": "1", "width": 1.0, "queued_ms": 0.0004, "computed_ms": 1234.5}),
        (LOGITS[:1], "output", {"late": True}),
        (LOGITS, "other", {"name": "slim", "width": None}),
        (LOGITS.astype(np.float64), "output", {"batch": 1}),
        ({"output": LOGITS}, "output", {}),
    ]
    for output, name, changes in 2 * kinds:
        values: dict[str, Any] = {"width": 0.5, "name": "0.5", "batch": 8, "queued_ms": 1.23456, "computed_ms": 2.0}
        request = InferRequest(images(2), (Wanted(name, True),), id=f'"{name}"')
        answer = Answer(output if name == "output" else {name: output}, **{**values, **changes})
        body = known.write(request, answer)
        assert body == Responses("net").write(request, answer)
        said = json.loads(body.content[: body.json_bytes])
        assert (said["id"], said["parameters"]["late"]) == (f'"{name}"', answer.late)
        assert said["parameters"]["width"] == (answer.name if answer.width is None else answer.width)
        assert said["parameters"]["queued_ms"] == round(answer.queued_ms, 3)
        array = answer.output[name] if isinstance(answer.output, dict) else answer.output
        (described,) = said["outputs"]
        assert described["shape"] == list(array.shape)
        got = np.frombuffer(body.content[body.json_bytes :], array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(got, array)
