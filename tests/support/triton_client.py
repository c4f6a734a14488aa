"""A client of tritonserver, run by the Python of the server's environment: what it is to send stands in a file, what came back
goes to another.

python triton_client.py ADDRESS REQUESTS.npz ANSWERS.npz, with the arrays `model` (a name), `images` [N, C, H, W], and of every
burst b: `size_b`, requests of one image that are sent at once, of the images in turn, and `timeout_b` in microseconds. Of
every burst come back `outputs_b` [size, classes], `widths_b` (texts) and `errors_b` (texts, "" of an answer).
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

LIMIT_S = 120.0


def burst(client: Any, model: str, images: Any, size: int, timeout: int) -> tuple[Any, Any, Any]:
    """Outputs, widths and errors of requests that are sent at once."""
    answers: list[Any] = [None] * size
    done = threading.Semaphore(0)
    for number in range(size):
        tensor = InferInput("input", [1, *images.shape[1:]], "FP32")
        tensor.set_data_from_numpy(images[number % len(images) :][:1])

        def take(result: Any, error: Any, number: int = number) -> None:
            answers[number] = (result, error)
            done.release()

        client.async_infer(model, [tensor], take, timeout=timeout)
    for _ in range(size):
        if not done.acquire(timeout=LIMIT_S):
            raise SystemExit("no answer came")
    outputs, widths, errors = [], [], []
    for result, error in answers:
        outputs.append(result.as_numpy("output")[0] if error is None else np.full(1, np.nan, np.float32))
        widths.append(result.as_numpy("width")[0, 0].decode() if error is None else "")
        errors.append("" if error is None else str(error))
    classes = max(map(len, outputs))
    padded = [row if len(row) == classes else np.full(classes, np.nan, np.float32) for row in outputs]
    return np.stack(padded), np.array(widths), np.array(errors)


def main(address: str, requests: str, answers: str) -> None:
    with np.load(requests) as given:
        asked = dict(given)
    given_back: dict[str, Any] = {}
    client = InferenceServerClient(address)
    for number in range(sum(name.startswith("size_") for name in asked)):
        size, timeout = int(asked[f"size_{number}"]), int(asked[f"timeout_{number}"])
        outputs, widths, errors = burst(client, str(asked["model"]), asked["images"], size, timeout)
        given_back |= {f"outputs_{number}": outputs, f"widths_{number}": widths, f"errors_{number}": errors}
    client.close()
    np.savez(answers, **given_back)


if __name__ == "__main__":
    main(*sys.argv[1:])
