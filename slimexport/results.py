"""What a checkpoint's network takes and gives, as a bundle says it."""

from __future__ import annotations

from slimexport.target.tensors import BATCH, DTYPES, Result
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.graph.graph import Batch, Size
from slimtrain.groups.spec import GraphSpec, shape_text

MOST_DIMENSIONS = 3  # of one input that bundles say how to make: channels, height, width


def shape_of(checkpoint: Checkpoint) -> tuple[int, ...] | None:
    """The shape of one input that is no image; None of images. UserError for inputs that nobody here makes."""
    spec = checkpoint.spec
    if not isinstance(spec, GraphSpec):
        return None
    (_, type_), *others = spec.graph.inputs
    if others or len(spec.input_shape) > MOST_DIMENSIONS or type_.dtype != "float32":
        inputs = ", ".join(f"{type_.dtype} {shape_text(type_.shape)}" for _, type_ in spec.graph.inputs)
        raise UserError(
            f"{checkpoint.file}: {spec.name} takes {inputs}, expected float32 images N x C x H x W, signals N x C x L or rows "
            "of numbers N x C: those bundles verify and measure. Write its ONNX files with "
            "slimexport.onnx_files.graph_writer.write_graph."
        )
    return None if len(spec.input_shape) == MOST_DIMENSIONS else spec.input_shape


def results_of(checkpoint: Checkpoint) -> tuple[Result, ...]:
    """The network's outputs. UserError for one whose first size does not count images, or of another number type."""
    spec = checkpoint.spec
    results = []
    for name, type_ in spec.graph.results:
        first, *own = (*type_.shape, 0)[: max(len(type_.shape), 1)]
        if (
            not isinstance(first, Batch)
            or not all(isinstance(size, int) and size for size in own)
            or type_.dtype not in DTYPES
        ):
            raise UserError(
                f"{checkpoint.file}: {spec.name} gives {name} {type_.dtype} {shape_text(type_.shape) or 'a number'}, expected "
                f"outputs whose first size counts images, of {', '.join(DTYPES)}. Let the module give it for every image "
                "(expand, transpose), or leave it out, and make it slimmable again."
            )
        results.append(Result(name=name, shape=tuple(map(_written, type_.shape)), dtype=type_.dtype))
    return tuple(results)


def _written(size: Size) -> int | str:
    if isinstance(size, Batch):
        return BATCH if size.factor == 1 else f"{size.factor}*{BATCH}"
    return size
