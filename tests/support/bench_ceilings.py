"""What the tests of ceilings share: figures that any device may have, and made-up devices that multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.ceilings.measuring import Ceilings
from tests.support.trt_fake import inventory_of
from tests.support.trt_helpers import Machine

NAMES = ("macs_per_s", "bytes_per_s", "seconds_per_operator")
TWO_MS = 2e-3  # between two events of the made-up CUDA


def plausible(ceilings: Ceilings) -> None:
    """The figures are those of the samples that they tell of, and within what any CPU does with one thread, however busy."""
    assert ceilings.macs_per_s is not None and ceilings.bytes_per_s is not None and ceilings.seconds_per_operator is not None
    product, copied, chain = (ceilings.how[name] for name in NAMES)
    assert product["size"] in (64, 256)
    assert ceilings.macs_per_s == pytest.approx(product["size"] ** 3 / (product["best_ms"] / 1e3))
    assert copied["bytes"] > copied["cache_bytes"] == 1 << 18
    assert ceilings.bytes_per_s == pytest.approx(copied["bytes"] / (copied["best_ms"] / 1e3))
    (few, many), (short, long) = chain["operators"], chain["best_ms"]
    assert ceilings.seconds_per_operator == pytest.approx((long - short) / (many - few) / 1e3)
    assert 1e8 < ceilings.macs_per_s < 1e13
    assert 1e7 < ceilings.bytes_per_s < 1e13
    assert 1e-9 < ceilings.seconds_per_operator < 1e-2


def product_or_chain(values: dict[str, Any]) -> dict[str, Any]:
    if "a" in values:
        return {"c": values["a"].astype(np.float32) @ values["b"].astype(np.float32)}
    return {"y": values["x"]}


def product_engines(board: Machine, monkeypatch: pytest.MonkeyPatch, layers: int = 1000) -> list[bytes]:
    """Make the made-up TensorRT build and run tiny models: `a` @ `b` in float32 or float16, by the memory's size."""
    trt, library, parsed = board.trt, board.library, []

    def parse(self: Any, content: bytes) -> bool:
        parsed.append(content)
        return True

    def build(self: Any, network: Any, config: Any) -> Any:
        instance = trt.IHostMemory()
        instance._content = b"plan"
        return instance

    def deserialize(self: Any, plan: bytes) -> Any:
        assert plan == b"plan"
        instance = trt.ICudaEngine()
        instance.num_layers = layers
        return instance

    def create_context(self: Any) -> Any:
        instance = trt.IExecutionContext()
        instance._addresses = {}
        return instance

    def execute(self: Any, stream: int) -> bool:
        addresses = self._addresses
        assert set(addresses) in ({"a", "b", "c"}, {"x", "y"})
        assert all(address in library.memory for address in addresses.values())
        library.streams[stream].append(lambda: None)
        return board.behaviour.runs

    for owner, name, value in (
        (trt.OnnxParser, "parse", parse),
        (trt.Builder, "build_serialized_network", build),
        (trt.Runtime, "deserialize_cuda_engine", deserialize),
        (trt.ICudaEngine, "create_execution_context", create_context),
        (trt.IExecutionContext, "execute_async_v3", execute),
    ):
        assert name in inventory_of(trt)[owner.__name__]
        monkeypatch.setattr(owner, name, value)
    return parsed
