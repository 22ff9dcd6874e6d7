"""What ``certrail connector add`` asks, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError

from certrail.cli._prefect_blocks import BlockField, BlockType
from certrail.errors import InvalidRequest

_TAKEN_BACK = "-"


def given(block_type: BlockType, pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings from FIELD=VALUE.

    Raises:
        InvalidRequest: one is of another form, or the type has no such setting.
    """
    values: dict[str, Any] = {}
    for one in pairs:
        field, separator, value = one.partition("=")
        if not separator:
            raise InvalidRequest(f"--set {one!r} is not FIELD=VALUE")
        if field not in block_type.fields:
            raise InvalidRequest(
                f"{block_type.slug} has no setting {field!r}",
                remedy=f"It has: {', '.join(block_type.fields)}",
            )
        values[field] = _value(block_type.fields[field], value)
    return values


def asked(block_type: BlockType, known: Mapping[str, Any], *, all_of_them: bool) -> dict[str, Any]:
    """Ask for every setting that is not *known*, or for those only that are needed.

    Asked for all, it goes on until they can be used together.
    """
    values: dict[str, Any] = {}
    while True:
        for field in block_type.fields.values():
            if field.name not in known and (all_of_them or field.required):
                _ask(block_type, field, known, values)
        # Each can be used, but perhaps not all of them together.
        told = _wrong(block_type, None, {**known, **values}) if all_of_them else ""
        if not told:
            return values
        click.echo(f"\n{told}")
        click.echo(f"Once more, then. Enter keeps an answer; `{_TAKEN_BACK}` takes it back.")


def _ask(
    block_type: BlockType, field: BlockField, known: Mapping[str, Any], values: dict[str, Any]
) -> None:
    """Ask for one setting until it can be used; what is to stay as it is is left alone."""
    click.echo(f"\n{field.description}")
    while text := _answer(field, values.get(field.name)):
        if text == _TAKEN_BACK and field.name in values and not field.required:
            del values[field.name]
            return
        # What cannot be used is told at once and asked again, not after all the questions.
        try:
            value = _value(field, text)
        except InvalidRequest as exc:
            click.echo(f"  {exc}")
            continue
        if not (wrong := _wrong(block_type, field, {**known, **values, field.name: value})):
            values[field.name] = value
            return
        click.echo(f"  {wrong}")


def _answer(field: BlockField, kept: Any) -> str:
    """Ask for one setting; returns "" where the default, or what was typed before, is to stay."""
    before = field.default if kept is None else kept
    default = "" if before is None or field.secret else _text(before)
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    words = f"{field.name} ({', '.join(map(str, choices))})" if choices else field.name
    needed = field.required and kept is None
    text = click.prompt(
        words,
        default=None if needed else default,
        show_default=bool(default),
        hide_input=field.secret,
    )
    return "" if text == default and not needed else str(text)


def _wrong(block_type: BlockType, field: BlockField | None, values: Mapping[str, Any]) -> str:
    """Return what is the matter with one setting, or with all together; "" when it can be used."""
    about = (field.name,) if field else ()
    try:
        block_type.cls(**values)
    except ValidationError as exc:
        for one in exc.errors(include_url=False, include_input=False, include_context=False):
            if one["loc"][:1] == about:
                return one["msg"].removeprefix("Value error, ")
    return ""


def _value(field: BlockField, text: str) -> Any:
    """Return typed text as the field wants it; lists are comma-separated or JSON."""
    kind = get_origin(field.annotation)
    if kind in (list, tuple) and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind in (list, tuple, dict):
        try:
            return json.loads(text)
        except ValueError as exc:
            what = "object" if kind is dict else "list"
            raise InvalidRequest(f"{field.name}: {text!r} is not a JSON {what}") from exc
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return json.dumps(value) if value else ""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
