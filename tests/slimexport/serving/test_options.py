"""What goes with `--serve`, and what the options stand for."""

from __future__ import annotations

import inspect
from typing import Any

import click
import pytest

from slimexport.serving import options as module
from slimexport.serving.options import ServingOptions, one_precision
from slimexport.target.serving import scheduling
from slimexport.target.serving.policy import DEFAULT
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError
from tests.support.export_helpers import refused, run

NONE: dict[str, Any] = dict.fromkeys(("slo_ms", "policy", "host", "port", "late", "queue", "profile", "threads"))


def options(**given: Any) -> ServingOptions:
    return ServingOptions(**{"serve": False, "adaptive": False, "demo": False, **NONE, **given})


def test_the_defaults_that_help_tells_are_the_runtime_s() -> None:
    parameters = inspect.signature(Runtime).parameters
    usual = {name: parameters[name].default for name in ("slo_ms", "queue", "late", "policy")}
    assert usual == {"slo_ms": module.SLO_MS, "queue": module.QUEUE, "late": module.LATE[0], "policy": DEFAULT}
    assert scheduling.LATE == module.LATE


def test_what_was_given_goes_to_the_runtime_and_nothing_else() -> None:
    assert options(serve=True).of_runtime == {}
    given = options(serve=True, slo_ms=20.0, policy="slackfit", late="serve", queue=5, threads=2, port=0, profile="p.jsonl")
    assert given.of_runtime == {
        "slo_ms": 20.0,
        "policy": "slackfit",
        "late": "serve",
        "queue": 5,
        "threads": 2,
        "profile": "p.jsonl",
    }
    assert set(given.of_runtime) <= set(inspect.signature(Runtime).parameters)
    assert given.chosen_policy == {"slo_ms": 20.0, "policy": "slackfit"}


def test_it_listens_for_this_machine_alone_unless_it_is_told_otherwise() -> None:
    assert options(serve=True).address == ("127.0.0.1", 8000)
    assert options(serve=True, host="0.0.0.0", port=0).address == ("0.0.0.0", 0)


@pytest.mark.parametrize(
    "given",
    [{"slo_ms": 1.0}, {"policy": "drain"}, {"port": 0}, {"host": "::"}, {"late": "serve"}, {"queue": 1}, {"demo": True}],
)
def test_an_option_of_serving_goes_with_serve(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(click.UsageError, match=f"--{name.replace('_', '-')} goes with --serve"):
        options(**given).check_serving(bundle=True, triton=True)
    options(serve=True, **given).check_serving(bundle=True, triton=False)


def test_an_adaptive_repository_takes_a_deadline_and_a_policy() -> None:
    options(adaptive=True, slo_ms=1.0, policy="drain").check_serving(bundle=True, triton=True)
    with pytest.raises(click.UsageError, match="--queue goes with --serve"):
        options(adaptive=True, queue=1).check_serving(bundle=True, triton=True)
    with pytest.raises(click.UsageError, match="--adaptive goes with"):
        options(adaptive=True).check_serving(bundle=True, triton=False)


@pytest.mark.parametrize("slo_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_is_a_time(slo_ms: float) -> None:
    with pytest.raises(UserError, match="expected milliseconds above 0"):
        options(serve=True, slo_ms=slo_ms).check_serving(bundle=True, triton=False)


def test_one_precision_is_served() -> None:
    assert one_precision(["fp16"], "--serve") == "fp16"
    with pytest.raises(UserError, match="--serve takes one"):
        one_precision(["fp32", "fp16"], "--serve")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--serve"], ["--serve goes with --bundle"]),
        (["--ckpt", "x.pt", "--serve"], ["--serve goes with --bundle"]),
        (["--bundle", "none", "--port", "1"], ["--port goes with --serve"]),
        (["--bundle", "none", "--serve", "--port", "70000"], ["70000"]),
        (["--bundle", "none", "--serve", "--queue", "0"], ["--queue"]),
        (["--bundle", "none", "--serve", "--late", "never"], ["refuse"]),
        (["--bundle", "none", "--serve", "--precision", "fp32,fp16"], ["--serve takes one"]),
        (["--bundle", "none", "--serve", "--slo-ms", "nan"], ["milliseconds above 0"]),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], parts: list[str]) -> None:
    refused(run(*arguments), 2, *parts)
