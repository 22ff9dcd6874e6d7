"""Obtained and installed are two things: when may a certificate that is there be installed?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from certrail.configuration.plan import Hold

_LOOK_AGAIN = timedelta(days=30)


class Why(StrEnum):
    """Why a certificate is installed when it is."""

    OPEN = "open"
    WINDOW = "window"
    DEADLINE = "deadline"
    SHUT = "shut"


@dataclass(frozen=True, slots=True)
class Verdict:
    """When a certificate is installed.

    Attributes:
        why: the reason.
        message: the reason for people.
        until: what is waited for; None: install now.
    """

    why: Why
    message: str
    until: datetime | None = None


def install_at(hold: Hold | None, now: datetime) -> Verdict:
    """Return whether a certificate is installed now, or until when it waits."""
    if hold is None:
        return Verdict(Why.OPEN, "no maintenance window applies")
    opens = hold.calendar.next_opening(now)
    if opens == now:
        return Verdict(Why.OPEN, "the maintenance window is open")
    deadline = hold.deadline
    if deadline is not None and (opens is None or deadline < opens):
        if deadline <= now:
            return Verdict(Why.DEADLINE, "the hard deadline has passed: no window is waited for")
        return Verdict(
            Why.DEADLINE,
            f"no window opens before the hard deadline at {_text(deadline)}: it is installed then",
            deadline,
        )
    if opens is None:
        return Verdict(
            Why.SHUT,
            "no maintenance window opens within a year: correct the profile, "
            "then cancel this request and start another",
            now + _LOOK_AGAIN,
        )
    return Verdict(Why.WINDOW, f"waits for the maintenance window at {_text(opens)}", opens)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
