"""Torch-Pruning (arXiv 2301.12900) on the same network at the same ratio: whether what it makes runs, and how small it is."""

from __future__ import annotations

import importlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmarks.studies.any_network.modules import module_of

SECONDS = 60  # of the processor, for one network: some have no end


class TooSlow(Exception):
    """The time for one network is up."""


def pruned(library: str, name: str) -> dict[str, Any]:
    """`runs`, `parameters` (the share that stays), `seconds` of the processor, and the `cause` where it does not run.

    Classifiers are left as they are; attention modules that say how many heads they have get what its own examples give them.
    """
    began = time.process_time()
    result: dict[str, Any] = {"runs": False, "parameters": None, "cause": ""}
    try:
        with _limit(SECONDS):
            result |= _pruned(library, name)
    except Exception as error:
        result["cause"] = f"{type(error).__name__}: {str(error)[:200]}"
    return result | {"seconds": round(time.process_time() - began, 1)}


def _pruned(library: str, name: str) -> dict[str, Any]:
    torch_pruning: Any = importlib.import_module("torch_pruning")
    module, side = module_of(library, name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.02)
    full = sum(parameter.numel() for parameter in module.parameters())
    image = torch.randn(1, 3, side, side)
    classes = int(module(image).shape[-1])
    parts: list[Any] = list(module.modules())
    kept: list[nn.Module] = [m for m in parts if isinstance(m, nn.Linear) and m.out_features == classes]
    kept += [m for m in parts if isinstance(m, nn.Conv2d) and m.out_channels == classes]
    heads = {m.qkv: m.num_heads for m in parts if hasattr(m, "num_heads") and hasattr(m, "qkv")}
    heads |= {m: m.num_heads for m in parts if isinstance(m, nn.MultiheadAttention)}
    pruner = torch_pruning.pruner.BasePruner(
        module,
        image,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=kept,
        num_heads=heads,
    )
    pruner.step()
    for part in parts:
        if hasattr(part, "num_heads") and hasattr(part, "qkv") and part.qkv in heads:
            part.num_heads = pruner.num_heads[part.qkv]
            part.head_dim = part.qkv.out_features // (3 * part.num_heads)
            if hasattr(part, "attn_dim"):
                part.attn_dim = part.head_dim * part.num_heads
    with torch.no_grad():
        module(image)
    return {"runs": True, "parameters": round(sum(p.numel() for p in module.parameters()) / full, 4)}


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def over(*_: object) -> None:
        raise TooSlow(f"no end within {seconds} s of the processor")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
