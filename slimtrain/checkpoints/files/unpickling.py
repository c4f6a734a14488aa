"""torch.save files, read without running anything in them, and without torch's own reader.

The pickle says which values and tensors there are (`pickle_machine.py`); it is settled which of these can be (`settling.py`)
before a storage is read; and a storage is read only where the file holds as many bytes as it says. Of zip files every member
that is used is compared with its CRC while it is read, which torch does not. Legacy files have no checksums, nor do
zip files that were written with `torch.serialization.set_crc32_options(False)`: of these the source's SHA-256, which is
recorded beside what is made of them, is all that there is.
"""

from __future__ import annotations

import io
import logging
import sys
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.untrusted.quoting import reason
from slimtrain.base.untrusted.zip_members import ZipError, filled, read_into, read_member
from slimtrain.checkpoints.files.claims import Damaged, Storage, as_bytes
from slimtrain.checkpoints.files.inert import InertType, Refused
from slimtrain.checkpoints.files.pickle_machine import PROTOCOL, Machine, OtherProtocol, WholeModule
from slimtrain.checkpoints.files.settling import check_claims, described, settled
from slimtrain.checkpoints.files.zips import open_zip, sole

log = logging.getLogger(__name__)

HEADER = 3  # pickles before the object in a legacy file: magic number, protocol, system
MAGIC = 0x1950A86A20F9469CFC6C
DATA = "data.pkl"
MOST_PICKLE = 1 << 28  # bytes

Read = Callable[[Iterable[Storage]], dict[str, Tensor]]  # storages -> the bytes of each, by its key


def torch_load(file: IO[bytes], name: str) -> Any:
    """Whatever the torch.save file `file`, called `name` in messages, holds: tensors on the CPU, plain values, inert objects
    in place of unknown classes. CheckpointError for a file that is damaged, or asks for more than that."""
    machine = Machine()
    try:
        with torch.no_grad():
            if file.read(2) == b"PK":
                with open_zip(file) as archive:
                    return _zip_content(archive, machine, name)
            file.seek(0)
            return _legacy_content(file, machine)
    except (CheckpointError, MemoryError):
        raise
    except WholeModule:
        raise CheckpointError(WHOLE_MODULE.format(name, "module")) from None
    except OtherProtocol as error:
        raise CheckpointError(
            f"{name}: written with pickle protocol {error}, expected {PROTOCOL}, which torch.save uses by itself. Save it "
            "again without pickle_protocol."
        ) from None
    except Refused as error:
        raise CheckpointError(
            f"{name}: refused, because loading it would run code or needs what is not known to be safe ({reason(error)}). "
            "Expected tensors and plain values: save the state dict alone, with torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # a damaged pickle or archive fails in nearly every way
        kind = "" if isinstance(error, Damaged | EOFError | ZipError) else f"{type(error).__name__}: "
        raise CheckpointError(f"{name}: truncated or damaged ({kind}{reason(error)}). Download or copy it again.") from error


def _content(value: Any, machine: Machine, read: Read) -> Any:
    """A value that `machine` read, with its tensors out of the storages that `read` reads."""
    for kind in machine.types.values():
        if isinstance(kind, InertType):
            kind.check()
    claims = described(value)
    check_claims(claims)
    content = read({claim.storage.key: claim.storage for claim in claims}.values())
    return settled(value, {claim: claim.of(_part(content[claim.storage.key], claim.storage)) for claim in claims})


def _room(size: int) -> Tensor:
    """So many bytes. MemoryError where there are not."""
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"{size:,} bytes") from error


def _part(content: Tensor, storage: Storage) -> Tensor:
    """The bytes of a part of what is kept under a key."""
    if storage.count == storage.whole:
        return content
    return content[storage.start * storage.elements.size :][: storage.count * storage.elements.size].clone()


# -------------------------------------------------------------------------------------------------------------- zip files


def _zip_content(archive: zipfile.ZipFile, machine: Machine, name: str) -> Any:
    members = archive.namelist()
    pickled = sole(archive, next(member for member in members if member.split("/")[-1] == DATA))
    folder = pickled.filename.removesuffix(DATA)
    checked = any(member.CRC for member in archive.infolist())
    if not checked:
        log.info("%s: was written without checksums (set_crc32_options), its SHA-256 is what there is", name)
    value = machine.read(io.BytesIO(read_member(archive, pickled, MOST_PICKLE, checked)))
    order = sys.byteorder
    if f"{folder}byteorder" in members:
        order = read_member(archive, sole(archive, f"{folder}byteorder"), 16, checked).decode()  # type: ignore[assignment]

    def read(storages: Iterable[Storage]) -> dict[str, Tensor]:
        content = {}
        for storage in storages:
            member, size = sole(archive, f"{folder}data/{storage.key}"), storage.whole * storage.elements.size
            if member.file_size != size:
                raise Damaged(f"{member.filename} holds {member.file_size:,} bytes, {size:,} are named")
            content[storage.key] = _room(size)
            read_into(archive, member, as_bytes(content[storage.key]), checked)
            if order != sys.byteorder:
                _swap(content[storage.key], storage)
        return content

    return _content(value, machine, read)


def _swap(content: Tensor, storage: Storage) -> None:
    """The other order of an element's bytes."""
    plain = storage.elements.plain
    size = storage.elements.size // (2 if plain is not None and plain.is_complex else 1)
    array = content.numpy()
    array[:] = np.ascontiguousarray(array.reshape(-1, size)[:, ::-1]).reshape(-1)


# ----------------------------------------------------------------------------------------------------------- legacy files


def _legacy_content(file: IO[bytes], machine: Machine) -> Any:
    magic, _, system = (machine.read(file) for _ in range(HEADER))
    if magic != MAGIC:
        raise Damaged("it does not begin as torch.save files do")
    value = machine.read(file)
    keys = machine.read(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("its storages have no keys")
    start = file.tell()
    left = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    little = not isinstance(system, dict) or system.get("little_endian", True) is True

    def read(storages: Iterable[Storage]) -> dict[str, Tensor]:
        nonlocal left
        content, wanted = {}, {storage.key: storage for storage in storages}
        for key in keys:
            if key not in machine.storages or key in content:
                raise Damaged("a storage that nothing refers to, or that comes twice")
            size = machine.storages[key]
            count = int.from_bytes(file.read(8), "little" if little else "big")
            left -= 8 + size
            storage = wanted.get(key)
            if left < 0 or (storage and count != storage.whole):
                raise Damaged(
                    f"storage {key} has {count:,} elements and {max(left + size, 0):,} bytes, {size:,} bytes are named"
                )
            content[key] = _room(size if storage else 0)
            if storage is None:
                file.seek(size, io.SEEK_CUR)
            elif not filled(file, as_bytes(content[key])):
                raise EOFError("it ends early")
            elif little != (sys.byteorder == "little"):
                _swap(content[key], storage)
        if missing := wanted.keys() - content.keys():
            raise Damaged(f"storages are missing: {', '.join(sorted(missing)[:4])}")
        return content

    return _content(value, machine, read)


WHOLE_MODULE = (
    "{}: holds a whole pickled {}, expected its state dict. Load it where its code is and it is trusted, and save "
    "model.state_dict()."
)
