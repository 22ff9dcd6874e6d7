"""Figures of the dashboard: a number, and the filter that opens the same rows in the inventory.

A figure is nothing but its filter; the number is counted by it, so that both
can never differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from certrail.store import inventory
from certrail.store.filters import Clause, Operator, render
from certrail.store.inventory import parse_filter
from certrail.words import quoted


@dataclass(frozen=True, slots=True)
class Asked:
    """What a figure counts.

    Attributes:
        code: stable name.
        label: for people.
        filter: expression over the inventory; empty for all endpoints.
    """

    code: str
    label: str
    filter: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One number."""

    code: str
    label: str
    filter: str
    count: int

    @property
    def command(self) -> str:
        """The call that lists the rows that were counted."""
        return f"{_ALL} --filter {quoted(self.filter)}" if self.filter else _ALL

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "code": self.code,
            "label": self.label,
            "count": self.count,
            "filter": self.filter,
            "command": self.command,
        }


_ALL = "certrail endpoint list"


def counted(asked: Sequence[Asked]) -> list[Figure]:
    """Count all of them in one pass over the inventory."""
    counts = inventory.counts([parse_filter(one.filter) if one.filter else [] for one in asked])
    return [
        Figure(one.code, one.label, one.filter, count)
        for one, count in zip(asked, counts, strict=True)
    ]


ATTENTION = (
    Asked("expired", "Certificate has expired", "days_left<0"),
    Asked(
        "too-late",
        "Will expire before its next run",
        "risks=renewal-too-late",
    ),
    Asked("failed", "Automation failed", "status=automation-failed"),
    Asked("action-required", "Action required", "status=action-required"),
    Asked("at-risk", "Automation at risk", "status=automation-at-risk"),
    Asked("served-differs", "Serves another certificate than expected", "risks=served-differs"),
    Asked("approvals", "Waiting for approval", "status=approval-pending"),
)

SECURITY = (
    Asked("weak-key", "Weak key", "security_findings=weak-key"),
    Asked("weak-signature", "Weak signature", "security_findings=weak-signature"),
    Asked("self-signed", "Self-signed", "security_findings=self-signed"),
    Asked("name-mismatch", "Name mismatch", "security_findings=name-mismatch,no-names"),
    Asked(
        "chain",
        "Untrusted or incomplete chain",
        "security_findings=untrusted-root,chain-incomplete,chain-invalid,chain-misordered",
    ),
    Asked("old-tls", "Old TLS", "security_findings=old-tls,weak-handshake"),
    Asked("key-reused", "One key on several hosts", "security_findings=key-reused"),
    Asked("long-validity", "Valid longer than allowed", "security_findings=long-validity"),
    Asked("client-auth", "Public, with clientAuth", "security_findings=client-auth"),
)

COVERAGE = (
    Asked("all", "Endpoints", ""),
    Asked("managed", "With a profile", "profile!="),
    Asked("unmanaged", "Without a profile", "profile="),
    Asked("not-configured", "Not configured", "status=not-configured"),
    Asked("proven", "Renewed and proven at least once", "profile!= and last_success_at!="),
    Asked("unseen", "No certificate known", "fingerprint="),
)

_PROVEN = "profile!= and last_success_at!= and risks= and status!=automation-failed,action-required"


def readiness() -> list[Asked]:
    """Return what tells whether shorter lifetimes can come (100 days in 2027, 47 in 2029)."""
    found = []
    for days in (100, 47):
        found += [
            Asked(
                f"proven-{days}",
                f"Ready for {days} days: renewed by itself, proven, nothing in the way",
                f"{_PROVEN} and lifetime_days<={days}",
            ),
            Asked(
                f"longer-{days}",
                f"Proven, but still lasts longer than {days} days",
                f"{_PROVEN} and lifetime_days>{days}",
            ),
            Asked(
                f"by-hand-{days}",
                f"Nobody renews it, and it lasts longer than {days} days",
                f"profile= and lifetime_days>{days}",
            ),
        ]
    return found


def coming(now: datetime) -> list[Asked]:
    """Return what renews within the next 7 and the next 30 days, today among them."""
    begin = now.date()
    return [
        Asked(
            f"next-{days}",
            f"Renewals of the next {days} days",
            f"next_renewal_at>={begin} and next_renewal_at<{begin + timedelta(days=days)}",
        )
        for days in (7, 30)
    ]


def calendar(now: datetime, days: int) -> list[Asked]:
    """Return one figure for each of the next *days*: what renews on it."""
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    for number in range(days):
        day = begin + timedelta(days=number)
        following = day + timedelta(days=1)
        found.append(
            Asked(
                f"{day:%Y-%m-%d}",
                f"{day:%a %d %b}",
                f"next_renewal_at>={day:%Y-%m-%d} and next_renewal_at<{following:%Y-%m-%d}",
            )
        )
    return found


def by_value(field: str, values: Iterable[str], also: str = "") -> list[Asked]:
    """Return one figure for each value of a column."""
    more = f" and {also}" if also else ""
    return [
        Asked(value, value, render(Clause(field, Operator.EQUAL, (value,))) + more)
        for value in values
    ]
