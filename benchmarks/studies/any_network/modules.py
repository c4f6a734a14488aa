"""Networks of torchvision and timm with random numbers everywhere, so that nothing hides behind zeros."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

LARGER = {"inception_v3": 299, "inception_v4": 299, "inception_resnet_v2": 299, "xception41": 299, "legacy_xception": 299}
USUAL, MOST = 224, 256  # pixels: of torchvision's; of timm's where they leave it open
CLASSES = 1000  # of a network whose published weights have no classifier, and which would give out what it should narrow
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextlib.contextmanager
def uninitialized() -> Iterator[None]:
    """Without the initialization that modules do when they are made: seconds of it, for numbers that are replaced."""
    names = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    saved = {name: getattr(nn.init, name) for name in names}
    try:
        for name in names:
            setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        for name, function in saved.items():
            setattr(nn.init, name, function)


def module_of(library: str, name: str) -> tuple[nn.Module, int]:
    """A network in evaluation mode, and the side of its images in pixels."""
    options: dict[str, Any]
    with uninitialized():
        if library == "torchvision":
            import torchvision

            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
            return module.eval(), LARGER.get(name, USUAL)
        import timm

        settings: Any = timm.get_pretrained_cfg(name)
        headless = settings is not None and settings.num_classes == 0
        options = {"num_classes": CLASSES} if headless else {}
        module = timm.create_model(name, pretrained=False, **options)
    settings = module.pretrained_cfg
    size = settings.get("input_size", (3, USUAL, USUAL))[-1]
    size = size if settings.get("fixed_input_size") else min(size, MOST)
    return module.eval(), LARGER.get(name, size)


@torch.no_grad()
def randomize(module: nn.Module, images: Tensor, seed: int = 0) -> None:
    """Random weights, scales around 1, and batch norms with the statistics of `images`."""
    draw = torch.Generator().manual_seed(seed)
    norms = {id(p) for m in module.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False)}
    for name, parameter in module.named_parameters():
        ends = name.rpartition(".")[2]
        if id(parameter) in norms or parameter.ndim < 2:
            shift = ends == "bias"
            low, high = (-0.2, 0.2) if shift else (0.5, 1.5)
            parameter.uniform_(low, high, generator=draw)
        else:
            fan = parameter.numel() // parameter.shape[0]
            parameter.normal_(0, 1 / math.sqrt(fan) if ends.endswith("weight") else 0.2, generator=draw)
    batch_norms = [m for m in module.modules() if isinstance(m, BATCH_NORM) and m.running_mean is not None]
    for norm in batch_norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with contextlib.suppress(ValueError):  # a map of one value has no variance: its norm keeps what it has
        module(images)
    for norm in batch_norms:
        norm.eval()
        assert norm.running_var is not None
        norm.running_var.clamp_(min=1e-4)
