"""Reports on what was noted: executors, notifications, the audit trail."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select

from certrail.reports.report import Report
from certrail.reports.tables import Wanted, chart, columns, plain
from certrail.store import audit
from certrail.store.request_view import time_text
from certrail.store.schema import executors, notifications, outbox
from certrail.words import counted


def executors_report(wanted: Wanted, at: datetime) -> Report:
    """Agents and sensors."""
    keys = ("pool", "name", "host", "version", "started_at", "last_seen_at", "silent_since")
    query = select(executors).order_by(executors.c.pool, executors.c.name)
    return Report("executors", "Agents and sensors", at, columns(*keys), plain(query, keys))


def notifications_report(wanted: Wanted, at: datetime) -> Report:
    """What was sent to whom."""
    keys = (
        "created_at",
        "event",
        "resource",
        "channel",
        "recipient",
        "status",
        "attempts",
        "subject",
        "ended_at",
        "last_error",
    )
    query = (
        select(notifications, outbox.c.event, outbox.c.resource)
        .join(outbox, outbox.c.id == notifications.c.outbox_id)
        .where(notifications.c.created_at >= at - timedelta(days=wanted.days))
        .order_by(notifications.c.id.desc())
    )
    rows = plain(query, keys)
    return Report(
        "notifications",
        f"Notifications of the last {counted(wanted.days, 'day')}",
        at,
        columns(*keys),
        rows,
        [
            chart("By outcome", (str(row["status"]) for row in rows)),
            chart("By event", (str(row["event"]) for row in rows)),
        ],
    )


def audit_report(wanted: Wanted, at: datetime) -> Report:
    """Who did what."""
    entries = audit.newest(limit=None, since=at - timedelta(days=wanted.days))
    rows = [
        {
            "seq": entry.seq,
            "at": time_text(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "object": entry.object,
            "detail": dict(entry.detail),
            "hash": entry.hash,
        }
        for entry in entries
    ]
    return Report(
        "audit",
        f"Audit trail of the last {counted(wanted.days, 'day')}",
        at,
        columns("seq", "at", "actor", "action", "object", "detail", "hash"),
        rows,
        [chart("By action", (str(row["action"]) for row in rows))],
    )
