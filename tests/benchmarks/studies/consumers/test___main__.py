"""The study's lists and tables."""

from __future__ import annotations

import pytest

from benchmarks.studies.consumers.__main__ import chosen, drawn, summary, versions
from slimtrain.base.errors import UserError


def test_a_list_is_of_known_names() -> None:
    assert chosen("a, b", ["a", "b", "c"], "runtime") == ["a", "b"]
    with pytest.raises(UserError, match=r"runtime 'onnxruntim': not known .*onnxruntime.*Available: onnxruntime, mnn"):
        chosen("onnxruntim", ["onnxruntime", "mnn"], "runtime")


def test_a_line_tells_what_is_read_how_far_off_and_how_fast() -> None:
    def row(precision: str, error: float | None, own: float, both: bool = True) -> dict[str, object]:
        two = {"max_rel_error": error} if both else {"error": "one at a time"}
        return {"precision": precision, "one": {"max_rel_error": error}, "two": two, "ms": {"onnxruntime": 2.0, "mnn": own}}

    rows = [row("fp32", 1e-6, 1.0), row("fp32", 3e-5, 5.0, both=False), {"precision": "fp16", "error": "no such operator"}]
    rows += [row("int8", None, 2.0)]
    lines = summary({"mnn": {"rows": rows}}).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "mnn fp32 2 of 2 1 of 2 3.0e-05 0.50 to 2.50",
        "mnn fp16 0 of 1 0 of 0 - - no such operator",
        "mnn int8 1 of 1 0 of 1 not finite 1.00 to 1.00".replace("0 of 1 not", "1 of 1 not"),
    ]


def test_what_netron_shows_is_counted() -> None:
    whole = {"file": "a", "operators": True, "inputs": True, "outputs": True}
    assert drawn([whole]) == "opens 1 of 1 and shows their nodes, inputs and outputs"
    text = drawn([whole, {**whole, "file": "b", "operators": False}, {"file": "c", "error": "no"}])
    assert text == "opens 1 of 3 and shows their nodes, inputs and outputs; b (not as it is); c (no)"


def test_versions_are_those_that_are_installed() -> None:
    assert set(versions("onnxruntime numpy no-such-package")) == {"onnxruntime", "numpy"}
