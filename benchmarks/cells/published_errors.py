"""The published top-1 errors of the ten networks on ImageNet-1k at 224 px, in percent: their
authors' figures, not measured here.

Source: the model zoo in the README of the published code (github.com/JiahuiYu/slimmable_networks), for 1812.08928,
1903.05134 and 1903.11728.
"""

from __future__ import annotations

from slimtrain.base.errors import UserError
from slimtrain.models.published import published_spec

# A figure for each switch, in the order of `published_spec(name).switches`.
# fmt: off
ERRORS: dict[str, tuple[float, ...]] = {
    "s_mobilenet_v1": (46.9, 35.2, 30.5, 28.5),
    "s_mobilenet_v2": (40.3, 35.6, 31.1, 29.5),
    "s_resnet50": (35.0, 27.9, 25.1, 24.0),
    "s_shufflenet": (42.8, 34.5, 28.6),
    "us_mobilenet_v1": (
        44.3, 44.2, 42.7, 41.9, 41.0, 40.0, 39.0, 38.1, 37.3, 36.5,
        35.8, 35.0, 34.4, 33.7, 33.2, 32.5, 32.2, 31.7, 31.2, 30.9,
        30.5, 30.3, 30.2, 29.7, 29.4, 29.1, 28.7, 28.7, 28.4, 28.3,
        28.2,
    ),
    "us_mobilenet_v2": (
        37.7, 36.7, 36.6, 35.8, 35.8, 35.1, 34.9, 34.6, 34.4, 32.4,
        32.4, 31.7, 31.7, 31.4, 31.1, 30.7, 30.4, 30.2, 30.0, 29.9,
        29.4, 29.1, 29.1, 28.9, 28.8, 28.5, 28.5,
    ),
    "autoslim_mobilenet_v1": (32.1, 28.5, 27.0),
    "autoslim_mobilenet_v2": (27.0, 25.8, 24.6),
    "autoslim_mnasnet": (26.8, 25.4, 24.6),
    "autoslim_resnet50": (27.8, 26.0, 24.4, 24.0),
}
# fmt: on


def published_error(network: str, switch: float) -> float:
    """The top-1 error of a network at a width or switch number, in percent. UserError where none was published."""
    switches = published_spec(network).switches
    if network not in ERRORS or switch not in switches:
        raise UserError(
            f"{network} at {switch}: no error was published for it, only for {', '.join(ERRORS)} at their switches."
        )
    return ERRORS[network][switches.index(switch)]
