"""Reports on endpoints: their state, what is to come, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from certrail.reports.report import Report
from certrail.reports.tables import Wanted, by_day, chart, columns, heading
from certrail.store import inventory, request_view
from certrail.store.inventory import Endpoint, parse_filter
from certrail.store.request_view import time_text
from certrail.tracker import Status
from certrail.words import counted


def endpoints_report(wanted: Wanted, at: datetime) -> Report:
    """Endpoints with their automation state."""
    rows = [endpoint_row(row, wanted.ui_url) for row in _found(wanted)]
    columns = wanted.view.columns or inventory.COLUMNS
    return Report(
        "endpoints",
        "Endpoints and automation state",
        at,
        [(name, heading(name)) for name in columns],
        rows,
        [
            chart("By automation status", (Status(r["automation_status"]).text for r in rows)),
            chart("By issuer", (str(r["issuer"] or "none") for r in rows)),
        ],
    )


def upcoming_report(wanted: Wanted, at: datetime) -> Report:
    """Renewals to come."""
    until = at + timedelta(days=wanted.days)
    rows = _restricted(wanted, f"next_renewal_at<{until.isoformat()}", "next_renewal_at")
    return Report(
        "upcoming",
        f"Renewals of the next {counted(wanted.days, 'day')}",
        at,
        columns("location", "next_renewal_at", "days_left", "profile", "ca", "target", "tags"),
        rows,
        [
            by_day("Renewals by day", (row["next_renewal_at"] for row in rows)),
            chart("By CA", (str(row["ca"] or "none") for row in rows)),
        ],
    )


def expiring_report(wanted: Wanted, at: datetime) -> Report:
    """Certificates that end soon, or have ended."""
    rows = _restricted(wanted, f"days_left<{wanted.days}", "days_left")
    return Report(
        "expiring",
        f"Certificates that end within {counted(wanted.days, 'day')}, or have ended",
        at,
        columns(
            "location", "days_left", "not_after", "automation_status", "issuer", "profile", "risks"
        ),
        rows,
        [by_day("Ends by day", (row["not_after"] for row in rows))],
    )


def security_report(wanted: Wanted, at: datetime) -> Report:
    """Security findings, a row for each."""
    rows: list[dict[str, Any]] = [
        {
            "location": row["location"],
            "code": finding.get("code"),
            "severity": finding.get("severity"),
            "message": finding.get("message"),
            "remedy": finding.get("remedy"),
            "issuer": row["issuer"],
            "key": row["key"],
            "profile": row["profile"],
        }
        for row in _restricted(wanted, "security_findings!=", wanted.view.sort)
        for finding in row["security_findings"]
    ]
    return Report(
        "security",
        "Security findings",
        at,
        columns("location", "code", "severity", "message", "remedy", "issuer", "key", "profile"),
        rows,
        [chart("By finding", (str(row["code"]) for row in rows))],
    )


def endpoint_row(row: Endpoint, ui_url: str) -> dict[str, Any]:
    """Return the documented keys of one endpoint as plain data."""
    plain = {name: getattr(row, name, None) for name in inventory.COLUMNS}
    return {
        **plain,
        "names": list(row.names),
        "automation_status": str(row.automation_status),
        "request_id": str(row.request_id) if row.request_id else None,
        "not_after": time_text(row.not_after),
        "tags": list(row.tags),
        "last_success_at": time_text(row.last_success_at),
        "next_renewal_at": time_text(row.next_renewal_at),
        "security_findings": [dict(finding) for finding in row.security_findings],
        "flow_run_url": request_view.run_url(ui_url, row.flow_run_id),
        "risks": [risk.to_json() for risk in row.risks],
    }


def _found(wanted: Wanted) -> Iterable[Endpoint]:
    return inventory.stream(wanted.view.clauses(), sort=wanted.view.sort)


def _restricted(wanted: Wanted, also: str, sort: str) -> list[dict[str, Any]]:
    clauses = [*wanted.view.clauses(), *parse_filter(also)]
    return [endpoint_row(row, wanted.ui_url) for row in inventory.stream(clauses, sort=sort)]
