"""Arguments of an application: texts of `serve run`, values of a YAML file, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from slimexport.target.serving.ray_app.application import app
from slimexport.target.serving.ray_app.arguments import READERS, read_arguments
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError


def test_texts_and_yaml_s_values_are_read_alike() -> None:
    texts = {"bundle": "b", "slo_ms": "20", "widths": "0.25,1.0,x0_5", "batches": "1,8", "queue": "10", "cpus": "0.5"}
    values = {"bundle": "b", "slo_ms": 20, "widths": [0.25, 1.0, "x0_5"], "batches": [1, 8], "queue": 10, "cpus": 0.5}
    read = read_arguments(texts)
    assert read == read_arguments(values)
    assert read == {**values, "slo_ms": 20.0}
    assert [type(read[name]) for name in ("slo_ms", "queue")] == [float, int]


def test_one_width_alone_is_a_list_too() -> None:
    assert read_arguments({"bundle": "b", "widths": 0.5})["widths"] == [0.5]
    assert read_arguments({"bundle": "b", "widths": "0.5"})["widths"] == [0.5]


def test_every_option_of_runtime_and_application_can_be_given() -> None:
    """All but what only Python can say."""
    of_app = set(inspect.signature(app).parameters) - {"options", "scaling"}
    of_runtime = set(inspect.signature(Runtime).parameters)
    assert of_runtime | of_app == set(READERS)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({}, ["no bundle", "bundle=DIR"]),
        ({"bundel": "b"}, ["'bundel'", "not known", "did you mean 'bundle'"]),
        ({"bundle": ""}, ["bundle", "expected a text"]),
        ({"bundle": 3}, ["bundle", "expected a text"]),
        ({"bundle": "b", "slo_ms": "soon"}, ["slo_ms", "'soon'", "expected a number"]),
        ({"bundle": "b", "slo_ms": True}, ["slo_ms", "True", "expected a number"]),
        ({"bundle": "b", "slo_ms": "nan"}, ["slo_ms", "'nan'", "expected a number"]),
        ({"bundle": "b", "queue": "1.5"}, ["queue", "expected a whole number"]),
        ({"bundle": "b", "batches": "1,two"}, ["batches", "expected a whole number"]),
        ({"bundle": "b", "widths": [[]]}, ["widths", "expected a text"]),
    ],
)
def test_what_is_none_is_one_line(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_arguments(arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
