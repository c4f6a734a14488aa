"""The table of forms: ATen operators, named without their overloads, and who writes them."""

from __future__ import annotations

from collections.abc import Callable

from slimexport.onnx_files.operators.call import Call

# A form: writes the nodes of an operator, and says what its outputs are called. One that does nothing gives its input's name.
Form = Callable[[Call], "str | list[str]"]
FORMS: dict[str, Form] = {}


def form(*kinds: str) -> Callable[[Form], Form]:
    """Enter a function as the form of operators."""

    def enter(function: Form) -> Form:
        for kind in kinds:
            assert kind not in FORMS, kind
            FORMS[kind] = function
        return function

    return enter
