"""Paths on a host: what is accepted, how bytes map to text, how patterns expand."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import secrets
from collections.abc import Callable

from certrail.errors import InvalidRequest

_WILD = frozenset("*?[")

_TEMPORARY = re.compile(r"\.certrail-[0-9a-f]{16}")


def to_bytes(path: str) -> bytes:
    """Return the bytes of *path*; what :func:`to_text` returned round-trips."""
    return path.encode("utf-8", "surrogateescape")


def to_text(raw: bytes) -> str:
    """Return a path as text; bytes that are not UTF-8 become surrogates (PEP 383)."""
    return raw.decode("utf-8", "surrogateescape")


def readable(path: str) -> str:
    """Return *path* for a message: one line, and printable on any terminal."""
    return ascii(path)[1:-1] if not path.isprintable() else path


def checked(path: str) -> str:
    """Return *path* if it is an absolute POSIX path.

    Raises:
        InvalidRequest: it is relative, empty, or holds a NUL or what cannot be encoded.
    """
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(
            f"not an absolute path: {readable(path)!r}",
            remedy="Give the path from the root, starting with a slash.",
        )
    try:
        to_bytes(path)
    except UnicodeEncodeError as exc:
        raise InvalidRequest(f"not a path: {readable(path)!r}") from exc
    return path


def checked_entry(path: str) -> str:
    """Return *path* if it names an entry of a directory, so that it can be made or replaced.

    Raises:
        InvalidRequest: as :func:`checked`, or it ends in ``/``, ``.`` or ``..``.
    """
    if posixpath.basename(checked(path)) in ("", ".", ".."):
        raise InvalidRequest(
            f"names no file: {readable(path)!r}", remedy="Give the path of a file, without '/.'."
        )
    return path


def checked_removal(path: str, *, tree: bool) -> str:
    """Return *path* if removing it can be meant.

    Raises:
        InvalidRequest: as :func:`checked_entry`, or it climbs with ``..``, or
            *tree* is asked for the root or a directory directly below it.
    """
    parts = [part for part in checked_entry(path).split("/") if part not in ("", ".")]
    if ".." in parts or (tree and len(parts) < 2):
        raise InvalidRequest(
            f"refusing to remove {readable(path)!r}",
            remedy="Name a directory at least two levels below the root, without '..'.",
        )
    return path


def temporary_beside(path: str) -> str:
    """Return an unused name in the directory of *path*.

    It starts with a dot and has no suffix, so that no server's
    ``include *.conf`` or ``include sites-enabled/*`` picks it up meanwhile.
    """
    return posixpath.join(posixpath.dirname(path), f".certrail-{secrets.token_hex(8)}")


def is_temporary(name: str) -> bool:
    """Return whether *name* is one that :func:`temporary_beside` made."""
    return _TEMPORARY.fullmatch(name) is not None


def expand(
    pattern: str,
    list_directory: Callable[[str], tuple[str, ...]],
    exists: Callable[[str], bool],
) -> tuple[str, ...]:
    """Return the existing paths that match *pattern*, sorted.

    ``*``, ``?`` and ``[…]`` match within one component, and a leading dot only
    where the pattern has one. *list_directory* returns nothing where there is
    no directory.
    """
    found = [""]
    wild = False
    for part in checked(pattern).split("/")[1:]:
        if not _WILD & set(part):
            found = [f"{base}/{part}" for base in found]
            if wild:
                found = [path for path in found if exists(path)]
            continue
        wild = True
        found = [
            f"{base}/{name}"
            for base in found
            for name in list_directory(base or "/")
            if fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")
        ]
    if not wild:
        found = [path for path in found if exists(path)]
    return tuple(sorted(found))
