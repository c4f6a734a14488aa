"""A bundle on Ray Serve: replicas on one machine or many, each of which holds a runtime.

    serve run slimexport.target.serving.ray_app:build bundle=exports/us_mobilenet_v1 slo_ms=50

A runtime meets a burst by narrower widths, at once. Ray meets a load that stays by more replicas, within a minute. Ray is
loaded when an application is made, and not before.
"""

from slimexport.target.serving.ray_app.application import app, build
from slimexport.target.serving.ray_app.replica import Replica

__all__ = ["Replica", "app", "build"]
