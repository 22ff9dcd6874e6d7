"""When a CA that asks to be left alone is left alone by everybody, not only by who was told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, auto

from certrail.errors import CertrailError, Throttled
from certrail.tracker import Title

LONGEST = timedelta(minutes=15)
"""A CA that wants to be left alone for longer holds up nobody but who was told."""

AT_THE_CA = frozenset(
    {
        Title.ACME_ACCOUNT_CREATED,
        Title.DOMAIN_VALIDATED,
        Title.CERTIFICATE_ISSUED,
        Title.ISSUING_CERTIFICATE,
    }
)
"""Steps that talk to the CA; the others go on while its budget pauses."""


class Code(StrEnum):
    """Why a budget pauses after an error, or does not."""

    PAUSED = auto()
    NOT_THROTTLED = auto()
    ANOTHER_PARTY = auto()  # a DNS provider or device put the step off
    NO_MOMENT = auto()  # it did not say when to come back
    TOO_LONG = auto()  # limits of hours are those of a name or an order (RFC 8555 section 6.6)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an error for the budget of the CA.

    Attributes:
        wait: how long nobody is to ask the CA; zero unless the budget pauses.
    """

    code: Code
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Pause:
    """A budget that pauses.

    Attributes:
        budget: ``ca:NAME``.
        until: when it goes on, by the database's clock.
        why: what the CA said.
        left: how long that is from now, whatever the clock of this machine says.
    """

    budget: str
    until: datetime
    why: str
    left: timedelta = field(default=timedelta(0), compare=False)

    @property
    def message(self) -> str:
        """One line for people."""
        moment = self.until.strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.budget.partition(':')[2]} is left alone until {moment}: {self.why}"


def budget_of(ca: str) -> str:
    """Return the budget of the CA connector *ca*."""
    return f"ca:{ca}"


def after(error: CertrailError, *, title: Title, ca: str) -> Verdict:
    """Decide whether the budget of *ca* pauses because a step ended with *error*.

    A wait of hours pauses nobody else: public CAs set it for one registered
    domain or one set of names, whose request then fails with that cause.
    """
    if not isinstance(error, Throttled):
        return Verdict(Code.NOT_THROTTLED)
    if title not in AT_THE_CA or error.connector != ca:
        return Verdict(Code.ANOTHER_PARTY)
    if error.retry_after is None or error.retry_after <= timedelta(0):
        return Verdict(Code.NO_MOMENT)
    if error.retry_after > LONGEST:
        return Verdict(Code.TOO_LONG)
    return Verdict(Code.PAUSED, error.retry_after)


def last(pauses: Iterable[Pause], names: Sequence[str]) -> Pause | None:
    """Return the pause that holds up whoever draws on *names* the longest, None for none."""
    held = [one for one in pauses if one.budget in names and one.left > timedelta(0)]
    return max(held, key=lambda one: one.left, default=None)
