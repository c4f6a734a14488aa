"""What is wrong with a file of annotations, collected: one message counts it and quotes the first of each kind."""

from __future__ import annotations

from slimtrain.base.text import count
from slimtrain.base.untrusted.quoting import printable, quoted

SHOWN = 3  # quoted of each kind


class Problems:
    """Problems by kind, `boxes of no size` for example; of each kind how many there are, and the first few."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def add(self, kind: str, where: str, value: object) -> None:
        """One more: `where` says which, `annotation 7`; `value`, whatever it is, is quoted briefly."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.kinds.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(f"{where}: {quoted(value)}")

    def __bool__(self) -> bool:
        return bool(self.counts)

    def message(self, file: str) -> str:
        """One line about all of them."""
        parts = []
        for kind, shown in self.kinds.items():
            number = self.counts[kind]
            more = f" and {number - len(shown):,} more" if number > len(shown) else ""
            parts.append(f"{kind}: {number:,} ({', '.join(shown)}{more})")
        total = sum(self.counts.values())
        return printable(f"{file}: {count(total, 'entry is', 'entries are')} broken and left out: {'; '.join(parts)}.")
