"""Elements and attributes of an XML file, with the bytes where each stands.

A parser that keeps the rest byte for byte: what is changed later are the
values of attributes, nothing else is written anew. Whether the file is well
formed is left to a real parser (:func:`problem`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from certrail.errors import InvalidRequest

_MARKUP = re.compile(
    rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>"
    rb"|(?P<doctype><!DOCTYPE(?:[^\[>]|\[.*?\]\s*)*>)"
    rb"|<(?P<close>/?)(?P<name>[A-Za-z_:][^\s/>]*)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*?)"
    rb"(?P<empty>/?)>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(
    rb"(?P<space>\s+)(?P<name>[A-Za-z_:][^\s=]*)\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)')"
)
_ENTITY = re.compile(r"&(#x?[0-9A-Fa-f]+|\w+);")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute: *start* to *end* is its value, *outer* to ``end + 1`` all of it."""

    value: str
    start: int
    end: int
    outer: int
    number: int


@dataclass(eq=False)
class Element:
    """An element; *end* is where attributes may be added."""

    name: str
    number: int
    end: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def get(self, name: str, default: str = "") -> str:
        """Return the value of an attribute."""
        found = self.attributes.get(name)
        return found.value if found is not None else default

    def all(self, name: str) -> Iterator[Element]:
        """Yield every element called *name* below this one."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)


def problem(data: bytes) -> str:
    """Return "" if *data* is well-formed XML, else what is wrong and where."""
    parser = expat.ParserCreate()
    # Entities of a document type are never expanded: the parser is asked for errors only.
    parser.UseForeignDTD(False)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as exc:
        return f"line {exc.lineno}: {expat.errors.messages[exc.code]}"
    except (LookupError, ValueError):
        return "line 1: an encoding that is not known"
    return ""


def parse(data: bytes, path: str) -> Element:
    """Return the document; the root element is its child.

    Raises:
        InvalidRequest: not well formed, or written in a way that is not read here.
    """
    if wrong := problem(data):
        raise InvalidRequest(f"{path}, {wrong}", remedy="Correct the file; nothing was changed.")
    declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([A-Za-z0-9._-]+)", data)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or encoding.startswith(("utf-16", "utf-32")):
        raise InvalidRequest(
            f"{path} is written in {encoding}, which is not edited here",
            remedy="Save it as UTF-8, then retry.",
        )
    document = Element("", 1, 0)
    open_elements = [document]
    for match in _MARKUP.finditer(data):
        if match["doctype"] and b"<!ENTITY" in match["doctype"]:
            raise InvalidRequest(
                f"{path} declares entities, so what it says is not all in it",
                remedy="Write their text where they are used, then retry.",
            )
        if not match["name"]:
            continue
        if match["close"]:
            open_elements.pop()
            continue
        element = _element(data, match, encoding)
        open_elements[-1].children.append(element)
        if not match["empty"]:
            open_elements.append(element)
    return document


def _element(data: bytes, match: re.Match[bytes], encoding: str) -> Element:
    number = data.count(b"\n", 0, match.start()) + 1
    start = match.start("attributes")
    element = Element(match["name"].decode(encoding, "replace"), number, start)
    for one in _ATTRIBUTE.finditer(match["attributes"]):
        which = "double" if one["double"] is not None else "single"
        first, last = start + one.start(which), start + one.end(which)
        text = _unescaped(data[first:last].decode(encoding, "surrogateescape"))
        line = data.count(b"\n", 0, first) + 1
        element.attributes[one["name"].decode(encoding, "replace")] = Attribute(
            text, first, last, start + one.start(), line
        )
        element.end = last + 1
    return element


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("#x"):
            return chr(int(name[2:], 16))
        return chr(int(name[1:])) if name.startswith("#") else _ENTITIES.get(name, found[0])

    return _ENTITY.sub(one, text)
