#!/usr/bin/env python3
"""Write a checkpoint in the published slimmable-networks layout, filled with reproducible values.

    python make_checkpoint.py us_mobilenet_v1 out.pt [--seed 0] [--no-prefix] [--wrap]

The published files are plain `torch.save` dictionaries: every key starts with `module.` (they were saved
from a data-parallel wrapper), some are wrapped as {"model": state_dict}.  layouts/NAME.json lists key, shape
and dtype in the published order.  Every tensor is drawn from its own generator, seeded by `crc32("SEED:key")`
with the bare key (no prefix), so any subset can be recomputed alone.
"""

import argparse
import json
import re
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def tensor_value(key: str, shape: list, dtype: str, seed: int, gain: float, share: float) -> np.ndarray:
    """The reproducible value of one tensor.

    Convolutions are He-scaled; a batch norm's weight is `gain` times U(0.8, 1.2); its running variance is U(0.5, 1.5)
    times `share`, the norm's channels over those of its widest sibling, so that every width has logits of order one.
    """
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{key}".encode())))
    if dtype == "int64":
        return np.full(shape, 1000, dtype=np.int64)
    if key.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        value = share * rng.uniform(0.5, 1.5, shape)
    elif key.endswith("bias"):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = gain * rng.uniform(0.8, 1.2, shape)
    elif len(shape) == 4:
        value = rng.standard_normal(shape) * np.sqrt(2.0 / (shape[1] * shape[2] * shape[3]))
    else:
        value = rng.standard_normal(shape) * np.sqrt(1.0 / shape[1])
    return np.asarray(value, dtype=np.float32)


def siblings(key: str) -> str:
    """The part of a running-variance key that the batch norms of one layer share: `...bn.3.running_var` -> `...bn`."""
    return re.sub(r"\.\d+\.running_var$", "", key)


def state_dict(name: str, seed: int = 0, prefix: str = "module.") -> dict:
    """Ordered {key: numpy array} of the published layout `name`."""
    spec = json.loads((HERE / "layouts" / f"{name}.json").read_text())
    widest = {}
    for key, shape, _ in spec["layout"]:
        if key.endswith("running_var"):
            widest[siblings(key)] = max(widest.get(siblings(key), 0), shape[0])
    values = {}
    for key, shape, dtype in spec["layout"]:
        share = shape[0] / widest[siblings(key)] if key.endswith("running_var") else 1.0
        values[prefix + key] = tensor_value(key, shape, dtype, seed, spec["gain"], share)
    return values


def images(seed: int = 0, batch: int = 2, size: int = 224) -> np.ndarray:
    """The input that the golden logits belong to: float32 [batch, 3, size, size], standard normal."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:images".encode())))
    return rng.standard_normal((batch, 3, size, size)).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-prefix", action="store_true", help="leave the module. prefix out")
    parser.add_argument("--wrap", action="store_true", help='save as {"model": state_dict}')
    args = parser.parse_args()
    import torch

    values = state_dict(args.name, args.seed, "" if args.no_prefix else "module.")
    tensors = {key: torch.from_numpy(value) for key, value in values.items()}
    torch.save({"model": tensors} if args.wrap else tensors, args.output)


if __name__ == "__main__":
    main()
