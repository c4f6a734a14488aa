"""What may be narrowed of a network where there is a choice, and how its channels are ordered before. Standard library only:
these are the choices of commands and configurations too."""

from __future__ import annotations

from dataclasses import dataclass

# The first of each is the default.
POLICIES = {"heads": ("outer", "inner"), "conv_groups": ("outer", "inner"), "shuffles": ("exact", "free")}
POLICY_TEXTS = {  # what commands say of them
    "heads": "outer: whole attention heads go; inner: every head gets narrower.",
    "conv_groups": "outer: whole groups of grouped convolutions go; inner: every group gets narrower.",
    "shuffles": "free: channel shuffles may take any order; narrow networks then need training.",
}
ORDERS = ("l1", "l2", "none")  # by the norm of what reads a channel; as they are


@dataclass(frozen=True)
class Policy:
    """What may be narrowed where there is a choice.

    `heads`: `outer` keeps heads whole and drops some, `inner` narrows every head; so for whatever a view splits.
    `conv_groups`: `outer` drops whole groups of a grouped convolution, `inner` narrows every group. `shuffles`: `exact`
    follows every channel, `free` takes a shuffled order for any order: narrow networks are then no sub-networks of the wide
    one, only training gives them meaning. `fixed`: the beginnings of the names of modules whose outputs stay as they are
    (`backbone.fpn.`). `inner`: the beginnings of the names of outputs that only the network's own user reads, and that get
    narrower with it; others stay as they are.
    """

    heads: str = "outer"
    conv_groups: str = "outer"
    shuffles: str = "exact"
    fixed: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in POLICIES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(choices)}")
