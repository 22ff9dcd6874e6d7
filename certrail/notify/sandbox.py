"""Templates that other people write: what they can do is put values into words.

A template gets plain data, reads it and loops over lists. It cannot call
anything, include anything, reach Python behind the data, or grow without end.
Values are never taken for templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from certrail.log import plain

_LONGEST_SOURCE = 20_000
_LONGEST_RESULT = 400_000
_DEEPEST_LOOP = 2
# Filters that only shape text, numbers and lists.
_FILTERS = (
    "capitalize",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "replace",
    "round",
    "sort",
    "string",
    "striptags",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
)
_REFUSED = (
    nodes.Call,
    nodes.CallBlock,
    nodes.Extends,
    nodes.FilterBlock,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.Macro,
    nodes.Mul,
    nodes.Pow,
    nodes.Mod,
)


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self, undefined: type[Undefined], *, escapes: bool) -> None:
        super().__init__(
            autoescape=escapes,
            undefined=undefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, Mapping) and not attr.startswith("_") and not callable(value)


def render(source: str, data: Mapping[str, Any], *, html: bool, strict: bool = False) -> str:
    """Return the template *source* filled with *data*.

    Args:
        source: the template.
        data: mappings, lists, texts, numbers.
        html: whether values are escaped for HTML.
        strict: whether a name that is not in *data* is an error.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    environment = _Environment(StrictUndefined if strict else Undefined, escapes=html)
    try:
        _must_be_tame(environment, source)
        size = 0
        pieces = []
        for piece in environment.from_string(source).generate(dict(data)):
            size += len(piece)
            if size > _LONGEST_RESULT:
                raise ValueError("the result is too long")
            pieces.append(piece)
    except (TemplateError, SecurityError) as exc:
        line = getattr(exc, "lineno", None)
        where = f" (line {line})" if line else ""
        raise ValueError(f"{plain(exc.message or type(exc).__name__)}{where}") from exc
    except (TypeError, ArithmeticError, LookupError, RecursionError) as exc:
        raise ValueError(plain(exc)) from exc
    return "".join(pieces)


def check_template(source: str, part: str) -> None:
    """Check that *source* can be used for *part* of a message: subject, text or html.

    Raises:
        ValueError: it cannot.
    """
    from certrail.notify.sample import SAMPLE

    try:
        done = render(source, SAMPLE, html=part == "html", strict=True)
    except ValueError as exc:
        raise ValueError(f"the template of `{part}` cannot be used: {exc}") from exc
    if part == "subject" and "\n" in done.strip():
        raise ValueError("the template of `subject` makes more than one line")


def _must_be_tame(environment: _Environment, source: str) -> None:
    if len(source) > _LONGEST_SOURCE:
        raise ValueError(f"a template has {_LONGEST_SOURCE} characters at the most")
    tree = environment.parse(source)
    for node in tree.find_all(_REFUSED):
        raise ValueError(
            f"a template cannot use {type(node).__name__.lower()} (line {node.lineno})"
        )
    _must_not_nest(tree, 0)


def _must_not_nest(node: nodes.Node, depth: int) -> None:
    if isinstance(node, nodes.For):
        depth += 1
        if depth > _DEEPEST_LOOP or node.recursive:
            raise ValueError(f"loops nest {_DEEPEST_LOOP} deep at the most (line {node.lineno})")
    for child in node.iter_child_nodes():
        _must_not_nest(child, depth)
