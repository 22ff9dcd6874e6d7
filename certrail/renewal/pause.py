"""How long a renewal waits after what came before it, and why: a function of what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from certrail.renewal.moments import pause_after
from certrail.words import counted


class PauseCode(StrEnum):
    """What a renewal waits after."""

    FAILED = "after-failure"
    UNANSWERED = "after-approval-expired"
    UNDONE = "after-cancellation"


@dataclass(frozen=True, slots=True)
class Past:
    """The newest request, the policy's or a person's, that did not replace the certificate.

    Attributes:
        ended: how it ended.
        ended_at: when.
        failures: runs of it and of those before it, or of approvals that nobody gave.
        what: the request in words, as the beginning of a sentence.
    """

    ended: Literal["failed", "unanswered"]
    ended_at: datetime
    failures: int = 1
    what: str = "its renewal"


@dataclass(frozen=True, slots=True)
class Undone:
    """A person's request for the certificate that was called off, by them or with its job.

    Attributes:
        ended_at: when it was called off.
        what: the request in words, as the beginning of a sentence.
    """

    ended_at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A renewal that waits although there is a reason for it.

    Attributes:
        code: what it waits after.
        message: the same for people.
        until: when it begins.
    """

    code: PauseCode
    message: str
    until: datetime


def pause(
    past: Past | None, undone: Undone | None, ends: datetime | None, at: datetime
) -> Pause | None:
    """Return what keeps a renewal from beginning at *at*, None if nothing does.

    The same cause is not tried every minute, and a person has time to retry
    what failed, or to look at what they stopped. No pause is longer than a
    sixth of the time that was left: a certificate does not expire because
    somebody forgot what failed.

    Args:
        past: the newest request that failed, or that nobody approved.
        undone: the newest request of a person that was called off.
        ends: when the certificate ends, None where there is none.
        at: when the renewal would begin.
    """
    found = [one for one in (_after(past, ends), _after_undone(undone, ends)) if one is not None]
    longest = max(found, key=lambda one: one.until, default=None)
    return longest if longest is not None and longest.until > at else None


def _after(past: Past | None, ends: datetime | None) -> Pause | None:
    if past is None:
        return None
    until = past.ended_at + pause_after(past.failures, _left(ends, past.ended_at))
    if past.ended == "unanswered":
        message = f"nobody approved the request before it in time, by {_text(past.ended_at)}"
        return Pause(PauseCode.UNANSWERED, message, until)
    message = f"{past.what} failed on {_text(past.ended_at)}"
    if past.failures > 1:
        message += f", {counted(past.failures, 'attempt')} in all"
    return Pause(PauseCode.FAILED, message, until)


def _after_undone(undone: Undone | None, ends: datetime | None) -> Pause | None:
    if undone is None:
        return None
    until = undone.ended_at + pause_after(1, _left(ends, undone.ended_at))
    message = f"{undone.what} was called off on {_text(undone.ended_at)}"
    return Pause(PauseCode.UNDONE, message, until)


def _left(ends: datetime | None, since: datetime) -> timedelta:
    return ends - since if ends is not None else timedelta(days=30)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
