"""The filter language of the inventory: ``status=automation-failed and days_left<30``.

An expression is clauses joined by ``and``. A clause is a field, an operator
and a value; several values after ``=`` mean any of them (``tag=shop,blog``),
none means that the field is empty (``profile=``). Values with spaces, commas
or the word ``and`` go into quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum

from certrail.errors import InvalidRequest

_LONGEST = 2000
_LARGEST = 10**6
_NO_WORDS: Mapping[str, Collection[str]] = {}

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"[^"]*"|'[^']*')
      | (?P<operator>!=|!~|<=|>=|=|~|<|>)
      | (?P<comma>,)
      | (?P<word>[^\s"'=!~<>,]+)
    )""",
    re.VERBOSE,
)

_PLAIN = re.compile(r"""^[^\s"'=!~<>,]+\Z""")


class Operator(StrEnum):
    """How a field is compared; ``~`` is "contains", without regard to case."""

    EQUAL = "="
    NOT_EQUAL = "!="
    CONTAINS = "~"
    CONTAINS_NOT = "!~"
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="

    @property
    def orders(self) -> bool:
        """Whether it asks for smaller or greater."""
        return self in (Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST)


class Kind(StrEnum):
    """What a field holds, and so what it can be compared with."""

    TEXT = "text"
    LIST = "list of texts"
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition.

    Attributes:
        field: canonical field name.
        operator: see :class:`Operator`.
        values: texts, numbers or aware datetimes by the field's kind; empty: the
            field is empty (for ``=``) or is not (for ``!=``).
    """

    field: str
    operator: Operator
    values: tuple[str | float | datetime, ...]


def parse(
    text: str,
    fields: Mapping[str, Kind],
    aliases: Mapping[str, str],
    words: Mapping[str, Collection[str]] = _NO_WORDS,
) -> list[Clause]:
    """Read an expression.

    Args:
        text: as typed.
        fields: the known fields.
        aliases: other names for some of them.
        words: of fields that hold nothing else, all that they can hold.

    Raises:
        InvalidRequest: it cannot be read; the message says where.
    """
    if len(text) > _LONGEST:
        raise InvalidRequest(f"the filter is longer than {_LONGEST} characters")
    tokens = _tokens(text)
    clauses = []
    position = 0
    while position < len(tokens):
        clause, position = _clause(text, tokens, position, fields, aliases)
        clauses.append(clause)
        if position < len(tokens):
            if tokens[position] != ("word", "and") or position + 1 == len(tokens):
                raise _wrong(text, f"`and` is expected before {tokens[position][1]!r}")
            position += 1
        _must_be_known(text, clause, words.get(clause.field))
    if not clauses:
        raise _wrong(text, "it is empty")
    return clauses


def render(clause: Clause) -> str:
    """Return *clause* as it would be typed; :func:`parse` reads it back.

    Raises:
        InvalidRequest: a value holds both kinds of quotes, which cannot be written.
    """
    return f"{clause.field}{clause.operator}{','.join(_rendered(v) for v in clause.values)}"


def _rendered(value: str | float | datetime) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float | int):
        return f"{value:.10g}"
    if _PLAIN.match(value) and value.lower() != "and":
        return value
    if '"' not in value:
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    raise InvalidRequest(f"a filter cannot hold both kinds of quotes: {value}")


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise _wrong(text, f"{stripped[position:].strip()[:20]!r} cannot be read")
        kind = str(match.lastgroup)
        value = match[kind]
        if kind == "word" and value.lower() == "and":
            value = "and"
        found.append((kind, value[1:-1] if kind == "quoted" else value))
        position = match.end()
    return found


def _clause(
    text: str,
    tokens: list[tuple[str, str]],
    position: int,
    fields: Mapping[str, Kind],
    aliases: Mapping[str, str],
) -> tuple[Clause, int]:
    kind, name = tokens[position]
    if kind != "word":
        raise _wrong(text, f"a field name is expected, not {name!r}")
    field = aliases.get(name.lower(), name.lower())
    if field not in fields:
        near = get_close_matches(name.lower(), [*fields, *aliases], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(fields))}"
        raise _wrong(text, f"there is no field {name!r}; {hint}")
    position += 1
    if position == len(tokens) or tokens[position][0] != "operator":
        raise _wrong(text, f"an operator is expected after {name!r}: = != ~ !~ < <= > >=")
    operator = Operator(tokens[position][1])
    position += 1
    raw: list[str] = []
    while position < len(tokens) and tokens[position] != ("word", "and"):
        token, value = tokens[position]
        if token not in ("word", "quoted"):
            raise _wrong(text, f"a value is expected, not {value!r}")
        raw.append(value)
        position += 1
        if position == len(tokens) or tokens[position][0] != "comma":
            break
        position += 1
        if position == len(tokens):
            raise _wrong(text, "a value is expected after the comma")
    _check(text, name, fields[field], operator, raw)
    values = tuple(_value(text, name, fields[field], value) for value in raw)
    return Clause(field, operator, values), position


def _check(text: str, name: str, kind: Kind, operator: Operator, raw: list[str]) -> None:
    if operator.orders and kind in (Kind.TEXT, Kind.LIST):
        raise _wrong(text, f"{name} is a {kind}; it is compared with = != ~ !~")
    if operator in (Operator.CONTAINS, Operator.CONTAINS_NOT) and kind in (Kind.NUMBER, Kind.TIME):
        raise _wrong(text, f"{name} is a {kind}; it is compared with = != < <= > >=")
    if not raw and operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
        raise _wrong(text, f"a value is expected after {name}{operator}")
    if len(raw) > 1 and operator.orders:
        raise _wrong(text, f"{name}{operator} takes one value")


def _value(text: str, name: str, kind: Kind, raw: str) -> str | float | datetime:
    if kind is Kind.NUMBER:
        try:
            number = float(raw)
        except ValueError:
            raise _wrong(text, f"{name} is a number, {raw!r} is not") from None
        if not math.isfinite(number) or abs(number) > _LARGEST:
            raise _wrong(text, f"{name} is compared with numbers up to {_LARGEST}, not with {raw}")
        return number
    if kind is Kind.TIME:
        try:
            moment = datetime.fromisoformat(raw)
        except ValueError:
            raise _wrong(text, f"{name} is a time like 2027-01-31 or 2027-01-31T12:00Z") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return raw


def slug(value: object) -> str:
    """Return a value that people type as it is stored: `Automation failed` is a status too."""
    return str(value).lower().replace(" ", "-")


def _must_be_known(text: str, clause: Clause, words: Collection[str] | None) -> None:
    """Refuse values that the field never holds: they would silently match nothing."""
    if words is None or clause.operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
        return
    for value in clause.values:
        if (wanted := slug(value)) in words:
            continue
        alike = [word for word in words if wanted in word] or get_close_matches(wanted, words, n=1)
        hint = f"did you mean {' or '.join(alike)}? " if wanted and alike else ""
        raise _wrong(
            text, f"there is no {clause.field} {value!r}; {hint}known are: {', '.join(words)}"
        )


def _wrong(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the filter {text!r}: {why}",
        remedy="Write clauses like: status=automation-failed and days_left<30 and names~shop",
    )
