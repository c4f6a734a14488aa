"""How often each property was tried, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from slimtrain.base.errors import UserError


@dataclass
class Count:
    """Examples of one property: refused with a message, right, wrong."""

    tried: int = 0
    refused: int = 0
    right: int = 0
    wrong: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


COUNTS: defaultdict[str, Count] = defaultdict(Count)


@contextmanager
def counted(name: str) -> Iterator[None]:
    """One example of the property `name`. A refusal (UserError) is an answer, and passes."""
    count = COUNTS[name]
    count.tried += 1
    try:
        yield
    except UserError:
        count.refused += 1
    except Exception:
        count.wrong += 1
        raise
    except BaseException:  # stopped, by whoever draws or by Ctrl-C: no example
        count.tried -= 1
        raise
    else:
        count.right += 1
