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
    ordered = sorted(splices, key=lambda one: one.start)
    return tuple(Replacement(data[one.start : one.end], one.new) for one in ordered)


def take_back(data: bytes, made: Iterable[Replacement], path: str) -> bytes:
    """Undo *made* in a file that somebody else has edited since.

    Raises:
        Conflict: what we wrote is not there, or is there more than once; the
            remedy says what to write back by hand.
    """
    same: dict[bytes, list[bytes]] = {}
    for one in made:
        same.setdefault(one.new, []).append(one.old)
    for new, olds in same.items():
        parts = data.split(new)
        if len(parts) != len(olds) + 1:
            raise Conflict(
                f"{path} was edited since and our change in it cannot be taken back",
                remedy=f"In {path}, replace `{_shown(new)}` by `{_shown(olds[0])}`"
                if olds[0]
                else f"In {path}, remove `{_shown(new)}`",
            )
        # The same text in several places: each gets back what was there, in their order.
        data = parts[0] + b"".join(old + part for old, part in zip(olds, parts[1:], strict=True))
    return data


def _shown(raw: bytes) -> str:
    return plain(raw.decode(errors="replace").strip())
