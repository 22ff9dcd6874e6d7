"""Decisions about certificates: pure functions with reason codes.

No I/O and no clock: the caller passes *now*.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Undo(StrEnum):
    """What to do with an installation that did not pass its test; the reason in a word."""

    RESTORE = "restore"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the sentence that explains it."""

    code: Undo
    message: str


class Dated(Protocol):
    """What is asked of a certificate here."""

    @property
    def not_after(self) -> datetime:
        """End of validity, aware UTC."""
        ...

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked, None if it was not."""
        ...


def undo_installation(previous: Dated | None, now: datetime) -> Verdict:
    """Decide whether what served before is put back after a failed test.

    *previous* is the certificate that was live, None if nothing was or it is
    not known. Never back to one that clients refuse anyway.
    """
    if previous is None:
        return Verdict(Undo.RESTORE, "the state before is put back")
    if previous.revoked_at is not None:
        return Verdict(Undo.KEEP, "the previous certificate is revoked")
    if previous.not_after <= now:
        return Verdict(Undo.KEEP, f"the previous certificate expired on {previous.not_after:%F}")
    return Verdict(Undo.RESTORE, "the previous certificate is still good")
