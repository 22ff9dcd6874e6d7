"""The dashboard: what needs a person first, then what is coming, then how it is going."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from certrail.reports.figures import (
    ATTENTION,
    COVERAGE,
    SECURITY,
    Asked,
    Figure,
    by_value,
    calendar,
    counted,
    readiness,
)
from certrail.store import intents, inventory
from certrail.store.database import transaction
from certrail.store.intents import OpenIntent
from certrail.store.inventory import Endpoint, parse_filter
from certrail.store.request_view import time_text
from certrail.store.schema import connectors, endpoints, executors, profiles
from certrail.tracker import ACTIVE, FAILED

_DAYS = 30
_WEEK = 7
_ROWS = 25
_COLLISIONS = 10
_NEEDS = "status=automation-failed,action-required,approval-pending,automation-at-risk"


@dataclass(frozen=True, slots=True)
class Collision:
    """Renewals of one target or CA that fall into the same hour."""

    of: str
    name: str
    hour: datetime
    figure: Figure

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "of": self.of,
            "name": self.name,
            "hour": time_text(self.hour),
            **self.figure.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Everything that it shows; groups of figures by their name.

    Attributes:
        urgent: the endpoints that need a person, the least time left first.
        success_rate: part of the endpoints tried within 30 days whose installation was proven;
            None if none was tried.
        unknown: what was begun, and of which nobody knows whether it happened.
    """

    at: datetime
    groups: Mapping[str, Sequence[Figure]]
    urgent: Sequence[Endpoint]
    collisions: Sequence[Collision]
    success_rate: float | None
    executors: Sequence[Mapping[str, Any]] = field(default=())
    connectors: Sequence[Mapping[str, Any]] = field(default=())
    unknown: Sequence[OpenIntent] = field(default=())

    def figures(self) -> list[Figure]:
        """Return every figure."""
        found = [figure for group in self.groups.values() for figure in group]
        return found + [collision.figure for collision in self.collisions]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "at": time_text(self.at),
            "needs_attention": [figure.to_json() for figure in self.groups["needs_attention"]],
            "urgent": [urgent_row(row) for row in self.urgent],
            "renewals_next_7_days": sum(f.count for f in self.groups["calendar"][:_WEEK]),
            "renewals_next_30_days": sum(f.count for f in self.groups["calendar"]),
            "collisions": [collision.to_json() for collision in self.collisions],
            "success_rate": self.success_rate,
            **{
                name: [figure.to_json() for figure in group]
                for name, group in self.groups.items()
                if name != "needs_attention"
            },
            "executors": [dict(row) for row in self.executors],
            "connectors": [dict(row) for row in self.connectors],
            "unknown_outcomes": [
                {
                    "location": one.location,
                    "request_id": str(one.request_id),
                    "action": one.action,
                    "since": time_text(one.since),
                    "status": str(one.status),
                    "remedy": one.remedy,
                }
                for one in self.unknown
            ],
        }


TITLES: Mapping[str, str] = {
    "needs_attention": "Needs attention",
    "calendar": "Renewals of the next 30 days",
    "ca_load": "Renewals of the next 30 days by CA",
    "in_flight": "In flight, by step",
    "verified": "Installations of the last 30 days",
    "security": "Security findings",
    "coverage": "Coverage",
    "readiness": "Ready for shorter lifetimes",
}
"""Groups of figures in the order in which they are shown."""


def build(now: datetime | None = None) -> Dashboard:
    """Look at the inventory and return the dashboard as of now."""
    at = now or datetime.now(UTC)
    since = at - timedelta(days=_DAYS)
    until = f"next_renewal_at<{at + timedelta(days=_DAYS):%Y-%m-%d}"
    cas = [name for name, _ in inventory.values("ca")]
    active = ",".join(ACTIVE)
    in_flight = inventory.values("step", parse_filter(f"status={active}"))
    groups: dict[str, list[Asked]] = {
        "needs_attention": list(ATTENTION),
        "calendar": calendar(at, _DAYS),
        "ca_load": by_value("ca", cas, f"next_renewal_at>={at:%Y-%m-%d} and {until}"),
        "in_flight": by_value("step", [title for title, _ in in_flight], f"status={active}"),
        "verified": [
            Asked(
                "verified",
                "Proven by a handshake or read back",
                f"last_success_at>={since:%Y-%m-%d}",
            ),
            Asked("failed", "Failed and not put right", "status=automation-failed,action-required"),
        ],
        "security": list(SECURITY),
        "coverage": list(COVERAGE),
        "readiness": readiness(),
    }
    found = iter(counted([asked for group in groups.values() for asked in group]))
    figures = {name: [next(found) for _ in group] for name, group in groups.items()}
    verified, failed = figures["verified"]
    tried = verified.count + failed.count
    return Dashboard(
        at=at,
        groups=figures,
        urgent=_urgent(),
        collisions=_collisions(at),
        success_rate=round(verified.count / tried, 4) if tried else None,
        executors=_executors(),
        connectors=_connectors(),
        unknown=intents.unknown(),
    )


