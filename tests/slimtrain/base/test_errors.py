"""Every error that a user can act on has one root and an exit code; a mistyped name gets the nearest."""

from __future__ import annotations

import pytest

from slimtrain.base.errors import (
    BudgetError,
    CheckpointError,
    CommandError,
    ResourceError,
    TrainingError,
    UserError,
    WidthError,
    nearest,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(UserError, 2), (CheckpointError, 2), (WidthError, 2), (BudgetError, 1), (TrainingError, 1), (ResourceError, 3)],
)
def test_exit_codes_are_those_that_are_documented(kind: type[UserError], code: int) -> None:
    error = kind("what is wrong")
    assert isinstance(error, UserError) and error.exit_code == code and str(error) == "what is wrong"


def test_a_command_that_failed_gives_its_own_code() -> None:
    assert CommandError("slimexport ended", 7).exit_code == 7
    assert isinstance(CommandError("slimexport ended", 7), UserError)


def test_the_nearest_name_is_offered_where_one_is_near() -> None:
    assert nearest("epoch", ["epochs", "ema"]) == " (did you mean 'epochs'?)"
    assert nearest("zzz", ["epochs", "ema"]) == ""
