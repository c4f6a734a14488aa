"""Forms that weights are stored in beside plain tensors: with counters, pruned, reparametrized, quantized.

Counters that profilers and averaging models leave among weights (`total_ops`, `n_averaged`) say nothing of the network and
come off. Pruned weights are their originals times their masks, as `torch.nn.utils.prune.remove` makes them. The others cannot
be undone here exactly, and are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import some
from slimtrain.checkpoints.files.claims import OddTensor
from slimtrain.slimmable.norms import AFFINE, RUNNING

ORIGINAL, MASK = "_orig", "_mask"
ENTRIES = frozenset({*AFFINE, *RUNNING, "num_batches_tracked", "scale", "zero_point"})  # what one number may be of a layer
REPARAMETRIZED = ("_g", "_v", "_u", ORIGINAL, ".original", ".original0", ".original1")
QUANTIZED = ("scale", "zero_point", "_packed_params", "fake_quant_enabled", "observer_enabled")


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without entries that are one whole number and no layer's, unless it holds nothing else."""
    return {key: tensor for key, tensor in state.items() if not _is_counter(key, tensor)} or dict(state)


def _is_counter(key: str, tensor: Tensor) -> bool:
    if tensor.numel() != 1 or tensor.dim() > 1 or tensor.is_meta or tensor.is_complex() or key.rpartition(".")[2] in ENTRIES:
        return False
    value = float(tensor)
    return value >= 0 and value == int(value) if abs(value) < float("inf") else False


def without_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with each pruned tensor in place of its original and its mask."""
    pruned = [key.removesuffix(ORIGINAL) for key in state if key.endswith(ORIGINAL)]
    pairs = {base: (state[f"{base}{ORIGINAL}"], state[f"{base}{MASK}"]) for base in pruned if f"{base}{MASK}" in state}
    pairs = {base: (tensor, mask) for base, (tensor, mask) in pairs.items() if tensor.shape == mask.shape}
    plain = {}
    for key, tensor in state.items():
        base = key.removesuffix(ORIGINAL).removesuffix(MASK)
        if base not in pairs or key == base:
            plain[key] = tensor
        elif key.endswith(ORIGINAL):
            original, mask = pairs[base]
            plain[base] = original * mask.to(original.dtype)
    return plain


def _is_quantized(tensor: Tensor) -> bool:
    return isinstance(tensor, OddTensor) and "quantized" in tensor.kind


def refuse_other_forms(state: Mapping[str, Tensor], name: str) -> None:
    """CheckpointError for weights that are quantized, or computed from others."""
    quantized = [key for key, tensor in state.items() if _is_quantized(tensor) or key.rpartition(".")[2] in QUANTIZED]
    if quantized:
        raise CheckpointError(
            f"{name}: is of a quantized network ({some(quantized)}). Expected floating-point weights: save the state dict "
            "before the network is prepared for quantization or converted. slimexport makes int8 files with --precision int8."
        )
    computed = [key for key in state if key.endswith(REPARAMETRIZED)]
    if computed:
        raise CheckpointError(
            f"{name}: holds weights that are computed from others ({some(computed)}), as weight and spectral norm do. Make "
            "them plain before saving: torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm and "
            "remove_spectral_norm for those of old."
        )
