"""The command line as text, from the help that each command carries."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from certrail.cli.commands import cli


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ("certrail",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=path[-1]) as context:
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and not inner.hidden:
                    yield from commands(inner, (*path, name))


def command_line(_: str) -> str:
    """Return a section for each command."""
    return "\n\n".join(_section(path, command) for path, command in commands())


def _section(path: tuple[str, ...], command: click.Command) -> str:
    words = " ".join(path)
    with click.Context(command, info_name=words) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        parts = [f"{'#' * (len(path) + 1)} {words}", f"```\n{words} {usage}\n```"]
        if command.help:
            parts.append(_prose(command.help))
        rows = [_row(option, context) for option in command.params if _is_shown(option)]
        if rows:
            parts.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
        if command.epilog:
            lines = command.epilog.replace("\b", "").strip().splitlines()
            example = "\n".join(line.removeprefix("  ") for line in lines[1:])
            parts.append(f"```sh\n{example}\n```")
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    cleaned = inspect.cleandoc(text).replace("\b\n", "")
    # Angle brackets would be taken for HTML, but not inside code.
    parts = cleaned.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace(">", "&gt;") for part in parts[::2]]
    return "`".join(parts)


def _is_shown(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not parameter.hidden


def _row(option: click.Parameter, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    name, meaning = (part.replace("|", "\\|").replace("\n", " ") for part in record)
    return f"| `{name}` | {' '.join(meaning.split())} |"
