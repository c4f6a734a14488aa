"""Requests as bytes: what they mean, and that whatever is wrong with one is a line, and a status of the 400s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.http import infer_request
from slimexport.target.serving.http.infer_request import (
    MOST_KNOWN,
    MOST_WORDS,
    InferRequest,
    Repeated,
    Wanted,
    header_length,
    read_request,
)
from slimexport.target.serving.http.refusals import Refusal
from slimexport.target.tensors import Result
from tests.support.bundle_helpers import artifact, manifest
from tests.support.http_serving import CLASSES, NETWORK, SHAPE, SIZE, Array, images

LARGEST = 4
MANIFEST = manifest(artifact(), network=NETWORK, image_size=SIZE, classes=CLASSES)
SEVERAL = manifest(
    artifact(),
    image_size=SIZE,
    classes=CLASSES,
    outputs=(
        Result(name="output", shape=("batch", CLASSES), dtype="float32"),
        Result(name="best", shape=("batch",), dtype="int64"),
    ),
)


def tensor(array: Array, **changes: Any) -> dict[str, Any]:
    """An input whose numbers are in the JSON."""
    plain = {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return {key: value for key, value in {**plain, **changes}.items() if value is not None}


def as_bytes(array: Array, **changes: Any) -> dict[str, Any]:
    """An input whose numbers are behind the JSON."""
    return tensor(array, **{"data": None, "parameters": {"binary_data_size": array.nbytes}, **changes})


def read(request: Any, tensors: bytes | None = None, described: Any = MANIFEST) -> InferRequest:
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return read_request(text + (tensors or b""), None if tensors is None else len(text), described, LARGEST)


# ------------------------------------------------------------------------------------------------------------- it reads


def test_numbers_in_one_list_are_the_tensor_row_by_row() -> None:
    array = images(2)
    request = read({"inputs": [tensor(array)]})
    assert request.images.dtype == np.float32
    np.testing.assert_array_equal(request.images, array)


def test_numbers_nested_as_the_shape_are_the_same() -> None:
    array = images(2)
    np.testing.assert_array_equal(read({"inputs": [tensor(array, data=array.tolist())]}).images, array)


@pytest.mark.parametrize("pad", range(4))
def test_bytes_behind_the_json_are_little_endian_wherever_they_begin(pad: int) -> None:
    array = images(3)
    text = json.dumps({"inputs": [as_bytes(array)], "id": "x" * pad}).encode()
    request = read_request(text + array.astype("<f4").tobytes(), len(text), MANIFEST, LARGEST)
    np.testing.assert_array_equal(request.images, array)
    assert request.images.flags.aligned and request.images.flags.c_contiguous


def test_a_body_without_json_is_the_tensor_and_the_answer_is_bytes() -> None:
    array = images(2)
    request = read_request(array.tobytes(), 0, MANIFEST, LARGEST)
    np.testing.assert_array_equal(request.images, array)
    assert request.outputs == (Wanted("output", True),)


def test_an_image_of_the_usual_size_is_read_from_json() -> None:
    """150,528 numbers."""
    large = manifest(artifact(), image_size=224, classes=CLASSES)
    array = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    np.testing.assert_array_equal(read({"inputs": [tensor(array)]}, described=large).images, array)


@pytest.mark.parametrize(
    ("parameters", "deadline_ms"),
    [({}, None), ({"timeout": 0}, None), ({"timeout": 20_000}, 20.0), ({"timeout": 1500}, 1.5), (None, None)],
)
def test_timeout_is_microseconds_and_0_is_the_server_s_own(parameters: Any, deadline_ms: float | None) -> None:
    assert read({"inputs": [tensor(images(1))], "parameters": parameters}).deadline_ms == deadline_ms


def test_outputs_come_as_they_are_asked_for() -> None:
    inputs = [tensor(images(1))]

    def wanted(**request: Any) -> list[tuple[str, bool]]:
        return [(output.name, output.binary) for output in read({"inputs": inputs, **request}, described=SEVERAL).outputs]

    assert wanted() == [("output", False), ("best", False)]
    assert wanted(parameters={"binary_data_output": True}) == [("output", True), ("best", True)]
    asked = [{"name": "best", "parameters": {"binary_data": False}}, {"name": "output"}]
    assert wanted(outputs=asked, parameters={"binary_data_output": True}) == [("best", False), ("output", True)]


def test_parameters_that_nobody_knows_are_ignored() -> None:
    assert read({"inputs": [tensor(images(1))], "id": "7", "parameters": {"priority": 3, "mine": "x"}}).id == "7"


# ---------------------------------------------------------------------------------------------------------- it refuses

ONE = images(1)
GOOD = tensor(ONE)
NUMBERS = ONE.size
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "no JSON"),
    "half a request": (b'{"inputs": [', "no JSON"),
    "no UTF-8": (b"\xff\xfe", "UTF-8"),
    "a list": ([], "object"),
    "a number": (b"7", "object"),
    "NaN": ({"inputs": [{**GOOD, "data": [float("nan")] * NUMBERS}]}, "NaN is no number of JSON"),
    "infinity": (b'{"inputs": Infinity}', "Infinity is no number"),
    "a number beyond float64": (b'{"inputs": [{"shape": [1e999]}]}', "out of range"),
    "a number of 5,000 digits": (b'{"id": ' + b"9" * 5000 + b"}", "out of range"),
    "half a letter": (rb'{"id": "\ud800"}', "half a letter"),
    "100,000 lists": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    "no inputs": ({}, "inputs"),
    "inputs of another kind": ({"inputs": {"input": 1}}, "inputs"),
    "no tensor": ({"inputs": []}, "0 tensors, expected one"),
    "two tensors": ({"inputs": [GOOD, GOOD]}, "2 tensors, expected one"),
    "a tensor that is a text": ({"inputs": ["input"]}, "inputs[0]"),
    "another name": ({"inputs": [{**GOOD, "name": "image"}]}, "'image', expected 'input'"),
    "a name that is a list": ({"inputs": [{**GOOD, "name": []}]}, "expected 'input'"),
    "another number type": ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "'FP64', expected FP32"),
    "no shape": ({"inputs": [tensor(ONE, shape=None)]}, "[N, 3, 4, 4]"),
    "an image without its N": ({"inputs": [{**GOOD, "shape": list(SHAPE)}]}, "[N, 3, 4, 4]"),
    "another shape": ({"inputs": [{**GOOD, "shape": [1, 4, 4, 3]}]}, "[N, 3, 4, 4]"),
    "a shape of truths": ({"inputs": [{**GOOD, "shape": [True, 3, 4, 4]}]}, "[N, 3, 4, 4]"),
    "a shape of fractions": ({"inputs": [{**GOOD, "shape": [1.0, 3, 4, 4]}]}, "[N, 3, 4, 4]"),
    "no rows": ({"inputs": [{**GOOD, "shape": [0, *SHAPE], "data": []}]}, "0 rows, a run takes 1 to 4"),
    "rows below 0": ({"inputs": [{**GOOD, "shape": [-1, *SHAPE]}]}, "-1 rows"),
    "more rows than a run takes": ({"inputs": [tensor(images(5))]}, "5 rows, a run takes 1 to 4. Send fewer"),
    "rows without end": ({"inputs": [{**GOOD, "shape": [2**62, *SHAPE]}]}, "a run takes 1 to 4"),
    "too few numbers": ({"inputs": [{**GOOD, "data": [0.0] * (NUMBERS - 1)}]}, f"has {NUMBERS - 1} numbers"),
    "too many numbers": ({"inputs": [{**GOOD, "data": [0.0] * (NUMBERS + 1)}]}, f"has {NUMBERS + 1} numbers"),
    "no numbers": ({"inputs": [{**GOOD, "data": []}]}, "has 0 numbers"),
    "no data": ({"inputs": [tensor(ONE, data=None)]}, "no data"),
    "data of texts": ({"inputs": [{**GOOD, "data": ["1"] * NUMBERS}]}, "holds a str"),
    "data of nothing": ({"inputs": [{**GOOD, "data": [None] * NUMBERS}]}, "holds a NoneType"),
    "data of truths": ({"inputs": [{**GOOD, "data": [True] * NUMBERS}]}, "holds a bool"),
    "data that is a text": ({"inputs": [{**GOOD, "data": "0" * NUMBERS}]}, "list of numbers"),
    "numbers beyond float32": ({"inputs": [{**GOOD, "data": [1e39] * NUMBERS}]}, "FP32 does not"),
    "nested otherwise": ({"inputs": [{**GOOD, "data": np.zeros((1, 4, 4, 3)).tolist()}]}, "not nested as its shape"),
    "nested halfway": ({"inputs": [{**GOOD, "data": np.zeros((1, 3, 16)).tolist()}]}, "not nested as its shape"),
    "nested and not": ({"inputs": [{**GOOD, "data": [0.0, [0.0]]}]}, "has 2 numbers"),
    "shared memory": ({"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    "parameters of another kind": ({"inputs": [GOOD], "parameters": [1]}, "parameters"),
    "a deadline that is a text": ({"inputs": [GOOD], "parameters": {"timeout": "20"}}, "timeout is '20'"),
    "a deadline that is true": ({"inputs": [GOOD], "parameters": {"timeout": True}}, "timeout is True"),
    "a deadline in the past": ({"inputs": [GOOD], "parameters": {"timeout": -5}}, "timeout is -5"),
    "an id that is a number": ({"inputs": [GOOD], "id": 7}, "id is 7"),
    "an id of 10,000 letters": ({"inputs": [GOOD], "id": "x" * 10_000}, "id is 'xxx"),
    "an output that is not there": ({"inputs": [GOOD], "outputs": [{"name": "logits"}]}, "'logits', expected output"),
    "an output twice": ({"inputs": [GOOD], "outputs": [{"name": "output"}, {"name": "output"}]}, "twice"),
    "an output that is a text": ({"inputs": [GOOD], "outputs": ["output"]}, "outputs[0]"),
    "outputs of another kind": ({"inputs": [GOOD], "outputs": "output"}, "outputs"),
    "classification": (
        {"inputs": [GOOD], "outputs": [{"name": "output", "parameters": {"classification": 3}}]},
        "classification, which is not served",
    ),
    "a flag that is 1": ({"inputs": [GOOD], "parameters": {"binary_data_output": 1}}, "true or false"),
    "bytes that nobody wrote": ({"inputs": [as_bytes(ONE)]}, "the body has 0 after its JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name: str) -> None:
    request, part = WRONG[name]
    with pytest.raises(Refusal) as refusal:
        read(request)
    assert refusal.value.status == 400
    assert part in str(refusal.value)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


HOSTILE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    0.5,
    2**62,
    -(2**62),
    1e308,
    "",
    "0",
    "x" * 500,
    [],
    [[]],
    [None],
    [[1]],
    {},
    {"": {}},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a value, of lists the first and the last alone."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from places(value[index], (*path, index))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


def test_whatever_stands_anywhere_in_a_request_it_is_read_or_refused() -> None:
    """Every value of a whole request in turn is each of the hostile ones."""
    whole = {
        "id": "1",
        "parameters": {"timeout": 5, "binary_data_output": True},
        "inputs": [tensor(images(2), parameters={"mine": 1})],
        "outputs": [{"name": "output", "parameters": {"binary_data": False}}],
    }
    behind = {**whole, "inputs": [as_bytes(images(2))]}
    taken, refusals = 0, []
    for request, tensors in ((whole, None), (behind, images(2).tobytes())):
        for path in places(request):
            for other in HOSTILE:
                try:
                    asked = read(replaced(request, path, other), tensors)
                except Refusal as refusal:
                    refusals.append(refusal)
                else:
                    taken += 1
                    assert asked.images.shape == (2, *SHAPE) and asked.images.dtype == np.float32
                    assert asked.deadline_ms is None or asked.deadline_ms > 0
                    assert [output.name for output in asked.outputs] == ["output"]
    assert all(refusal.status == 400 and 0 < len(str(refusal)) < 400 for refusal in refusals)
    assert taken > 20 and len(refusals) > 400


@pytest.mark.parametrize(
    ("size", "sent", "part"),
    [
        (ONE.nbytes, ONE.nbytes - 4, "takes 192 bytes, the body has 188"),
        (ONE.nbytes, ONE.nbytes + 4, "has 196 bytes after its JSON, its tensor takes 192"),
        (ONE.nbytes + 4, ONE.nbytes + 4, "binary_data_size 196, expected 192"),
        (2**62, ONE.nbytes, "expected 192"),
        (-ONE.nbytes, ONE.nbytes, "expected 192"),
        (float(ONE.nbytes), ONE.nbytes, "expected 192"),
        (True, ONE.nbytes, "expected 192"),
    ],
)
def test_bytes_are_as_many_as_the_shape_takes(size: Any, sent: int, part: str) -> None:
    request = {"inputs": [as_bytes(ONE, parameters={"binary_data_size": size})]}
    with pytest.raises(Refusal, match=part) as refusal:
        read(request, b"\0" * sent)
    assert refusal.value.status == 400


def test_a_tensor_is_in_the_json_or_behind_it() -> None:
    with pytest.raises(Refusal, match="data and binary_data_size"):
        read({"inputs": [as_bytes(ONE, data=[1.0])]}, ONE.tobytes())


def test_bytes_behind_a_tensor_in_json_are_one_too_many() -> None:
    with pytest.raises(Refusal, match="4 bytes after its JSON, its tensor takes 0"):
        read({"inputs": [GOOD]}, b"\0" * 4)


def test_more_json_than_body_is_a_lie() -> None:
    with pytest.raises(Refusal, match=r"says 11 bytes of JSON, the body has 2") as refusal:
        read_request(b"{}", 11, MANIFEST, LARGEST)
    assert refusal.value.status == 400


@pytest.mark.parametrize("size", [0, 1, 191, 193])
def test_a_body_that_is_no_number_of_tensors_is_refused(size: int) -> None:
    with pytest.raises(Refusal, match="takes 192"):
        read_request(b"\0" * size, 0, MANIFEST, LARGEST)


@pytest.mark.parametrize("header", ["", "-1", "1e3", "0x10", "1" * 13, "²", "ten"])
def test_the_length_of_the_json_is_a_number_of_bytes(header: str) -> None:
    with pytest.raises(Refusal, match="Inference-Header-Content-Length is ") as refusal:
        header_length(header.encode())
    assert refusal.value.status == 400
    assert [header_length(text) for text in (None, b"0", b" 12 ")] == [None, 0, 12]


# ------------------------------------------------------------------------------------------------------------- repeated


class Counted:
    """`read_request`, and how often it is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(infer_request, "read_request", self)

    def __call__(self, *arguments: Any) -> InferRequest:
        self.calls += 1
        return read_request(*arguments)


