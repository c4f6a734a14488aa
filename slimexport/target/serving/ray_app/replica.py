"""What one replica is: a runtime, behind HTTP and behind Ray's handles."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from slimexport.target.arrays import Array
from slimexport.target.serving.answer import Answer, Snapshot
from slimexport.target.serving.errors import Closed
from slimexport.target.serving.runtime import Runtime


class Replica:
    """A runtime of the bundle in a folder of this machine. Ray sends many requests at once, and batches none: the runtime
    forms its batches of what waits, when it knows how wide they will be."""

    def __init__(self, bundle: str, options: Mapping[str, Any]) -> None:
        """`options` are the runtime's."""
        self.runtime = Runtime(bundle, **options)

    async def infer(self, images: Array, deadline_ms: float | None = None) -> Answer:
        """As `Runtime.submit`, for calls through a handle. A call that is cancelled while it waits is not computed."""
        return await asyncio.wrap_future(self.runtime.submit(images, deadline_ms))

    async def stats(self) -> Snapshot:
        """Of this replica alone."""
        return self.runtime.stats()

    def check_health(self) -> None:
        """Ray asks from time to time, and puts a new replica in place of one that raises."""
        if not self.runtime.ready:
            raise Closed("the runtime takes no requests.")

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray's proxies hand HTTP to: the Open Inference Protocol."""
        from slimexport.target.serving.http.app import make_app

        return make_app(self.runtime)

    def __del__(self) -> None:
        """Ray calls it once it sends nothing more: what still waits is answered."""
        if runtime := getattr(self, "runtime", None):  # there is none where its start failed
            runtime.close()