def urgent_row(row: Endpoint) -> dict[str, Any]:
    """Return what is shown of an endpoint that needs a person."""
    return {
        "location": row.location,
        "automation_status": str(row.automation_status),
        "days_left": row.days_left,
        "not_after": time_text(row.not_after),
        "why": [*_stopped(row), *(risk.message for risk in row.risks)],
        "request_id": str(row.request_id) if row.request_id else None,
    }


def short_reason(row: Endpoint) -> str:
    """Return in a few words why an endpoint needs a person."""
    return "; ".join([*_stopped(row), *(str(risk.code) for risk in row.risks)])


def _stopped(row: Endpoint) -> list[str]:
    if row.automation_status not in FAILED or row.step is None:
        return []
    return [f"stopped at {row.step}"]


def _urgent() -> list[Endpoint]:
    rows = {
        row.id: row
        for text in ("days_left<0", "risks=renewal-too-late,served-differs", _NEEDS)
        for row in inventory.find(parse_filter(text), sort="days_left", limit=_ROWS)
    }
    far = datetime.max.replace(tzinfo=UTC)
    return sorted(rows.values(), key=lambda row: (row.not_after or far, row.location))[:_ROWS]


def _collisions(at: datetime) -> list[Collision]:
    """Several renewals of one target in one hour: they wait for each other in the window."""
    hour = func.date_trunc("hour", endpoints.c.next_renewal_at, "UTC")
    query = (
        select(endpoints.c.target, hour.label("hour"))
        .where(
            endpoints.c.target.is_not(None),
            endpoints.c.next_renewal_at >= at,
            endpoints.c.next_renewal_at < at + timedelta(days=_DAYS),
        )
        .group_by(endpoints.c.target, hour)
        .having(func.count() > 1)
        .order_by(func.count().desc(), hour, endpoints.c.target)
        .limit(_COLLISIONS)
    )
    with transaction() as connection:
        rows = connection.execute(query).all()
    asked = [_same_hour(row.target, row.hour.astimezone(UTC)) for row in rows]
    return [
        Collision("target", row.target, row.hour, figure)
        for row, figure in zip(rows, counted(asked), strict=True)
    ]


def _same_hour(target: str, hour: datetime) -> Asked:
    end = hour + timedelta(hours=1)
    return Asked(
        f"{target}@{hour:%Y-%m-%dT%H}",
        f"{target}, {hour:%a %d %b %H}:00 UTC",
        f"target={target} and next_renewal_at>={hour.isoformat()} "
        f"and next_renewal_at<{end.isoformat()}",
    )


def _executors() -> list[dict[str, Any]]:
    query = select(executors).order_by(executors.c.pool, executors.c.name)
    with transaction() as connection:
        return [
            {
                "pool": row.pool,
                "name": row.name,
                "host": row.host,
                "version": row.version,
                "last_seen_at": time_text(row.last_seen_at),
                "silent_since": time_text(row.silent_since),
                "stopped_at": time_text(row.stopped_at),
            }
            for row in connection.execute(query)
        ]


def _connectors() -> list[dict[str, Any]]:
    """Connectors that are in use, those whose check failed first; with the filter of their rows."""
    query = select(connectors).order_by(connectors.c.check_ok.is_not(False), connectors.c.name)
    with transaction() as connection:
        rows = connection.execute(query).all()
        cas = set(connection.execute(select(profiles.c.ca)).scalars())
    return [
        {
            "name": row.name,
            "type": row.slug,
            "ok": row.check_ok,
            "checked_at": time_text(row.checked_at),
            "message": row.check_message,
            "filter": f"ca={row.name}" if row.name in cas else f"target={row.name}",
        }
        for row in rows
    ]
