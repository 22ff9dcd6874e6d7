"""Decisions about certificates: pure functions with reason codes.

No I/O and no clock: the caller passes *now*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from certrail.configuration.profile import Approval


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
        return Verdict(Undo.RESTORE, "nothing is known against the state before")
    if previous.revoked_at is not None:
        return Verdict(Undo.KEEP, "the previous certificate is revoked")
    if previous.not_after <= now:
        return Verdict(Undo.KEEP, f"the previous certificate expired on {previous.not_after:%F}")
    return Verdict(Undo.RESTORE, "the previous certificate is still good")


def approval_of_retry(
    before: Mapping[str, Any] | None, present: Approval | None, *, obtains: bool
) -> Approval | None:
    """Decide what approval a retried request waits for, None for none.

    What was approved once stays approved; otherwise the profile counts as it is now.

    Args:
        before: what the request was to be approved by, and how that was decided.
        present: what its profile asks for now.
        obtains: whether a certificate is still to be asked for.
    """
    approved = (before or {}).get("decision") == "approved"
    return present if obtains and not approved else None


class Repair(StrEnum):
    """What reconciliation does about an active request; the reason in a word."""

    LEAVE = "leave"
    START = "start"
    RUN_AGAIN = "run-again"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of an active request and its Prefect run.

    Attributes:
        leased: a living worker holds the request.
        cancel_requested: somebody asked it to stop.
        state: type of the run's state in Prefect, None if there is no such run.
        state_age: since when it has been in that state.
        waits_for_approval: whether a paused run is still to be paused.
    """

    leased: bool
    state: str | None
    state_age: timedelta
    cancel_requested: bool = False
    waits_for_approval: bool = True


_REPAIR_GRACE = timedelta(seconds=30)
_WAITING = frozenset({"SCHEDULED", "PAUSED"})
_CALLED_OFF = frozenset({"CANCELLED", "CANCELLING"})


def repair(facts: RunFacts) -> Repair:
    """Decide what to do about a request from our own lease first, Prefect's word second.

    A run that Prefect calls running may be dead, and one that it calls
    crashed may be alive: only the lease tells whether somebody works on it.
    """
    if facts.leased:
        return Repair.LEAVE
    if facts.cancel_requested:
        return Repair.CANCEL
    if facts.state is None:
        return Repair.START
    is_stale = facts.state == "PAUSED" and not facts.waits_for_approval
    if (facts.state in _WAITING and not is_stale) or facts.state_age < _REPAIR_GRACE:
        return Repair.LEAVE
    if facts.state in _CALLED_OFF:
        return Repair.CANCEL
    return Repair.RUN_AGAIN
