"""A request for inference, from the bytes of its body: JSON, or JSON and then tensors (Open Inference Protocol, KServe v2,
with Triton's binary tensor data extension).

`timeout` among the parameters is the deadline, in microseconds, as in Triton; 0 or none is the server's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.manifest import Manifest
from slimexport.target.serving.http.datatypes import FP32
from slimexport.target.serving.http.refusals import bad
from slimtrain.base.text import count, some
from slimtrain.base.untrusted.json_text import JsonError, parse_json
from slimtrain.base.untrusted.quoting import quoted

Bytes: TypeAlias = "bytes | memoryview"
HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH = re.compile(rb"\d{1,12}")
LITTLE = np.dtype("<f4")
BYTES = LITTLE.itemsize
MOST_ID = 1000  # letters
US_PER_MS = 1000.0
MOST_KNOWN, MOST_WORDS = 32, 1 << 12  # requests, and bytes of JSON of each
NONE: Array = np.empty(0, np.float32)


class Wanted(NamedTuple):
    """An output that is asked for, as bytes or as JSON."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """`images` float32 [N, ...]; `deadline_ms` is None where the server's is meant."""

    images: Array
    outputs: tuple[Wanted, ...]
    id: str | None = None
    deadline_ms: float | None = None


def header_length(header: bytes | None) -> int | None:
    """How many bytes of a body are JSON, as its header says; None where all are. 0: none are."""
    if header is None:
        return None
    if not LENGTH.fullmatch(header.strip()):
        raise bad(f"{HEADER_LENGTH} is {quoted(header.decode('latin-1'))}, expected a number of bytes.")
    return int(header)


def read_request(body: Bytes, json_bytes: int | None, manifest: Manifest, largest: int) -> InferRequest:
    """The request in a body, the first `json_bytes` of which are JSON (None: all), for at most `largest` images. Refusal
    otherwise."""
    if json_bytes == 0:
        return _raw(body, manifest)
    if json_bytes is not None and json_bytes > len(body):
        raise bad(f"{HEADER_LENGTH} says {json_bytes:,} bytes of JSON, the body has {len(body):,}.")
    start = len(body) if json_bytes is None else json_bytes
    try:
        content = parse_json(str(body[:start], "utf-8"), "the request")
    except UnicodeDecodeError:
        raise bad(f"the request is no UTF-8. One with tensors as bytes has the header {HEADER_LENGTH}.") from None
    except JsonError as error:
        raise bad(f"{error}.") from None
    request = _of(content, dict, "the request", "an object with inputs")
    parameters = _parameters(request, "the request")
    images, end = _input(request, body, start, manifest, largest)
    if end != len(body):
        raise bad(f"the body has {len(body) - start:,} bytes after its JSON, its tensor takes {end - start:,}.")
    binary = _flag(parameters, "binary_data_output", False)
    return InferRequest(images, _outputs(request, manifest, binary), _id(request), _deadline_ms(parameters))


class Repeated:
    """Requests whose JSON came before: most clients send the same with every tensor, and reading it takes longer than all else
    that is done with a request. The last few are known. Used on one thread."""

    def __init__(self, manifest: Manifest, largest: int) -> None:
        self._manifest, self._largest = manifest, largest
        self._known: dict[bytes, tuple[tuple[int, ...], int, InferRequest]] = {}  # with the tensor's shape and bytes

    def read(self, body: Bytes, json_bytes: int | None) -> InferRequest:
        """As `read_request`."""
        rest = len(body) - (json_bytes or 0)
        if not json_bytes or rest <= 0 or json_bytes > MOST_WORDS:
            return read_request(body, json_bytes, self._manifest, self._largest)
        words = bytes(body[:json_bytes])
        if (known := self._known.get(words)) is not None and known[1] == rest:
            shape, _, like = known
            return InferRequest(_floats(body, json_bytes, shape), like.outputs, like.id, like.deadline_ms)
        request = read_request(body, json_bytes, self._manifest, self._largest)
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[words] = (request.images.shape, rest, request._replace(images=NONE))
        return request


def _raw(body: Bytes, manifest: Manifest) -> InferRequest:
    """A body that is the tensor, and nothing else."""
    shape = manifest.input.input_shape
    images, rest = divmod(len(body), math.prod(shape) * BYTES)
    if rest or not images:
        raise bad(
            f"a body of {len(body):,} bytes is no number of inputs: one, of {_sizes(shape)} {FP32}, takes "
            f"{math.prod(shape) * BYTES:,}."
        )
    return InferRequest(_floats(body, 0, (images, *shape)), _outputs({}, manifest, True))


# ------------------------------------------------------------------------------------------------------------- tensors


