"""Which status an error is: what a client can do about it."""

from __future__ import annotations

import pytest

from slimexport.target.serving.errors import Closed, Late, QueueFull, RequestError, RunFailed
from slimexport.target.serving.http.refusals import Refusal, bad, refusal_of


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (RequestError("the shape"), 400, None),
        (QueueFull("full", retry_s=0.2), 503, "1"),
        (QueueFull("full", retry_s=7.1), 503, "8"),
        (Closed("closed"), 503, "1"),
        (Late("too late"), 504, None),
        (RunFailed("the run failed"), 500, None),
    ],
)
def test_every_error_of_a_runtime_has_its_status(error: Exception, status: int, retry: str | None) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.headers.get("Retry-After"), str(refusal)) == (status, retry, str(error))


def test_a_refusal_stays_what_it_is() -> None:
    refusal = Refusal(413, "too large")
    assert refusal_of(refusal) is refusal


def test_an_error_of_ours_is_logged_and_its_words_stay_here(caplog: pytest.LogCaptureFixture) -> None:
    refusal = refusal_of(KeyError("/secret/path"))
    assert refusal.status == 500 and "secret" not in str(refusal) and "KeyError" in str(refusal)
    assert "/secret/path" in caplog.text


def test_a_message_is_one_line_and_harmless() -> None:
    assert str(bad("two\nlines \x1b[31m")) == "two lines \\x1b[31m"
    assert len(str(bad("x" * 100_000))) <= 1000
