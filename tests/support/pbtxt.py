"""Triton's `config.pbtxt`, read by a strict parser of protobuf's text format against the fields and types of
model_config.proto."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """A message of model_config.proto, as far as it may be used here: scalar fields with their types, enumerations by their
    values, messages; which are repeated, and which exclude each other."""

    fields: dict[str, Any]
    repeated: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    one_of: frozenset[str] = field(default_factory=frozenset)


DATA_TYPE = (
    "TYPE_FP32",
    "TYPE_FP16",
    "TYPE_BF16",
    "TYPE_INT8",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_UINT8",
    "TYPE_BOOL",
    "TYPE_STRING",
)
RESHAPE = Message({"shape": int}, frozenset({"shape"}))
TENSOR = Message(
    {"name": str, "data_type": DATA_TYPE, "dims": int, "reshape": RESHAPE, "label_filename": str},
    frozenset({"dims"}),
    frozenset({"name", "data_type", "dims"}),
)
WARMUP_INPUT = Message(
    {"data_type": DATA_TYPE, "dims": int, "zero_data": bool, "random_data": bool, "input_data_file": str},
    frozenset({"dims"}),
    frozenset({"data_type", "dims"}),
    frozenset({"zero_data", "random_data", "input_data_file"}),
)
MODEL_CONFIG = Message(
    {
        "name": str,
        "platform": str,
        "backend": str,
        "max_batch_size": int,
        "input": TENSOR,
        "output": TENSOR,
        "dynamic_batching": Message(
            {"preferred_batch_size": int, "max_queue_delay_microseconds": int}, frozenset({"preferred_batch_size"})
        ),
        "instance_group": Message(
            {"count": int, "kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU"), "gpus": int}, frozenset({"gpus"})
        ),
        "model_warmup": Message(
            {
                "name": str,
                "batch_size": int,
                "inputs": Message({"key": str, "value": WARMUP_INPUT}, required=frozenset({"key", "value"})),
                "count": int,
            },
            frozenset({"inputs"}),
            frozenset({"name", "batch_size", "inputs"}),
        ),
        "parameters": Message({"key": str, "value": Message({"string_value": str})}, required=frozenset({"key", "value"})),
    },
    frozenset({"input", "output", "instance_group", "model_warmup", "parameters"}),
    frozenset({"name", "max_batch_size", "input", "output"}),
    frozenset({"platform", "backend"}),
)
TOKEN = re.compile(
    r'(?P<space>\s+|#[^\n]*)|(?P<string>"[^"\\\n]*")|(?P<number>-?\d+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[][{}:,])'
)


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each token; ValueError for a character that belongs to none."""
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"no token at {text[at : at + 20]!r}")
        at = match.end()
        if match.lastgroup != "space":
            assert match.lastgroup is not None
            yield match.lastgroup, match.group()
    yield "end", ""


class Parser:
    """Recursive descent; ValueError for anything that protobuf would refuse, and for what is set twice or missing."""

    def __init__(self, text: str) -> None:
        self.left = list(tokens(text))

    def take(self, kind: str, text: str | None = None) -> str:
        token = self.left.pop(0)
        if token[0] != kind or text not in (None, token[1]):
            raise ValueError(f"found {token}, expected {kind} {text or ''}")
        return token[1]

    def next_is(self, text: str) -> bool:
        return self.left[0] == ("mark", text)

    def message(self, kind: Message, closing: str | None) -> dict[str, Any]:
        """Fields up to `closing`, or to the end of the text."""
        fields: dict[str, Any] = {}
        while self.left[0][0] != "end" if closing is None else not self.next_is(closing):
            name = self.take("word")
            if name not in kind.fields:
                raise ValueError(f"unknown field {name}")
            values = self.values(kind.fields[name], name in kind.repeated)
            if name in kind.repeated:
                fields.setdefault(name, []).extend(values)
            elif name in fields:
                raise ValueError(f"{name} is set twice")
            else:
                (fields[name],) = values
        self.take("end") if closing is None else self.take("mark", closing)
        missing = kind.required - fields.keys()
        if missing or len(kind.one_of & fields.keys()) > 1:
            raise ValueError(f"missing {sorted(missing)}, or more than one of {sorted(kind.one_of)}")
        return fields

    def values(self, kind: Any, repeated: bool) -> list[Any]:
        if self.next_is(":"):
            self.take("mark", ":")
        elif not isinstance(kind, Message):
            raise ValueError("a scalar without a colon")
        if not self.next_is("["):
            return [self.value(kind)]
        if not repeated:
            raise ValueError("a list for a field that is not repeated")
        self.take("mark", "[")
        values = []
        while not self.next_is("]"):
            values.append(self.value(kind))
            if not self.next_is("]"):
                self.take("mark", ",")
                if self.next_is("]"):
                    raise ValueError("a comma at the end of a list")
        self.take("mark", "]")
        return values

    def value(self, kind: Any) -> Any:
        if isinstance(kind, Message):
            self.take("mark", "{")
            return self.message(kind, "}")
        if kind is str:
            return self.take("string")[1:-1]
        if kind is int:
            return int(self.take("number"))
        word = self.take("word")
        if kind is bool:
            return {"true": True, "false": False}[word]
        if word not in kind:
            raise ValueError(f"{word} is none of {kind}")
        return word


def parse(text: str) -> dict[str, Any]:
    """The fields of a `config.pbtxt`."""
    return Parser(text).message(MODEL_CONFIG, None)