def _input(request: Mapping[str, Any], body: Bytes, start: int, manifest: Manifest, largest: int) -> tuple[Array, int]:
    """The input, and where it ends in the body."""
    tensors = _of(request.get("inputs"), list, "inputs", f"a list of one tensor, {manifest.input.name!r}")
    if len(tensors) != 1:
        raise bad(f"inputs: {len(tensors)} tensors, expected one, {manifest.input.name!r}.")
    tensor = _of(tensors[0], dict, "inputs[0]", "an object")
    if tensor.get("name") != manifest.input.name:
        raise bad(f"inputs[0] is called {quoted(tensor.get('name'))}, expected {manifest.input.name!r}.")
    what = f"input {manifest.input.name!r}"
    if tensor.get("datatype") != FP32:
        raise bad(
            f"{what} has datatype {quoted(tensor.get('datatype'))}, expected {FP32}, normalized as the bundle's manifest says."
        )
    shape = _shape(tensor.get("shape"), what, manifest.input.input_shape, largest)
    parameters = _parameters(tensor, what)
    if "shared_memory_region" in parameters:
        raise bad(f"{what} is in shared memory, which is not served. Send it in the body.")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise bad(f"{what} has no data, and no binary_data_size.")
        return _numbers(tensor["data"], what, shape), start
    expected = math.prod(shape) * BYTES
    if "data" in tensor:
        raise bad(f"{what} has data and binary_data_size, expected one of them.")
    if type(size) is not int or size != expected:
        raise bad(f"{what} has binary_data_size {quoted(size)}, expected {expected}: {_sizes(shape)} {FP32}.")
    if start + size > len(body):
        raise bad(f"{what} takes {size:,} bytes, the body has {len(body) - start:,} after its JSON.")
    return _floats(body, start, shape), start + size


def _shape(value: Any, what: str, own: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """[N, *own], N from 1 to the largest batch."""
    wanted = ", ".join(map(str, own))
    if type(value) is not list or any(type(size) is not int for size in value) or tuple(value[1:]) != own:
        raise bad(f"{what} has shape {quoted(value)}, expected [N, {wanted}].")
    if not 1 <= value[0] <= largest:
        raise bad(f"{what} has {value[0]} rows, a run takes 1 to {largest}. Send fewer at once.")
    return tuple(value)


def _floats(body: Bytes, start: int, shape: tuple[int, ...]) -> Array:
    """Little-endian float32 of a body, not copied where it lies as numpy wants it."""
    values: Array = np.ndarray(shape, LITTLE, body, start)
    if LITTLE.isnative and values.flags.aligned:
        return values  # as mostly
    return np.require(values, np.float32, ["C", "A"])


def _numbers(data: Any, what: str, shape: tuple[int, ...]) -> Array:
    """Numbers of JSON, in one list, or in lists as the shape has them."""
    row = _of(data, list, f"{what}: data", "a list of numbers")
    if row and type(row[0]) is list:
        fits = len(row) == shape[0]
        for size in shape[1:]:
            if not (fits := fits and all(type(part) is list and len(part) == size for part in row)):
                raise bad(f"{what}: data is not nested as its shape says, {_sizes(shape)}.")
            row = list(chain.from_iterable(row))
    if len(row) != math.prod(shape):
        raise bad(f"{what} has {count(len(row), 'number')}, its shape {_sizes(shape)} takes {math.prod(shape):,}.")
    if others := set(map(type, row)) - {int, float}:
        raise bad(f"{what}: data holds a {min(kind.__name__ for kind in others)}, expected numbers.")
    with np.errstate(over="ignore"):
        values = np.array(row, np.float64).astype(np.float32)
    if not np.isfinite(values).all():
        raise bad(f"{what}: data holds a number that {FP32} does not.")
    return values.reshape(shape)


# -------------------------------------------------------------------------------------------------------------- the rest


def _outputs(request: Mapping[str, Any], manifest: Manifest, binary: bool) -> tuple[Wanted, ...]:
    """Those asked for, in that order; all where none are."""
    names = [result.name for result in manifest.results]
    asked = _of(request.get("outputs") or [], list, "outputs", "a list")
    wanted = []
    for number, output in enumerate(asked):
        name = _of(output, dict, f"outputs[{number}]", "an object").get("name")
        if name not in names:
            raise bad(f"outputs[{number}] is called {quoted(name)}, expected {some(names)}.")
        parameters = _parameters(output, f"output {name!r}")
        for other, remedy in (
            ("classification", "It gives numbers only."),
            ("shared_memory_region", "Read it from the body."),
        ):
            if parameters.get(other):
                raise bad(f"output {name!r} is asked for with {other}, which is not served. {remedy}")
        wanted.append(Wanted(name, _flag(parameters, "binary_data", binary)))
    if len({output.name for output in wanted}) != len(wanted):
        raise bad("outputs: one is asked for twice.")
    return tuple(wanted) or tuple(Wanted(name, binary) for name in names)


def _id(request: Mapping[str, Any]) -> str | None:
    value = request.get("id")
    if value is not None and (type(value) is not str or len(value) > MOST_ID):
        raise bad(f"id is {quoted(value)}, expected a text of up to {MOST_ID} letters.")
    return value


def _deadline_ms(parameters: Mapping[str, Any]) -> float | None:
    value = parameters.get("timeout", 0)
    if type(value) not in (int, float) or value < 0:
        raise bad(f"timeout is {quoted(value)}, expected microseconds, 0 or more.")
    return value / US_PER_MS if value else None


def _parameters(holder: Mapping[str, Any], what: str) -> dict[str, Any]:
    return _of(holder.get("parameters") or {}, dict, f"{what}: parameters", "an object")


def _flag(parameters: Mapping[str, Any], name: str, usual: bool) -> bool:
    return _of(parameters.get(name, usual), bool, name, "true or false")


def _of(value: Any, kind: Callable[..., Any], what: str, expected: str) -> Any:
    if type(value) is not kind:
        raise bad(f"{what}: {quoted(value)}, expected {expected}.")
    return value


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
