"""The application: how many replicas there are, what each is given, and when there are more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimexport.target.manifest import read_manifest
from slimexport.target.serving.ray_app.arguments import read_arguments
from slimexport.target.serving.ray_app.replica import Replica
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.packages import install_command, is_installed

if TYPE_CHECKING:
    from ray.serve import Application

ONGOING = 4.0  # requests at once in a replica on average: above it, widths have narrowed for a while
MOST_REPLICAS = 4
QUEUE = 1000  # as the runtime's
HEALTH_S = 10.0  # between two looks at a replica


def app(
    bundle: str | Path,
    slo_ms: float = 50.0,
    *,
    min_replicas: int = 1,
    max_replicas: int = MOST_REPLICAS,
    ongoing: float = ONGOING,
    cpus: float = 1.0,
    gpus: float = 0.0,
    scaling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Application:
    """An application for `serve.run`, of a bundle whose folder every node has at this path, as it has a `profile`.

    There are `min_replicas`, and up to `max_replicas` while more than `ongoing` requests at once are in each on average. Each
    takes `cpus` and `gpus` of its node, and as many threads as CPUs. `scaling`: other keys of Ray's `autoscaling_config`.
    `slo_ms` and `options` are the runtime's.

    Raises BundleError for a bundle that is none, UserError for numbers that cannot be, ResourceError where Ray is not there.
    """
    for module in ("ray", "starlette", "prometheus_client"):
        if not is_installed(module):
            raise ResourceError(f"{module} is not installed, which serving on Ray needs. Run: {install_command('ray')}")
    if not 1 <= min_replicas <= max_replicas:
        raise UserError(f"{min_replicas} to {max_replicas} replicas: expected 1 or more, and no fewer at most than at least.")
    if not (ongoing > 0 and cpus > 0 and gpus >= 0):
        raise UserError(f"ongoing {ongoing:g}, cpus {cpus:g}, gpus {gpus:g}: expected numbers above 0, gpus 0 or more.")
    folder = Path(bundle).resolve()
    network = read_manifest(folder).source.network
    queue = options.setdefault("queue", QUEUE)
    options.setdefault("threads", max(1, int(cpus)))
    if options.get("profile") is not None:
        options["profile"] = Path(options["profile"]).resolve()  # a replica has a folder of its own to work in

    from ray import serve

    deployment = serve.deployment(
        name=network,
        max_ongoing_requests=queue,  # what waits is to wait in the runtime, which knows its deadlines
        max_queued_requests=queue,
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": ongoing,
            **(scaling or {}),
        },
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        health_check_period_s=HEALTH_S,
    )
    return deployment(serve.ingress()(Replica)).bind(str(folder), {"slo_ms": slo_ms, **options})


def build(arguments: Mapping[str, Any]) -> Application:
    """What `serve run slimexport.target.serving.ray_app:build bundle=DIR slo_ms=50` calls: arguments are those of `app`.
    What is wrong with them is one line, and the command's exit code."""
    import click

    try:
        return app(**read_arguments(arguments))
    except UserError as error:
        refusal = click.ClickException(str(error))
        refusal.exit_code = error.exit_code  # type: ignore[misc]  # click asks the instance
        raise refusal from error
