"""What ends a request, or a runtime. As everywhere, a message says what, found, expected, and what to do."""

from __future__ import annotations

from slimexport.target.errors import BundleError
from slimtrain.base.errors import ResourceError, UserError


class RequestError(UserError):
    """A request that no width can take: of another shape, number type, or more images than a batch has."""


class Refused(ResourceError):
    """A request that would be taken at another time. `retry_s`: when it is worth trying again."""

    def __init__(self, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Late(Refused):
    """A request that cannot meet its deadline any more, and was not computed."""


class QueueFull(Refused):
    """A request that came when as many waited as may."""


class Closed(Refused):
    """A request that came to a runtime that is closed or closing, or of which no width is left."""


class RunFailed(BundleError):
    """A run ended in an error, or in no answer within its limit: that of the requests of its batch, and of no others."""
