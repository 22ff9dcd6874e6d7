"""The Link header (RFC 8288), as far as ACME uses it."""

from __future__ import annotations

import re

_LINK = re.compile(
    r"<([^<>]*)>((?:\s*;\s*[\w!#$&+.^`|~*-]+(?:\s*=\s*(?:\"[^\"]*\"|[^\s\",;]+))?)*)"
)
_PARAMETER = re.compile(r";\s*([\w!#$&+.^`|~*-]+)\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]+))")


def links(header: str, relation: str) -> list[str]:
    """Return the targets of every link that has *relation*, in order.

    A CA may send several of one relation (RFC 8555 section 7.4.2), in one
    header or in several joined by commas.
    """
    found = []
    for target, parameters in _LINK.findall(header):
        for name, quoted, bare in _PARAMETER.findall(parameters):
            if name.lower() == "rel" and relation in (quoted or bare).lower().split():
                found.append(target)
                break
    return found
