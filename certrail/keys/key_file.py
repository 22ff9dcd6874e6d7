"""What a key file says, as text: the first key seals, an added one does not yet."""

from __future__ import annotations

from itertools import pairwise

from certrail.keys.seal import Keyring

_ADDED = "# added, seals nothing yet: certrail key rotate --added"


def with_added(text: str, key: str) -> str:
    """Return the file with *key* in it, which opens but does not seal yet."""
    return _text([*_lines(text), _ADDED, key])


def added(text: str) -> str | None:
    """Return the key that was added last and has not sealed yet; None if there is none.

    An older key is never taken for one: sealing by it again would undo a rotation.
    """
    lines = _lines(text)
    marked = [key for mark, key in pairwise(lines) if mark == _ADDED]
    return marked[-1] if marked else None


def sealing_by(text: str, key: str) -> str:
    """Return the file with *key* as the one that seals; the others only open."""
    return _text([key, *_without(_lines(text), key)])


def without(text: str, key_id: str) -> str:
    """Return the file without the key of that id."""
    lines = _lines(text)
    for line in lines:
        if not line.startswith("#") and Keyring.from_text(line).primary == key_id:
            lines = _without(lines, line)
    return _text(lines)


def _without(lines: list[str], key: str) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line != key:
            kept.append(line)
        elif kept and kept[-1] == _ADDED:
            kept.pop()
    return kept


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
