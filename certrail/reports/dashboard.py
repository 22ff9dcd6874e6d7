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
    coming,
    counted,
    readiness,
)
from certrail.store import intents, inventory, renewal_candidates
from certrail.store.database import transaction
from certrail.store.filters import Clause, Operator, render
from certrail.store.intents import OpenIntent
from certrail.store.inventory import Endpoint, parse_filter
from certrail.store.request_view import time_text
from certrail.store.schema import connectors, endpoints, executors, profiles
from certrail.tracker import ACTIVE, FAILED, Status
from certrail.words import quoted

_DAYS = 30
_ROWS = 25
_COLLISIONS = 10
_NEEDS = "status=automation-failed,action-required,approval-pending,automation-at-risk"


@dataclass(frozen=True, slots=True)
class Collision:
    """Renewals of one target or CA that fall into the same hour.

    Attributes:
        of: ``target`` or ``ca``.
        budget: how many may begin in an hour, None where nothing says.
    """

    of: str
    name: str
    hour: datetime
    figure: Figure
    budget: int | None = None

    @property
    def label(self) -> str:
        """What it is, for people; with the budget where there is one."""
        if self.budget is None:
            return self.figure.label
        return f"{self.figure.label}, of {self.budget} that may begin in an hour"

    @property
    def is_over(self) -> bool:
        """Whether some of it will be put off to later hours."""
        return self.budget is not None and self.figure.count > self.budget

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "of": self.of,
            "name": self.name,
            "hour": time_text(self.hour),
            "budget": self.budget,
            "over_budget": self.is_over,
            **self.figure.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Everything that it shows; groups of figures by their name.

    Attributes:
        urgent: the endpoints that need a person, the least time left first.
        collisions: several renewals of one target in one hour.
        busiest: for each CA the hour with the most renewals, against its budget.
        success_rate: part of the endpoints tried within 30 days whose installation was proven;
            None if none was tried.
        unknown: what was begun, and of which nobody knows whether it happened.
    """

    at: datetime
    groups: Mapping[str, Sequence[Figure]]
    urgent: Sequence[Endpoint]
    collisions: Sequence[Collision]
    busiest: Sequence[Collision]
    success_rate: float | None
    executors: Sequence[Mapping[str, Any]] = field(default=())
    connectors: Sequence[Mapping[str, Any]] = field(default=())
    unknown: Sequence[OpenIntent] = field(default=())

    def figures(self) -> list[Figure]:
        """Return every figure."""
        found = [figure for group in self.groups.values() for figure in group]
        hours = [hour.figure for hour in (*self.collisions, *self.busiest)]
        return found + hours + [row["figure"] for row in (*self.executors, *self.connectors)]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "at": time_text(self.at),
            "needs_attention": [figure.to_json() for figure in self.groups["needs_attention"]],
            "urgent": [urgent_row(row) for row in self.urgent],
            **{
                f"renewals_next_{days}_days": figure.count
                for days, figure in zip((7, 30), self.groups["coming"], strict=True)
            },
            "collisions": [collision.to_json() for collision in self.collisions],
            "busiest_hours": [hour.to_json() for hour in self.busiest],
            "success_rate": self.success_rate,
            **{
                name: [figure.to_json() for figure in group]
                for name, group in self.groups.items()
                if name != "needs_attention"
            },
            "executors": [_plain(row) for row in self.executors],
            "connectors": [_plain(row) for row in self.connectors],
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
    "coming": "Renewals to come",
    "calendar": "Renewals of the next 30 days, by day",
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
        "coming": coming(at),
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
        busiest=_busiest(at),
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
        "command": _command(row),
    }


def short_reason(row: Endpoint) -> str:
    """Return in a few words why an endpoint needs a person."""
    return "; ".join([*_stopped(row), *(str(risk.code) for risk in row.risks)])


def _command(row: Endpoint) -> str:
    """Return what to type next about an endpoint that needs a person."""
    if row.automation_status is Status.APPROVAL_PENDING and row.request_id:
        return f"certrail request approve {str(row.request_id)[:8]}"
    if row.automation_status in FAILED:
        return f"certrail request show {quoted(row.location)}"
    return f"certrail endpoint show {quoted(row.location)}"


def _stopped(row: Endpoint) -> list[str]:
    if row.automation_status is Status.APPROVAL_PENDING:
        return ["waits for approval"]
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


def _is(field: str, value: str) -> str:
    return render(Clause(field, Operator.EQUAL, (value,)))


def _same_hour(name: str, hour: datetime, field: str = "target") -> Asked:
    end = hour + timedelta(hours=1)
    return Asked(
        f"{name}@{hour:%Y-%m-%dT%H}",
        f"{name}, {hour:%a %d %b %H}:00 UTC",
        f"{_is(field, name)} and next_renewal_at>={hour.isoformat()} "
        f"and next_renewal_at<{end.isoformat()}",
    )


def _busiest(at: datetime) -> list[Collision]:
    """The hour of each CA in which most renewals begin: what is beyond its budget is put off."""
    hour = func.date_trunc("hour", endpoints.c.next_renewal_at, "UTC").label("hour")
    query = (
        select(profiles.c.ca, hour)
        .select_from(endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id))
        .where(
            endpoints.c.next_renewal_at >= at,
            endpoints.c.next_renewal_at < at + timedelta(days=_DAYS),
        )
        .group_by(profiles.c.ca, hour)
        .distinct(profiles.c.ca)
        .order_by(profiles.c.ca, func.count().desc(), hour)
    )
    with transaction() as connection:
        rows = connection.execute(query).all()
    budgets = renewal_candidates.budgets()
    asked = [_same_hour(row.ca, row.hour.astimezone(UTC), field="ca") for row in rows]
    return [
        Collision("ca", row.ca, row.hour, figure, budgets.get(row.ca))
        for row, figure in zip(rows, counted(asked), strict=True)
    ]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its figure spread out, as plain data."""
    figure = row["figure"]
    rest = {key: value for key, value in row.items() if key != "figure"}
    return {**rest, "filter": figure.filter, "count": figure.count, "command": figure.command}


def _with_figures(rows: Sequence[dict[str, Any]], filters: Sequence[str]) -> list[dict[str, Any]]:
    asked = [Asked(row["name"], row["name"], text) for row, text in zip(rows, filters, strict=True)]
    return [{**row, "figure": figure} for row, figure in zip(rows, counted(asked), strict=True)]


def _executors() -> list[dict[str, Any]]:
    query = select(executors).order_by(
        executors.c.silent_since.is_(None), executors.c.pool, executors.c.name
    )
    with transaction() as connection:
        rows = [
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
    return _with_figures(rows, [_is("executor", row["name"]) for row in rows])


def _connectors() -> list[dict[str, Any]]:
    """Connectors, those whose check failed first, with the filter that opens their endpoints."""
    query = select(connectors).order_by(connectors.c.check_ok.is_not(False), connectors.c.name)
    with transaction() as connection:
        rows = connection.execute(query).all()
    found = [
        {
            "name": row.name,
            "type": row.slug,
            "ok": row.check_ok,
            "checked_at": time_text(row.checked_at),
            "message": row.check_message,
        }
        for row in rows
    ]
    return _with_figures(found, [_is(_used_as(row.slug), row.name) for row in rows])


def _used_as(slug: str) -> str:
    """Return the column of the inventory that names connectors of a type."""
    return {"ca": "ca", "dns": "dns"}.get(slug.partition("-")[0], "target")