def words_of(array: Array, **changes: Any) -> bytes:
    asked: dict[str, Any] = {"inputs": [as_bytes(array)], "parameters": {"timeout": 1000, "binary_data_output": True}}
    return json.dumps({**asked, **changes}).encode()


def test_words_that_came_before_mean_the_same_of_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, repeated = Counted(monkeypatch), Repeated(MANIFEST, LARGEST)
    kinds: list[tuple[int, dict[str, Any]]] = [(1, {}), (2, {}), (1, {"id": "mine"}), (1, {"parameters": {}})]
    for seed, (count, changes) in enumerate(2 * kinds):
        array = images(count, seed)
        words = words_of(array, **changes)
        body = memoryview(words + array.tobytes())
        request, expected = repeated.read(body, len(words)), read_request(bytes(body), len(words), MANIFEST, LARGEST)
        np.testing.assert_array_equal(request.images, array)
        assert request.images.dtype == np.float32 and request.images.flags.c_contiguous
        assert (request.outputs, request.id, request.deadline_ms) == (expected.outputs, expected.id, expected.deadline_ms)
    assert counted.calls == 4, "each was read once"


@pytest.mark.parametrize("change", [-4, -1, 1, 4, -images(1).nbytes])
def test_words_that_came_before_are_refused_with_another_tensor_than_they_say(change: int) -> None:
    repeated, array = Repeated(MANIFEST, LARGEST), images(1)
    words = words_of(array)
    repeated.read(words + array.tobytes(), len(words))
    body = words + (array.tobytes() + bytes(8))[: array.nbytes + change]
    with pytest.raises(Refusal) as expected:
        read_request(body, len(words), MANIFEST, LARGEST)
    with pytest.raises(Refusal) as refusal:
        repeated.read(body, len(words))
    assert str(refusal.value) == str(expected.value)


