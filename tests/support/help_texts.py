"""What a command's help says of every option."""

from __future__ import annotations

import click


def silent_options(command: click.Command, only_if_given: tuple[str, ...] = ()) -> list[str]:
    """Options that take a value and whose help says neither a default nor that they are required nor what they are; without
    `only_if_given`, which do something only where they are given."""
    context = click.Context(command, **command.context_settings)
    silent = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.is_flag or parameter.opts[0] in only_if_given:
            continue
        record = parameter.get_help_record(context)
        text = record[1] if record else ""
        if text.count("[default: ") + text.count("[required]") != 1 or text.startswith("["):
            silent.append(parameter.opts[0])
    return silent
