"""`--serve`: a bundle over HTTP until it is told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from slimexport.serving.options import ServingOptions
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.text import count


def serve(
    folder: Path, options: ServingOptions, widths: Sequence[float | str] | None, precision: str, backend: str | None
) -> None:
    """Serve a bundle and its page; print where, once it listens; return after SIGTERM or Ctrl-C, once what waited is answered.

    Raises ResourceError for a port that is taken, and what `Runtime` raises.
    """
    from slimexport.target.serving.http.app import make_app
    from slimexport.target.serving.http.demo import Demo
    from slimexport.target.serving.http.page import routes
    from slimexport.target.serving.http.server import bind, is_local, listen, make_server, url_of

    with contextlib.closing(bind(*options.address)) as listener:
        arguments: dict[str, Any] = {**options.of_runtime, "widths": widths, "precision": precision, "backend": backend}
        runtime = Runtime(folder, **arguments)
        drain = True
        try:
            demo = Demo(runtime) if options.demo else None
            server = make_server(make_app(runtime, routes(runtime, demo)))
            listen(listener)
            if not is_local(listener):
                click.echo("whoever reaches this machine can use it: there is no authentication", err=True)
            # until the server catches signals itself, one is a KeyboardInterrupt
            with contextlib.suppress(KeyboardInterrupt), demo or contextlib.nullcontext():
                click.echo(f"{describe(runtime)} at {url_of(listener)}")
                server.run(sockets=[listener])
            drain = not server.force_exit
        finally:
            runtime.close(drain)
    now = runtime.stats()
    refused = sum(now.refused.values())
    click.echo(f"stopped: {count(now.answered, 'request')} answered, {refused:,} refused, {now.failed:,} failed", err=True)


def describe(runtime: Runtime) -> str:
    """What is served, and what an image takes: `serving net (onnxruntime-cpu, drain, 50 ms): 0.25 0.8 ms, 1 5.0 ms`."""
    latencies = runtime.latencies
    widths = ", ".join(f"{label} {row[0]:.3g} ms" for label, row in zip(latencies.widths, latencies.ms, strict=True))
    name = runtime.manifest.source.network
    return f"serving {name} ({runtime.backend}, {runtime.policy}, {runtime.slo_ms:g} ms; one image: {widths})"
