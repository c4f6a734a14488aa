"""A trace sent to a server of the Open Inference Protocol (KServe v2), as bytes, with Triton's own client.

One event loop sends, and never waits for an answer: a request that finds no free connection opens another. Whatever the client
takes, from making the request to reading its answer, is part of a latency.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.cells.cell import Array
from benchmarks.load.accuracies import published_widths, with_accuracies
from benchmarks.load.book import FAILED, FULL, LATE, Book, Samples
from benchmarks.load.figures import WidthFacts
from benchmarks.load.in_process import GRACE_S, LEAD_S, LEAST_DEADLINE_MS
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.untrusted.quoting import quoted, reason

MOST_CONNECTIONS = 2000
MOST_DIMENSIONS, MOST_NUMBERS = 8, 1 << 26
REFUSALS = {"504": LATE, "503": FULL}  # statuses of refused requests; everything else failed
WIDTH, BATCH, QUEUED, COMPUTED = "width", "batch", "queued_ms", "computed_ms"
UNKNOWN = "unknown"  # the width of servers that do not tell it


@dataclass(frozen=True)
class Model:
    """What a server says of its model: `shape` of one input, `classes` where it gives logits."""

    name: str
    input: str
    shape: tuple[int, ...]
    classes: int | None

    @property
    def facts(self) -> tuple[tuple[WidthFacts, ...], str | None]:
        """The widths that it may answer with, as far as they were published, and where their accuracies are from."""
        facts, _ = with_accuracies(published_widths(self.name), self.name, self.shape, self.classes)
        bare = tuple(WidthFacts(fact.label, fact.width, None) for fact in facts)
        return with_accuracies(bare, self.name, self.shape, self.classes)


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def open_client(url: str) -> Any:
    """Triton's client for a URL, of a server or of a model of it; to be closed by the caller. ResourceError without it."""
    try:
        from tritonclient.http import aio
    except ImportError as error:
        raise ResourceError(f"sending to a URL needs tritonclient ({error}): pip install 'tritonclient[http]'.") from error
    parts = urlsplit(url)
    if not parts.hostname:
        raise UserError(f"{url}: names no server. Expected one as http://127.0.0.1:8000.")
    secure = parts.scheme == "https"
    return aio.InferenceServerClient(parts.netloc, ssl=secure, conn_limit=MOST_CONNECTIONS, conn_timeout=GRACE_S)


def model_of(url: str) -> Model:
    """The model that a URL names, as in http://127.0.0.1:8000/v2/models/us_mobilenet_v1. UserError where it is not there, or
    takes something else than one tensor of floats."""
    name = _model_name(url)
    metadata = asyncio.run(_metadata(url, name))
    try:
        (tensor,) = metadata["inputs"]
        outputs = metadata["outputs"]
        shape = tuple(int(size) for size in tensor["shape"][1:])
        classes = int(outputs[0]["shape"][1]) if len(outputs) == 1 and len(outputs[0]["shape"]) == 2 else None
        taken = str(tensor["datatype"])
        model = Model(str(metadata["name"]), str(tensor["name"]), shape, classes)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{url}: its model {name} takes more or other than one tensor ({reason(error)}).") from error
    if taken != "FP32" or not 1 <= len(shape) <= MOST_DIMENSIONS or min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise UserError(
            f"{url}: its model {name} takes {quoted(taken)} of shape {quoted(shape)}, expected FP32 of known sizes."
        )
    return model


def _model_name(url: str) -> str:
    words = [word for word in urlsplit(url).path.split("/") if word]
    if words[:2] == ["v2", "models"] and len(words) == 3:
        return words[2]
    raise UserError(
        f"{url}: names no model. Expected its address as http://127.0.0.1:8000/v2/models/us_mobilenet_v1, which ends with the "
        "bundle's network."
    )


async def _metadata(url: str, name: str) -> dict[str, Any]:
    client = open_client(url)
    try:
        metadata = await client.get_model_metadata(name)
    except Exception as error:  # the client's own, and those of the library below it
        raise UserError(f"{url}: does not answer for {name} ({reason(error)}). Start it, or give another address.") from error
    finally:
        await client.close()
    if not isinstance(metadata, dict):
        raise UserError(f"{url}: says nothing of its model {name}. Is it a server of the Open Inference Protocol?")
    return metadata


def play(url: str, model: Model, times_s: Array, images: Sequence[Array], slo_ms: float, grace_s: float = GRACE_S) -> Samples:
    """Send request i at `times_s[i]` with image i, modulo their number, due `slo_ms` after that time; what became of each."""
    return asyncio.run(_play(url, model, times_s, images, slo_ms, grace_s))


async def _play(url: str, model: Model, times_s: Array, images: Sequence[Array], slo_ms: float, grace_s: float) -> Samples:
    from tritonclient.http import InferInput

    inputs = []
    for image in images:
        batch = image if image.ndim > len(model.shape) else image[None]
        tensor = InferInput(model.input, list(batch.shape), "FP32")
        tensor.set_data_from_numpy(batch, binary_data=True)
        inputs.append([tensor])
    book, client = Book(times_s), open_client(url)
    running: set[asyncio.Task[None]] = set()
    try:
        began = time.perf_counter() + LEAD_S
        for number, at in enumerate(times_s.tolist()):
            due = began + at
            while (rest := due - time.perf_counter()) > 0:
                await asyncio.sleep(rest)
            task = asyncio.create_task(_send(client, model, inputs[number % len(inputs)], number, due, slo_ms, book))
            running.add(task)
            task.add_done_callback(running.discard)
            if number % 16 == 0:  # a burst of thousands is sent, not only begun
                await asyncio.sleep(0)
        if running:
            await asyncio.wait(running, timeout=slo_ms / 1e3 + grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    finally:
        await client.close()
    return book.samples()


async def _send(client: Any, model: Model, inputs: list[Any], number: int, due: float, slo_ms: float, book: Book) -> None:
    """One request, and what became of it."""
    from tritonclient.utils import InferenceServerException

    late_ms = 1e3 * (time.perf_counter() - due)
    book.sent(number, late_ms)
    deadline_us = max(1, round(1e3 * max(LEAST_DEADLINE_MS, slo_ms - late_ms)))
    try:
        result = await client.infer(model.name, inputs, timeout=deadline_us)
    except InferenceServerException as error:
        book.refused(number, REFUSALS.get(str(error.status()), FAILED))
        return
    except Exception:  # a connection that broke: the library's own kinds
        book.refused(number, FAILED)
        return
    latency_ms = 1e3 * (time.perf_counter() - due)
    said = result.get_response().get("parameters", {})
    label = said.get(WIDTH, UNKNOWN)
    book.answered(
        number,
        latency_ms,
        f"{label:g}" if isinstance(label, int | float) else str(label),
        int(said.get(BATCH, 1)),
        float(said.get(QUEUED, math.nan)),
        float(said.get(COMPUTED, math.nan)),
    )
