"""What a slimmable network runs: a published architecture's modules, or a traced graph."""

from __future__ import annotations

from slimtrain.groups.spec import GraphSpec
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.blocks import Network
from slimtrain.slimmable.build import SlimmableLayers
from slimtrain.slimmable.graph_body import GraphBody

Body = Network | GraphBody


def slimmable_body(spec: WidthSpec) -> Body:
    """The body of a network of `spec`, with storage for its widest plan."""
    if isinstance(spec, GraphSpec):
        return GraphBody(spec)
    assert isinstance(spec, NetworkSpec)
    body = spec.build(SlimmableLayers(spec))
    assert isinstance(body, Network)
    return body
