"""Names of delivered files and fields: made from a template, never a way out of their place."""

from __future__ import annotations

import string

from certrail.model import Site
from certrail.servers.versions import slug

_PLAIN = frozenset(string.ascii_letters + string.digits + "._-+@=")
_LONGEST = 120
_FIELD = "{name}"


def checked_template(template: str) -> str:
    """Return *template* if every name made of it is a plain file name.

    Raises:
        ValueError: it has characters or a form that are not allowed.
    """
    rest = template.replace(_FIELD, "x")
    if not rest or rest.startswith((".", "-")) or set(rest) - _PLAIN or len(rest) > _LONGEST:
        raise ValueError(
            f"{template!r} is no plain name: letters, digits and ._-+@= only, not starting with "
            "a dot or a dash; {name} stands for the host name"
        )
    return template


def filled(template: str, site: Site) -> str:
    """Return the name that *template* means for *site*."""
    return template.replace(_FIELD, slug(site.names[0] if site.names else site.id))
