"""What ends a request, or a runtime; and the checks that tell what is no request. As everywhere, a message says what, found,
expected, and what to do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.serving.policy import Policy
from slimexport.target.serving.requests import Direct, Pending, Request
from slimexport.target.serving.scheduling import policy_of
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.untrusted.quoting import quoted

MOST_MS = 3_600_000.0
FLOAT32 = np.dtype(np.float32)


class RequestError(UserError):
    """A request that no width can take: of another shape, number type, or more images than a batch has."""


class Refused(ResourceError):
    """A request that would be taken at another time. `retry_s`: when it is worth trying again."""

    def __init__(self, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Late(Refused):
    """A request that cannot meet its deadline any more, and was not computed."""

    @staticmethod
    def after(request: Request, now_s: float) -> Late:
        """Of one that is refused now."""
        waited_s, within_s = now_s - request.submitted_s, request.due_s - request.submitted_s
        waited = f"waited {1e3 * waited_s:.1f} of its {1e3 * within_s:g} ms"
        return Late(f"{waited}, and no width ends in the rest. Send fewer, or allow more time.")


class QueueFull(Refused):
    """A request that came when as many waited as may."""

    @staticmethod
    def of(waiting: int, most: int, retry_s: float) -> QueueFull:
        """Of so many images."""
        return QueueFull(f"{waiting} images wait, {most} may. Send fewer, or allow more.", retry_s)


class Closed(Refused):
    """A request that came to a runtime that is closed or closing, or of which no width is left."""


class RunFailed(BundleError):
    """A run ended in an error, or in no answer within its limit: that of the requests of its batch, and of no others."""


def checked_request(image: Array, shape: tuple[int, ...], most: int, within_ms: float, future: Pending | Direct) -> Request:
    """A request for an image of `shape`, or as many as `most`, that comes now. RequestError."""
    images, single = checked_images(image, shape)
    if len(images) > most:
        raise RequestError(f"{len(images)} images: a run takes {most} at most. Send fewer at once.")
    within_s = checked_ms(within_ms, "deadline_ms") / 1e3
    now = time.perf_counter()
    return Request(images, single, now, now + within_s, future)


def checked_images(image: Array, shape: tuple[int, ...]) -> tuple[Array, bool]:
    """Images [N, *shape] of what was sent, and whether it is one that came alone. RequestError for what is neither."""
    if type(image) is np.ndarray and image.dtype is FLOAT32 and image.flags.c_contiguous:  # as mostly
        if image.shape == shape:
            return image[None], True  # what follows takes as long as the rest of a submission
        if image.shape[1:] == shape and len(image):
            return image, False
    wanted = ", ".join(map(str, shape))
    try:
        images = np.asarray(image)
    except ValueError as error:  # lists of different lengths
        raise RequestError(f"an input that is no array ({error}), expected float32 [{wanted}] or [N, {wanted}].") from error
    if images.dtype != np.float32:
        raise RequestError(f"an input of {images.dtype}, expected float32, normalized as the manifest's input says.")
    single = images.ndim == len(shape)
    batch = images[None] if single else images
    if batch.shape[1:] != shape or not len(batch):
        raise RequestError(f"an input of shape {list(images.shape)}, expected [{wanted}] or [N, {wanted}].")
    return np.ascontiguousarray(batch), single


def check_counts(**numbers: object) -> None:
    """UserError unless all are whole numbers, 1 or more."""
    for what, number in numbers.items():
        if type(number) is not int or number < 1:
            raise UserError(f"{what} {number!r}: expected a whole number, 1 or more.")


def checked_ms(ms: float, what: str) -> float:
    """RequestError unless they are above 0, up to an hour."""
    if type(ms) is float and 0 < ms <= MOST_MS:
        return ms
    number = ms if isinstance(ms, int | float | np.integer | np.floating) and not isinstance(ms, bool) else math.nan
    if not 0 < number <= MOST_MS:
        raise RequestError(f"{what} {quoted(ms)}: expected milliseconds above 0, up to an hour.")
    return float(number)


def check_thread(what: str, is_here: object) -> None:
    """UserError where what waits for a run is called by who would have to end it."""
    if is_here:
        by = "by a future's callback or a signal's handler"
        raise UserError(f"{what} was called on the thread that computes, {by}. Call it from another one.")


def checked_policy(policy: str | Policy, widths: Sequence[str]) -> str | Policy:
    """UserError for a name that is none, or of a width that is not open."""
    try:
        policy_of(policy, widths)
    except ValueError as error:
        raise UserError(str(error)) from error
    return policy
