"""Random inputs of tiny models: of their types, drawn as always, on their scale."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ceilings.feeds import chain_feed, chain_number, product_feed
from benchmarks.onnx_models.tiny import CHAIN_SIZE, CHAINS, PRODUCTS, chain_model, product_model

SIZE = 64


def test_bfloat16_values_are_the_upper_half_of_floats() -> None:
    bits = product_feed("bfloat16", SIZE)["a"]
    assert bits.dtype == np.uint16
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    expected = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    np.testing.assert_allclose(values, expected, rtol=2**-7)


@pytest.mark.parametrize("number", PRODUCTS)
def test_a_product_takes_two_different_matrices_always_the_same(number: str) -> None:
    feed, again = product_feed(number, SIZE), product_feed(number, SIZE)
    assert list(feed) == ["a", "b"] and all(values.shape == (SIZE, SIZE) for values in feed.values())
    assert all((feed[name] == again[name]).all() for name in feed)
    assert (feed["a"].astype(np.float64) != feed["b"].astype(np.float64)).mean() > 0.9


def test_int8_matrices_use_their_range_about_their_zeros() -> None:
    a, b = product_feed("int8", SIZE).values()
    assert a.dtype == np.uint8 and b.dtype == np.int8
    assert abs(a.mean() - 128) < 3 and abs(b.mean()) < 3
    assert 35 < a.std() < 45 and 35 < b.std() < 45


@pytest.mark.parametrize("number", PRODUCTS)
def test_every_number_has_a_chain_that_runs_on_its_feed(number: str) -> None:
    import onnxruntime

    chained = chain_number(number)
    assert chained in CHAINS and (chained == number or number not in CHAINS)
    session = onnxruntime.InferenceSession(chain_model(3, chained), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, chain_feed(chained))
    assert result.shape == (CHAIN_SIZE, CHAIN_SIZE) and np.isfinite(result).all()


@pytest.mark.parametrize("number", ["float32", "float16", "int8"])
def test_a_product_runs_on_its_feed(number: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(product_model(number), providers=["CPUExecutionProvider"])
    feed = product_feed(number, SIZE)
    (result,) = session.run(None, feed)
    expected = feed["a"].astype(np.float64) @ feed["b"].astype(np.float64)
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=1e-1, rtol=1e-2)
