"""What a message says: an event and what is on record about it, as plain data for a template."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from certrail.events import Kind, Severity, kind_of
from certrail.log import plain
from certrail.notify import of_jobs
from certrail.store import notification_facts
from certrail.store.outbox import Happened
from certrail.words import counted, quoted

_LONGEST = 2000
_SHORT_ID = 8
_JOB = "certrail.job."
# What is said in sentences of its own, or is of no use to people.
_SPOKEN = frozenset(
    {
        "action",
        "attachment",
        "cause",
        "commands",
        "counts",
        "detail",
        "email",
        "failed_endpoints",
        "failures",
        "fingerprint",
        "flow_run_id",
        "job_id",
        "job_name",
        "location",
        "number",
        "remedy",
        "request_id",
        "retryable",
        "severity",
        "status",
        "step",
        "workflow",
    }
)


def describe(
    connection: Connection, event: Happened, *, ui_url: str, now: datetime
) -> dict[str, Any]:
    """Return what a template gets of one event: texts only, nothing secret.

    Args:
        connection: an open transaction.
        event: what happened.
        ui_url: where Prefect's pages are.
        now: the present.
    """
    kind = kind_of(event.event)
    facts: list[tuple[str, str]] = []
    said = {key: _text(value) for key, value in event.payload.items() if value is not None}
    cause, remedy = said.get("cause", ""), said.get("remedy", "")
    if event.request_id is not None:
        row = notification_facts.request(connection, event.request_id)
        failed = notification_facts.failed_step(connection, event.request_id)
        if row is not None:
            facts.append(("Workflow", f"{row.workflow}, {row.action}"))
            facts.append(("Why", row.reason_message))
            facts.append(("Asked by", row.requested_by))
            if row.job_name:
                facts.append(("Job", row.job_name))
        if failed is not None and kind.severity.rank >= Severity.WARNING.rank:
            facts.append(("Step", f"{failed.number}. {failed.title}"))
            facts.append(("Tries", str(failed.attempts)))
            cause, remedy = cause or failed.cause or "", remedy or failed.remedy or ""
        elif said.get("step"):
            facts.append(("Step", f"{said.get('number', '?')}. {said['step']}"))
        if row is not None and row.started_at is not None:
            facts.append(("Under way since", moment(row.started_at)))
    of_job = event.event.startswith(_JOB)
    if of_job:
        facts += of_jobs.facts(event.payload)
    detail = said.get("detail", "") or (said.get("message", "") if of_job else "")
    days_left: int | None = None
    place = notification_facts.place(connection, event.location)
    if place is not None:
        if place.profile:
            facts.append(("Profile", place.profile))
        if place.target:
            facts.append(("Target", place.target))
        if place.not_after is not None:
            days_left = (place.not_after - now).days
            facts.append(("Certificate in use", f"{ends(place.not_after, now)}, by {place.issuer}"))
    facts += [
        (key.replace("_", " ").capitalize(), value)
        for key, value in said.items()
        if key not in _SPOKEN and value and value != detail
    ]
    flow_run = event.flow_run_id or said.get("flow_run_id") or None
    return {
        "id": str(event.event_id),
        "name": event.event,
        "slug": kind.slug,
        "severity": str(severity_of(event, kind)),
        "title": kind.title,
        "needs": kind.needs,
        "location": plain(event.location),
        "occurred": moment(event.occurred),
        "cause": _text(cause),
        "remedy": _text(remedy),
        "detail": detail,
        "facts": [{"name": name, "value": _text(value)} for name, value in facts if value],
        "commands": commands(event),
        "link": f"{ui_url.rstrip('/')}/runs/flow-run/{flow_run}" if flow_run and ui_url else "",
        "days_left": days_left,
        "share": of_jobs.share(event.payload) if of_job else "",
        "payload": said,
    }


def severity_of(event: Happened, kind: Kind | None = None) -> Severity:
    """Return how grave an event is; it may say so itself."""
    own = str(event.payload.get("severity", ""))
    return Severity(own) if own in list(Severity) else (kind or kind_of(event.event)).severity


def commands(event: Happened) -> list[str]:
    """Return what to type next, the most likely first."""
    given = event.payload.get("commands")
    if isinstance(given, list):
        return [_text(one) for one in given]
    area, _, what = event.event.removeprefix("certrail.").partition(".")
    if event.request_id is not None:
        short = str(event.request_id)[:_SHORT_ID]
        found = [f"certrail request show {short}"]
        if what in ("failed", "rolled-back", "cancelled") and area in ("request", "step"):
            found.append(f"certrail request retry {short}")
        if what == "approval-pending":
            found += [f"certrail request approve {short}", f"certrail request deny {short}"]
        return found
    name = quoted(plain(event.location))
    if area in ("certificate", "renewal"):
        found = [f"certrail endpoint show {name}"]
        if what == "drifted":
            return [*found, f"certrail request start {name} --action redeploy --wait"]
        return [*found, f"certrail request start {name} --wait"]
    if area == "job":
        again = [f"certrail job retry {name}"] if what.startswith("failed") else []
        resume = [f"certrail job resume {name}"] if what == "paused" else []
        failed = f"certrail endpoint list --view failed --job {name}"
        listed = [failed] if of_jobs.share(event.payload) else []
        return [f"certrail job show {name}", *again, *resume, *listed]
    if area in ("executor", "run", "system"):
        return ["certrail doctor"]
    return []


def moment(when: datetime) -> str:
    """Return a time for people: UTC, to the minute."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def ends(not_after: datetime, now: datetime) -> str:
    """Say when a certificate ends, and how long that is from now."""
    left = not_after - now
    if left <= timedelta(0):
        return f"expired {moment(not_after)}, {_span(-left)} ago"
    return f"expires {moment(not_after)}, in {_span(left)}"


def _span(span: timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    if hours >= 48:
        return counted(hours // 24, "day")
    return counted(hours, "hour") if hours else counted(int(span.total_seconds() // 60), "minute")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(key)}: {_text(one)}" for key, one in value.items())[:_LONGEST]
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))[:_LONGEST]
    text = plain(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
