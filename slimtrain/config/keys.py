"""What the key of a configuration may be, and what depends on it: metadata on its field. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.untrusted.quoting import quoted

MOST = 1e9  # of numbers that nothing else limits
LONGEST = 4096  # letters of a text: a path's
ENTRIES = 1000  # of a list


class Scope(Enum):
    """What a key decides."""

    RUN = "what is trained: another value makes another run"
    COURSE = "how a run goes on, is tested and is saved"
    MACHINE = "where a run is done and how it is told, nothing of its result"
    SEARCH = "the search for channel counts, of which training takes no notice"


@dataclass(frozen=True)
class KeyRule:
    """`choices` are all values, where there are any; `least` and `most` limit numbers, also those in lists; `longest` the
    letters of a text, `entries` the length of a list; `family` is that of the networks that the key is for."""

    scope: Scope = Scope.RUN
    choices: Collection[str] = ()
    least: float = -MOST
    most: float = MOST
    longest: int = LONGEST
    entries: int = ENTRIES
    family: str = ""

    @property
    def may_change(self) -> bool:
        """Whether a resumed run may have another value than it began with."""
        return self.scope is not Scope.RUN

    def check(self, name: str, value: Any, network: str, family: str) -> None:
        """UserError for a `value` that the key called `name` of a `network` cannot have."""
        if self.choices and value not in self.choices:
            expected = ", ".join(filter(None, self.choices))
            raise UserError(f"{name} is {quoted(value)}{nearest(str(value)[:LONGEST], self.choices)}. Expected {expected}.")
        verb = "holds" if isinstance(value, tuple) else "is"
        for part in self._parts(name, value):
            if isinstance(part, str):
                if len(part) > self.longest or "\0" in part:
                    raise UserError(
                        f"{name} {verb} {quoted(part)}, expected at most {self.longest} letters, none of them zero."
                    )
            elif isinstance(part, int | float) and not isinstance(part, bool) and not self.least <= part <= self.most:
                raise UserError(f"{name} {verb} {quoted(part)}, expected {self._limits()}.")
        if self.family and value and family != self.family:
            raise UserError(f"{name} is for {self.family}_ networks, this is {network}. Leave it out.")

    def _parts(self, name: str, value: Any) -> Iterator[Any]:
        """What a value consists of. UserError for a list that is too long."""
        if not isinstance(value, list | tuple):
            yield value
            return
        if len(value) > self.entries:
            raise UserError(f"{name} is a list of {len(value):,} entries, expected at most {self.entries:,}.")
        for part in value:
            yield from self._parts(name, part)

    def _limits(self) -> str:
        least = f"at least {_shown(self.least)}" if self.least > -MOST else ""
        most = f"at most {_shown(self.most)}" if self.most < MOST or not least else ""
        return " and ".join(filter(None, (least, most)))


def _shown(number: float) -> str:
    return f"{int(number)}" if number == int(number) else f"{number}"


def key(default: Any, scope: Scope = Scope.RUN, **rules: Any) -> Any:
    """A field with this default and the `KeyRule` of these rules."""
    return dataclasses.field(default=default, metadata={"key": KeyRule(scope, **rules)})


course = partial(key, scope=Scope.COURSE)
machine = partial(key, scope=Scope.MACHINE)
search = partial(key, scope=Scope.SEARCH)


def keys_of(configuration: type) -> dict[str, KeyRule]:
    """The keys of a dataclass, in its order."""
    return {field.name: field.metadata.get("key", KeyRule()) for field in dataclasses.fields(configuration)}
