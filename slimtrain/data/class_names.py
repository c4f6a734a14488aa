"""The names of a network's classes, for a checkpoint that does not hold them: one per line, as JSON, or ImageNet's.

JSON may be a list of names, or an object from class number to name, as in the `id2label` of model cards; or to [id, name], as
in Keras' imagenet_class_index.json, of which the name counts. ImageNet's names are those of torchvision's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.base.untrusted.json_text import parse_json
from slimtrain.base.untrusted.opening import MIB, read_text
from slimtrain.base.untrusted.quoting import quoted, reason

IMAGENET = "imagenet"
MOST_BYTES = 16 * MIB  # of a file
MOST_LETTERS = 1000  # of a name: ImageNet's longest have 120
STORED = ("class_names", "classes", "class_to_idx", "idx_to_class", "id2label")  # keys of checkpoints
HINT = "Give one name per line, a JSON list of names, or `imagenet`."


def read_class_names(source: str | Path) -> tuple[str, ...]:
    """The names in a file, or ImageNet's for `imagenet`, by class number. UserError where there are none."""
    path = Path(source)
    if str(source) == IMAGENET and not path.exists():
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
    try:
        text = read_text(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({reason(error)}). {HINT}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: is no text in UTF-8. {HINT}") from error
    names = _of_json(text, source) if text.lstrip()[:1] in ("[", "{") else text.rstrip().splitlines()
    names = [name.strip() for name in names]
    for number, name in enumerate(names):
        if not _shown(name):
            raise UserError(
                f"{source}: class {number} is called {quoted(name)}, expected a name of printable letters, at most "
                f"{MOST_LETTERS}. {HINT}"
            )
    if not names:
        raise UserError(f"{source}: holds no names. {HINT}")
    return tuple(names)


def class_names_for(source: str | Path, classes: int, owner: str) -> tuple[str, ...]:
    """The names of `source` for a network of `classes` classes; `owner` is what messages call its file. UserError for another
    number of names."""
    names = read_class_names(source)
    if len(names) != classes:
        raise UserError(
            f"{source}: holds {len(names)} names, {owner} has {classes} classes. Give one name for each, in the order of its "
            "outputs."
        )
    return names


def is_class_name(value: object) -> bool:
    """Whether what a checkpoint holds as a class's name may be one."""
    return isinstance(value, str) and _shown(value)


def stored_class_names(content: Any, classes: int) -> tuple[str, ...]:
    """The names that a checkpoint's content holds for its `classes` classes, under one of the usual keys: a list of names, or
    an object from name to number or from number to name. None where there are none, or of another number."""
    for key in STORED if isinstance(content, Mapping) else ():
        value = content.get(key)
        if isinstance(value, Mapping) and all(type(number) is int for number in value.values()):
            value = {number: name for name, number in value.items()}
        if isinstance(value, Mapping):
            value = [value.get(number) for number in range(len(value))]
        if isinstance(value, list | tuple) and len(value) == classes and all(map(is_class_name, value)):
            return tuple(value)
    return ()


def _shown(name: str) -> bool:
    """Whether a table and a terminal can show a name."""
    return 0 < len(name) <= MOST_LETTERS and name.isprintable()


def _of_json(text: str, source: str | Path) -> list[str]:
    """The names of a JSON list or object."""
    try:
        value: Any = parse_json(text, "the file")
        if isinstance(value, dict):
            numbers = {int(key): name for key, name in value.items()}
            value = [numbers[number] for number in range(len(numbers))]
        names = [name[-1] if isinstance(name, list) and name else name for name in value]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{source}: is no JSON list of names, and no object by class number ({reason(error)}). {HINT}"
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{source}: not all of its entries are text. {HINT}")
    return names
