"""Replace byte ranges of a file, and take such a replacement back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from certrail.errors import Conflict
from certrail.log import plain


@dataclass(frozen=True, slots=True)
class Splice:
    """Bytes *start* to *end* become *new*."""

    start: int
    end: int
    new: bytes


@dataclass(frozen=True, slots=True)
class Replacement:
    """A splice that was made: *old* became *new*."""

    old: bytes
    new: bytes


def splice(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Return *data* with every splice made; they must not overlap."""
    for one in sorted(splices, key=lambda one: one.start, reverse=True):
        data = data[: one.start] + one.new + data[one.end :]
    return data


def replacements(data: bytes, splices: Iterable[Splice]) -> tuple[Replacement, ...]:
    """Return what *splices* do to *data*, for :func:`take_back`."""
    return tuple(Replacement(data[one.start : one.end], one.new) for one in splices)


def take_back(data: bytes, made: Iterable[Replacement], path: str) -> bytes:
    """Undo *made* in a file that somebody else has edited since.

    Raises:
        Conflict: what we wrote is not there, or is there more than once; the
            remedy says what to write back by hand.
    """
    for one in made:
        if data.count(one.new) != 1:
            raise Conflict(
                f"{path} was edited since and our change in it cannot be taken back",
                remedy=f"In {path}, replace `{_shown(one.new)}` by `{_shown(one.old)}`"
                if one.old
                else f"In {path}, remove `{_shown(one.new)}`",
            )
        data = data.replace(one.new, one.old)
    return data


def _shown(raw: bytes) -> str:
    return plain(raw.decode(errors="replace").strip())
