"""A replica, without Ray: what it does when Ray asks after it, and when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from slimexport.target.errors import BundleError
from slimexport.target.serving.errors import Closed, RequestError
from slimexport.target.serving.ray_app.replica import Replica
from tests.support import http_serving

FOREVER_MS = 3_000_000.0


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(str(http_serving.write_bundle(tmp_path)), {"slo_ms": FOREVER_MS, "batches": (1, 2)})


def test_a_call_gives_the_width_s_logits(replica: Replica) -> None:
    async def calls() -> None:
        image = http_serving.images(1)[0]
        answer = await replica.infer(image)
        assert answer.width is not None
        np.testing.assert_allclose(answer.output, http_serving.logits(image[None], answer.width)[0], rtol=1e-4, atol=1e-4)
        with pytest.raises(RequestError, match="expected float32"):
            await replica.infer(image.astype(np.float64))
        assert (await replica.stats()).answered == 1

    asyncio.run(calls())
    replica.__del__()


def test_its_end_answers_what_waits(replica: Replica) -> None:
    futures = [replica.runtime.submit(image) for image in http_serving.images(50)]
    replica.check_health()
    replica.__del__()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(Closed):
        replica.check_health()
    replica.__del__()  # and Python's own, later


def test_one_whose_start_failed_ends_in_its_own_error(tmp_path: Path) -> None:
    failed = Replica.__new__(Replica)
    with pytest.raises(BundleError, match="no bundle"):
        failed.__init__(str(tmp_path), {})  # type: ignore[misc]
    failed.__del__()
