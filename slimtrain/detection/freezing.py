"""What of a detector does not learn: the norms of its backbone, and its first stages, as published (arXiv 1812.08928's branch:
all norms, stem and first stage).

A frozen norm normalizes by its running statistics in training too, and neither these nor scale and shift change. Nothing of it
is in a checkpoint: a run that goes on freezes again.
"""

from __future__ import annotations

from slimtrain.base.errors import UserError
from slimtrain.detection.backbones import RESNET_LAYERS
from slimtrain.graph.graph import Graph
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.network import SlimmableNetwork

BODY = "backbone.body."
STEM = ("conv1", "bn1")  # a ResNet's
NOTHING = -1
READERS = ("backbone.fpn.inner_blocks.{}.", "head.classification_head.module_list.{}.")  # of a stage's map


def freeze(network: SlimmableNetwork, *, norms: bool = False, stages: int = NOTHING, first_stage: int = 0) -> None:
    """Freeze a slimmable detector's backbone: its norms, and its first `stages` (0: the stem, 1: also the stage of stride 4,
    and so on), whose norms are frozen too. `first_stage`: the finest that levels are made of, 0 of stride 4.

    UserError for norms of a universally slimmable network, which has statistics for some widths only, and for stages that
    cannot be told apart.
    """
    if norms and network.spec.family == "us":
        raise UserError(
            f"norms: frozen: {network.spec.name} has statistics for some of its widths only, and training draws others. "
            "Expected norms: switchable, or a network of family s."
        )
    names = _of_stages(network, stages, first_stage) if stages > NOTHING else set()
    for path, norm in network.norms.items():
        if (norms and path.startswith(BODY)) or path in names:
            norm.freeze()
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _of_stages(network: SlimmableNetwork, stages: int, first_stage: int) -> set[str]:
    """The names of the first stages' parameters and norms. A ResNet says them; of others they are whatever a stage's map is
    computed of."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    within = {name for name in (*network.norms, *dict(network.named_parameters())) if name.startswith(BODY)}
    if any(name.startswith(f"{BODY}{RESNET_LAYERS[0]}.") for name in within):
        whole = (*STEM, *RESNET_LAYERS[:stages])
        return {name for name in within if name.removeprefix(BODY).partition(".")[0] in whole}
    if stages <= first_stage:
        raise UserError(
            f"frozen_stages: {stages}: levels are made of this backbone's stages from {first_stage + 1} on, and where one "
            f"before ends is not known. Expected {first_stage + 1} or more, or {NOTHING}: none."
        )
    read = _read_for(spec.graph, stages - 1 - first_stage)
    norms = {norm.path for norm in network.body.of_nodes.values() if norm.stored["running_mean"].name in read}
    return {name for name in within if name in read or any(name == path or name.startswith(f"{path}.") for path in norms)}


def _read_for(graph: Graph, level: int) -> set[str]:
    """The stored tensors that the map is computed of which a level is made of."""
    begins = tuple(reader.format(level) for reader in READERS)
    reading = next((node for node in graph.nodes if f"{node.module}.".startswith(begins)), None)
    if reading is None:
        raise UserError(f"frozen_stages: the detector has no level {level + 1} of a stage. Expected fewer.")
    pending, names = [reading.inputs[0].node], set()
    seen = set(pending)
    while pending:
        name = pending.pop()
        if name in graph.by_node:
            names.add(graph.by_node[name].name)
        inputs = {value.node for value in graph.by_name[name].inputs} if name in graph.by_name else set()
        pending += inputs - seen
        seen |= inputs
    return names
