"""Reading YAML with the line of every value, and without its traps.

Duplicate keys, tags that make objects, aliases that grow without bound and
endless nesting are refused. Only ``true``, ``false``, ``null``, decimal
numbers and texts exist: ``12:30`` is a text, not 750.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from certrail.errors import InvalidRequest

Path_ = tuple[str | int, ...]

_LARGEST = 32 * 1024 * 1024
_DEEPEST = 30
_MOST_VALUES = 1_500_000
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_DECIMAL = re.compile(r"^[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?$")
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document as plain data.

    Attributes:
        name: of the file, for messages.
        data: mappings, lists, texts, numbers, booleans and None.
    """

    name: str
    data: Any = field(repr=False)
    _lines: Mapping[Path_, int] = field(repr=False, default_factory=dict)

    def line(self, path: Path_) -> int:
        """Return the line of the value at *path*, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def where(self, path: Path_) -> str:
        """Return ``file:line`` of the value at *path*."""
        return f"{self.name}:{self.line(path)}"


def path_text(path: Path_) -> str:
    """Return ``profiles[0].validation.dns``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def read(text: str, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Read one YAML document; ``${NAME}`` in values comes from *environment*.

    ``$${`` stands for ``${``.

    Raises:
        InvalidRequest: it is not YAML, or uses what is refused; with ``name:line``.
    """
    if len(text) > _LARGEST:
        raise InvalidRequest(f"{name} is larger than {_LARGEST // 1024 // 1024} MiB")
    reader = _Reader(name, os.environ if environment is None else environment)
    try:
        _check_depth(text, name)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        why = ", ".join(part for part in (exc.problem, exc.context) if part)
        raise InvalidRequest(f"{name}:{line}: not YAML: {why}") from None
    except yaml.YAMLError as exc:
        raise InvalidRequest(f"{name}: not YAML: {exc}") from None
    data = reader.value(node, ()) if node is not None else None
    return Document(name, data, reader.lines)


def _check_depth(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InvalidRequest(f"{name}:{line}: nested more than {_DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.lines: dict[Path_, int] = {}
        self._name = name
        self._environment = environment
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise self._wrong(node, f"more than {_MOST_VALUES} values, aliases counted each time")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._wrong(node, "an alias stands inside of what it repeats")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if node.tag != f"{_TAG}seq":
                raise self._wrong(node, f"the tag {node.tag} is not allowed")
            assert isinstance(node, yaml.SequenceNode)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        if node.tag != f"{_TAG}map":
            raise self._wrong(node, f"the tag {node.tag} is not allowed")
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged |= self._merge(value_node, path)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._wrong(key_node, "a key must be a text")
            key = str(key_node.value)
            if key in found:
                raise self._wrong(key_node, f"{path_text((*path, key))} is there twice")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*path, key))
        return {**merged, **found}

    def _merge(self, node: yaml.Node, path: Path_) -> dict[str, Any]:
        if isinstance(node, yaml.MappingNode):
            return dict(self.value(node, path))
        if isinstance(node, yaml.SequenceNode):
            merged: dict[str, Any] = {}
            for item in reversed(node.value):
                merged |= self._merge(item, path)
            return merged
        raise self._wrong(node, "`<<` takes a mapping")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "int" and _INTEGER.match(text):
            return int(text)
        if kind == "float" and _DECIMAL.match(text):
            return float(text)
        if kind not in ("str", "bool", "int", "float", "timestamp", "value"):
            raise self._wrong(node, f"the tag {node.tag} is not allowed")
        return self._expand(node, text)

    def _expand(self, node: yaml.ScalarNode, text: str) -> str:
        if "${" not in text:
            return text

        def replace(match: re.Match[str]) -> str:
            if match[1]:
                return "${"
            name = match[2]
            if not _NAME.match(name):
                raise self._wrong(node, f"${{{name}}} does not name an environment variable")
            if name not in self._environment:
                raise self._wrong(node, f"the environment variable {name} is not set")
            return self._environment[name]

        return _VARIABLE.sub(replace, text)

    def _wrong(self, node: yaml.Node, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name}:{node.start_mark.line + 1}: {why}")
