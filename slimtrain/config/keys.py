"""What the key of a configuration may be, and what depends on it: metadata on its field. No torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from slimtrain.base.errors import UserError, nearest


class Scope(Enum):
    """What a key decides."""

    RUN = "what is trained: another value makes another run"
    COURSE = "how a run goes on, is tested and is saved"
    MACHINE = "where a run is done and how it is told, nothing of its result"
    SEARCH = "the search for channel counts, of which training takes no notice"


@dataclass(frozen=True)
class KeyRule:
    """`choices` are all values, where there are any; `family` is that of the networks that the key is for."""

    scope: Scope = Scope.RUN
    choices: Collection[str] = ()
    least: float = -math.inf
    most: float = math.inf
    family: str = ""

    @property
    def may_change(self) -> bool:
        """Whether a resumed run may have another value than it began with."""
        return self.scope is not Scope.RUN

    def check(self, name: str, value: Any, network: str, family: str) -> None:
        """UserError for a `value` that the key called `name` of a `network` cannot have."""
        if self.choices and value not in self.choices:
            expected = ", ".join(filter(None, self.choices))
            raise UserError(f"{name} is {value!r}{nearest(str(value), self.choices)}. Expected {expected}.")
        if self.least > -math.inf and not self.least <= value <= self.most:
            limit = "" if self.most == math.inf else f" and at most {self.most}"
            raise UserError(f"{name} is {value}, expected at least {self.least}{limit}.")
        if self.family and value and family != self.family:
            raise UserError(f"{name} is for {self.family}_ networks, this is {network}. Leave it out.")


def key(default: Any, scope: Scope = Scope.RUN, **rules: Any) -> Any:
    """A field with this default and the `KeyRule` of these rules."""
    return dataclasses.field(default=default, metadata={"key": KeyRule(scope, **rules)})


course = partial(key, scope=Scope.COURSE)
machine = partial(key, scope=Scope.MACHINE)
search = partial(key, scope=Scope.SEARCH)


def keys_of(configuration: type) -> dict[str, KeyRule]:
    """The keys of a dataclass, in its order."""
    return {field.name: field.metadata.get("key", KeyRule()) for field in dataclasses.fields(configuration)}
