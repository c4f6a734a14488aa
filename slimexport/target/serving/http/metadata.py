"""What a server says of itself and its model, and how large requests may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimexport.target.manifest import Manifest
from slimexport.target.serving.http.datatypes import FP32, NAMES
from slimexport.target.serving.http.infer_request import BYTES
from slimexport.target.serving.http.infer_response import VERSION
from slimexport.target.serving.http.refusals import Refusal
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.base.version import __version__

SLACK = 1 << 16  # bytes of a request beside its tensor
DIGITS = 26  # letters of a number in JSON, with what is between it and the next
LARGEST_AT_ONCE = 2  # bodies of the largest kind that are held beside a full queue


def server_metadata() -> dict[str, Any]:
    return {"name": "slimexport", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(manifest: Manifest, backend: str) -> dict[str, Any]:
    """Names, number types and shapes; -1 counts images."""
    shape = [-1, *manifest.input.input_shape]
    return {
        "name": manifest.source.network,
        "versions": [VERSION],
        "platform": f"slimexport_{backend}",
        "inputs": [{"name": manifest.input.name, "datatype": FP32, "shape": shape}],
        "outputs": [
            {"name": result.name, "datatype": NAMES[result.dtype], "shape": [-1, *result.own_shape]}
            for result in manifest.results
        ],
    }


def readiness(runtime: Runtime) -> dict[str, Any]:
    """Whether requests are taken; which widths serve, and why others are out."""
    now = runtime.stats()
    return {
        "ready": runtime.ready,
        "widths": [width.label for width in now.widths if not width.out],
        "out": {width.label: width.out for width in now.widths if width.out},
        "stale": now.stale,
    }


def check_model(path: Mapping[str, str], name: str) -> None:
    """Refusal where the parameters of a path name another model than `name`, or another version."""
    asked, version = path["name"], path.get("version", VERSION)
    if asked != name:
        raise Refusal(404, f"model {quoted(asked)} is not here. This serves {name!r}.")
    if version != VERSION:
        raise Refusal(404, f"version {quoted(version)} of model {name!r} is not here. It has version {VERSION}.")


@dataclass(frozen=True)
class Limits:
    """How long bodies may be: what the `largest` batch takes, in bytes or as JSON, and some more."""

    largest: int
    image_bytes: int

    @staticmethod
    def of(manifest: Manifest, largest: int) -> Limits:
        return Limits(largest, math.prod(manifest.input.input_shape) * BYTES)

    def most(self, json_bytes: int | None) -> int:
        """Of a body with so many bytes of JSON; None: all of it is."""
        return SLACK + self.largest * self.image_bytes * (DIGITS if json_bytes is None else BYTES) // BYTES

    def why(self, json_bytes: int | None) -> str:
        """What is told of longer ones."""
        return f"{self.largest} images, the most of a request, take {self.most(json_bytes):,} at most. Send fewer at once."

    def room(self, queue: int) -> int:
        """Bytes of all requests that are there at once: as many as may wait, and a few that come."""
        return queue * self.image_bytes + LARGEST_AT_ONCE * self.most(None)
