"""What a client is told where it gets no answer: a status, and one line.

A request that came too late gets 504 and not 503, which proxies and clients take for an invitation to send the same again:
nobody waits for that answer any more, and sending it twice is the last thing that a server needs which is late.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from slimexport.target.serving.errors import Late, Refused, RequestError
from slimtrain.base.errors import UserError
from slimtrain.base.untrusted.quoting import printable

log = logging.getLogger(__name__)

MOST = 1000  # characters of a message


class Refusal(Exception):
    """An HTTP answer in place of the one asked for: `{"error": message}`."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(" ".join(printable(message, MOST).split()))
        self.status, self.headers = status, dict(headers or {})


def bad(message: str) -> Refusal:
    """400: the request is wrong."""
    return Refusal(400, message)


def busy(message: str, retry_s: float) -> Refusal:
    """503: the same request is welcome after so many seconds."""
    return Refusal(503, message, {"Retry-After": str(max(1, math.ceil(retry_s)))})


def refusal_of(error: Exception) -> Refusal:
    """What an error of a request is to its client. One that nobody thought of is logged, and told as what it is: ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestError):
        return bad(str(error))
    if isinstance(error, Late):
        return Refusal(504, str(error))
    if isinstance(error, Refused):
        return busy(str(error), error.retry_s)
    if isinstance(error, UserError):  # RunFailed
        return Refusal(500, str(error))
    log.exception("a request failed", exc_info=error)
    return Refusal(500, f"the server failed ({type(error).__name__}); its log says more.")