def test_a_request_that_is_refused_is_refused_again() -> None:
    repeated, array = Repeated(MANIFEST, LARGEST), images(LARGEST + 1)
    words = words_of(array)
    for _ in range(2):
        with pytest.raises(Refusal, match="5 rows, a run takes 1 to 4"):
            repeated.read(words + array.tobytes(), len(words))


def test_numbers_in_json_and_bare_tensors_are_read_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, repeated, array = Counted(monkeypatch), Repeated(MANIFEST, LARGEST), images(1)
    text = json.dumps({"inputs": [tensor(array)]}).encode()
    for body, json_bytes in ((text, None), (text, len(text)), (array.tobytes(), 0)):
        for _ in range(2):
            np.testing.assert_array_equal(repeated.read(body, json_bytes).images, array)
    assert counted.calls == 6


def test_few_are_remembered_and_none_that_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the memory by never saying the same."""
    counted, repeated, array = Counted(monkeypatch), Repeated(MANIFEST, LARGEST), images(1)

    def ask(words: bytes) -> int:
        before = counted.calls
        repeated.read(words + array.tobytes(), len(words))
        return counted.calls - before

    every = [words_of(array, id=str(number)) for number in range(MOST_KNOWN + 1)]
    assert sum(map(ask, every)) == len(every)
    assert [ask(every[-1]), ask(every[1]), ask(every[0])] == [0, 0, 1], "the first made room for the last"
    long = words_of(array) + b" " * MOST_WORDS
    assert ask(long) + ask(long) == 2
