"""What a Triton model has of its server, as far as ours use it: the module `triton_python_backend_utils`, and requests."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.pbtxt import parse

LIMIT_S = 60.0
NAME = "triton_python_backend_utils"
_numbers = itertools.count()


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous and isinstance(array, np.ndarray)
        self.name, self.array = name, array

    def as_numpy(self) -> NDArray[Any]:
        return self.array


class TritonError(Exception):
    INTERNAL, INVALID_ARG, UNAVAILABLE = "internal", "invalid", "unavailable"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        super().__init__(message)
        self.code = code


class TritonModelException(Exception):
    pass


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self.error = error
        self.outputs = {tensor.name: tensor.as_numpy() for tensor in output_tensors}


class Request:
    """An InferenceRequest, and what became of it. It takes one answer, and fails a test that sends a second."""

    def __init__(self, images: NDArray[Any], timeout_us: int = 0, name: str = "input") -> None:
        self.tensor, self._timeout = Tensor(name, images), timeout_us
        self._answers: list[InferenceResponse] = []
        self._answered = threading.Event()

    def timeout(self) -> int:
        return self._timeout

    def get_response_sender(self) -> Request:
        return self

    def send(self, response: InferenceResponse, flags: int) -> None:
        assert flags == 1, "the last answer is the one"
        self._answers.append(response)
        self._answered.set()

    @property
    def answered(self) -> bool:
        return self._answered.is_set()

    def answer(self) -> InferenceResponse:
        """Once it is there."""
        assert self._answered.wait(LIMIT_S), "no answer came"
        (answer,) = self._answers
        return answer

    def result(self) -> tuple[str, NDArray[Any]]:
        """The width, and the output."""
        answer = self.answer()
        assert answer.error is None, answer.error
        (label,) = set(answer.outputs["width"].ravel().tolist())
        assert answer.outputs["width"].shape == (len(answer.outputs["output"]), 1)
        return label, answer.outputs["output"]

    def refusal(self) -> tuple[str, str]:
        """The code, and the message."""
        error = self.answer().error
        assert error is not None
        return error.code, str(error)


class Metrics:
    """The server's; `off`: it has none; `broken`: they take nothing more."""

    COUNTER = "counter"

    def __init__(self, off: bool = False) -> None:
        self.off, self.broken = off, False
        self.counts: dict[tuple[str, ...], float] = {}

    def family(self, name: str, description: str, kind: str) -> Any:
        if self.off:
            raise TritonModelException("metrics are off")
        assert description and kind == self.COUNTER
        counts, metrics = self.counts, self

        class Metric:
            def __init__(self, labels: Mapping[str, str]) -> None:
                self.key = (name, *labels.values())
                counts[self.key] = 0

            def increment(self, value: float) -> None:
                if metrics.broken:
                    raise TritonModelException("metrics are broken")
                counts[self.key] += value

        family = ModuleType("family")
        family.Metric = Metric  # type: ignore[attr-defined]
        return family


class Backend(ModuleType):
    """The module. `log`: what was said."""

    def __init__(self, off: bool = False) -> None:
        super().__init__(NAME)
        self.metrics, self.log = Metrics(off), list[str]()
        family = self.metrics.family

        class MetricFamily:
            COUNTER = Metrics.COUNTER

            def __new__(cls, **options: Any) -> Any:
                return family(**options)

        class Logger:
            log_info = log_warn = log_error = self.log.append

        self.MetricFamily, self.Logger = MetricFamily, Logger
        self.Tensor, self.TritonError, self.InferenceResponse = Tensor, TritonError, InferenceResponse
        self.TritonModelException = TritonModelException
        self.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

    def get_input_tensor_by_name(self, request: Request, name: str) -> Tensor | None:
        return request.tensor if request.tensor.name == name else None


def model_module(model: Path) -> ModuleType:
    """`1/model.py` of a model's folder, imported as the Python backend does: as a module of the package that its folder is."""
    package = ModuleType(f"served_{next(_numbers)}")
    package.__path__ = [str(model / "1")]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.model")


def arguments(model: Path, **parameters: str) -> dict[str, str]:
    """What `initialize` is given: the configuration as Triton reads it, with parameters that an operator edited."""
    config = parse((model / "config.pbtxt").read_text(encoding="utf-8"))
    stored = {entry["key"]: entry["value"] for entry in config["parameters"]}
    edited = {key: {"string_value": value} for key, value in parameters.items()}
    return {
        "model_name": model.name,
        "model_version": "1",
        "model_config": json.dumps({**config, "parameters": stored | edited}),
    }
