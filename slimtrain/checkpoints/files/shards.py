"""Checkpoints in several files with an index, as model hubs have them: `model-00001-of-00002.safetensors` and so on, and
`model.safetensors.index.json`, whose `weight_map` says which file holds which tensor. `pytorch_model.bin.index.json` is alike.

A checkpoint is named by its index or by the folder that holds it. Shards lie in the index's own folder: names that lead
elsewhere are refused. No torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from slimtrain.base.errors import CheckpointError
from slimtrain.base.files import file_sha256
from slimtrain.base.text import some
from slimtrain.base.untrusted.json_text import parse_json
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import reason

INDEX = ".index.json"
USUAL = "model.safetensors.index.json"
MOST_INDEX = 1 << 25  # bytes
TENSORS = 100_000  # of one checkpoint
SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")


def index_of(path: Path) -> Path | None:
    """The index that a path names, itself or by its folder; None for a file that stands alone.

    CheckpointError for a folder without one, or with several, and for one shard of several.
    """
    if path.is_dir():
        return _index_in(path)
    if path.name.endswith(".json"):
        return path
    shard = SHARD.fullmatch(path.name)
    if shard is None or int(shard["total"]) < 2:
        return None
    index = path.with_name(f"{shard['name']}{shard['suffix']}{INDEX}")
    there = "" if index.exists() else " It is missing: copy it beside them."
    raise CheckpointError(
        f"{path.name}: is one of {int(shard['total'])} files that hold the weights together. Give their index, {index}, or "
        f"its folder.{there}"
    )


def _index_in(folder: Path) -> Path:
    indexes = sorted(folder.glob(f"*{INDEX}"))
    if len(indexes) == 1 or folder / USUAL in indexes:
        return folder / USUAL if folder / USUAL in indexes else indexes[0]
    if (folder / ".metadata").exists() and any(folder.glob("*.distcp")):
        raise CheckpointError(
            f"{folder}: is a checkpoint of torch.distributed.checkpoint. Make one file of it, and give that: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE"
        )
    files = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith((*WEIGHT_SUFFIXES, ".zip", INDEX)))
    holds = f"It holds {some(files)}: give one of these." if files else "It holds none."
    raise CheckpointError(f"{folder}: is a folder, expected a checkpoint file (.pt, .pt.zip or .safetensors). {holds}")


def read_shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """The tensors that an index names, in its order, each from its shard as `read` gives it. CheckpointError where the index
    is none, or a shard is missing or lacks a tensor."""
    weight_map = read_index(index)
    shards = {shard: read(index.with_name(shard)) for shard in dict.fromkeys(weight_map.values())}
    lacking = [f"{key} in {shard}" for key, shard in weight_map.items() if not _holds(shards[shard], key)]
    if lacking:
        raise CheckpointError(
            f"{index.name}: names {some(lacking)}, which is not there. Index and files belong to different downloads, or are "
            "damaged: copy them again."
        )
    return {key: shards[shard][key] for key, shard in weight_map.items()}


def _holds(shard: Any, key: str) -> bool:
    return isinstance(shard, Mapping) and key in shard


def read_index(index: Path) -> dict[str, str]:
    """An index's tensors: key -> name of its shard, which lies beside the index."""
    try:
        content = parse_json(read_text(index, MOST_INDEX), index.name)
        weight_map = content["weight_map"]
        if not (weight_map and len(weight_map) <= TENSORS and all(isinstance(shard, str) for shard in weight_map.values())):
            raise ValueError("weight_map names no files")
    except FileNotFoundError as error:
        raise CheckpointError(f"{index}: no such file. Give the path of a checkpoint, or random:NETWORK.") from error
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({reason(error)}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index.name}: is no index of a checkpoint's files. Expected a `weight_map` of tensors to files, as in {USUAL}: "
            "give that, or a checkpoint file."
        ) from error
    shards = list(dict.fromkeys(weight_map.values()))
    elsewhere = [shard for shard in shards if shard != PurePosixPath(shard).name or shard in ("", "..") or "\\" in shard]
    if elsewhere:
        raise CheckpointError(
            f"{index.name}: names files outside its own folder ({some(elsewhere)}), which are not opened. Put the files "
            "beside the index, and name them without a path."
        )
    missing = [shard for shard in shards if not os.path.isfile(index.with_name(shard))]  # of a name of any length
    if missing:
        raise CheckpointError(
            f"{index.name}: names files that are not beside it ({some(missing)}; {len(missing)} of {len(shards)}). Copy them "
            f"into {index.parent}."
        )
    return dict(weight_map)


def checkpoint_sha256(path: Path) -> str:
    """The SHA-256 of a checkpoint's file; of one in shards that of its files' names and sums, the index first."""
    index = index_of(path)
    if index is None:
        return file_sha256(path)
    names = [index.name, *sorted(set(read_index(index).values()))]
    lines = "".join(f"{file_sha256(index.with_name(name))}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()
