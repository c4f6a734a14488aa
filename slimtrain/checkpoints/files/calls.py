"""The calls that a checkpoint may make: each rebuilds a plain value or describes a tensor, and is ours, not torch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slimtrain.checkpoints.files.claims import Claim, Damaged, ElementType, Storage, odd_tensor
from slimtrain.checkpoints.files.inert import Inert, InertType, Refused

SIMPLE = (str, int, float, bytes, type(None))  # keys of dictionaries; bool is an int


@dataclass(frozen=True)
class Call:
    """A function that a file may call, by its full name."""

    name: str
    function: Callable[..., Any]


def fill(table: dict[Any, Any], key: Any, value: Any) -> None:
    """`table[key] = value`, for keys whose hash is soon had: of tuples within tuples within tuples it is a recursion."""
    flat = isinstance(key, tuple) and all(isinstance(part, SIMPLE) for part in key)
    if not flat and not isinstance(key, (*SIMPLE, Inert, InertType)):
        raise Damaged(f"a {type(key).__name__} as a key")
    table[key] = value


def _dictionary(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        fill(table, key, value)
    return table


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """As protocol 2 holds bytes and bytearrays: a text of as many letters."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or str(encoding).lower().replace("-", "").replace("_", "") not in ("latin1", "iso88591"):
        raise Refused(f"the file encodes a {type(text).__name__}")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: whether a gradient was wanted, and hooks, go by. What comes
    after these may say that numbers are stored conjugate or negative."""
    return _described(storage, getattr(storage, "elements", None), offset, size, stride, rest[2:])


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, elements: Any, *rest: Any) -> Any:
    """`torch._utils._rebuild_tensor_v3`, which says the type itself."""
    return _described(storage, elements, offset, size, stride, rest)


def _described(storage: Any, elements: Any, offset: Any, size: Any, stride: Any, rest: tuple[Any, ...]) -> Any:
    if not isinstance(storage, Storage) or not isinstance(elements, ElementType):
        raise Damaged("a tensor without a storage or a type")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise Damaged("a tensor without a size or strides")
    if elements.plain is None:
        return odd_tensor(f"a {elements.name}", size)
    if any(rest):
        return odd_tensor("a conjugate or negative", size)
    return Claim(storage, elements, offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    """Of a parameter its tensor."""
    return value


def _as_type(call: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a tensor of another class, with attributes, neither of which are taken over."""
    if not isinstance(call, Call) or not isinstance(arguments, tuple):
        raise Refused("the file calls torch._tensor._rebuild_from_type_v2")
    return call.function(*arguments)


def _odd(kind: str, size: int | None = None) -> Callable[..., Any]:
    """A call that makes a tensor of this kind; which of its arguments tells its size."""
    return lambda *arguments: odd_tensor(kind, arguments[size] if size is not None and size < len(arguments) else ())


def _sparse(_: Any = None, data: Any = (), *__: Any) -> Any:
    """`torch._utils._rebuild_sparse_tensor`: of (indices, values, size, ...)."""
    sizes = [part for part in data if isinstance(part, tuple)] if isinstance(data, tuple) else []
    return odd_tensor("a sparse", sizes[0] if sizes else ())


UTILS: Mapping[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_qtensor": _odd("a quantized", 2),
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_nested_tensor": _odd("a nested"),
    "_rebuild_meta_tensor_no_storage": _odd("an empty (meta)", 1),
    "_rebuild_wrapper_subclass": _odd("a wrapped", 2),
    "_rebuild_device_tensor_from_numpy": _odd("another device's"),
    "_rebuild_device_tensor_from_cpu_tensor": _first,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "_codecs.encode": _bytes,
    "builtins.bytearray": _bytes,
    "torch.Size": tuple,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._tensor._rebuild_from_type_v2": _as_type,
    **{f"torch._utils.{name}": function for name, function in UTILS.items()},
}
KNOWN: Mapping[str, Call] = {name: Call(name, function) for name, function in FUNCTIONS.items()}
