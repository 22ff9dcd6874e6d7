"""The columns of the endpoint list, for JSON, CSV and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from certrail.errors import InvalidRequest
from certrail.store.inventory import COLUMNS, Endpoint
from certrail.store.inventory_query import ALIASES, UNSORTED
from certrail.store.request_view import run_url, time_text

DEFAULT = (
    "location",
    "automation_status",
    "common_name",
    "days_left",
    "issuer",
    "profile",
    "target",
    "tags",
)

HEADINGS: Mapping[str, str] = {
    "location": "Location",
    "names": "Names",
    "common_name": "Common name",
    "profile": "Profile",
    "workflow": "Workflow",
    "target": "Target",
    "server": "Server",
    "automation_status": "Automation status",
    "job_name": "Job name",
    "request_id": "Request",
    "not_after": "Valid to",
    "days_left": "Days left",
    "issuer": "Issuer",
    "fingerprint": "Fingerprint",
    "serial": "Serial number",
    "key": "Key",
    "tags": "Tags",
    "last_success_at": "Last success",
    "next_renewal_at": "Next renewal",
    "security_findings": "Security findings",
    "risks": "Risks",
    "step": "Step",
    "ca": "CA",
    "lifetime_days": "Lasts days",
    "flow_run_url": "Flow run",
    "renewal_pause": "Renewal waits",
}


def chosen(columns: str | None, added: Sequence[str], default: Sequence[str]) -> list[str]:
    """Return the columns to show.

    Args:
        columns: comma-separated names that replace the default, None for the default.
        added: names put behind it.
        default: the columns otherwise.

    Raises:
        InvalidRequest: there is no such column.
    """
    wanted = [part.strip() for part in columns.split(",")] if columns else list(default)
    wanted += [part.strip() for one in added for part in one.split(",")]
    return list(dict.fromkeys(_known(name) for name in wanted if name))


def sorting(text: str) -> str:
    """Return the name of a column to sort by as it is known, with its ``-``.

    Raises:
        InvalidRequest: there is no such column, or it has no order.
    """
    name = _known(text.removeprefix("-"))
    if name in UNSORTED:
        raise InvalidRequest(
            f"the inventory cannot be sorted by {name}", remedy="Choose another column."
        )
    return f"-{name}" if text.startswith("-") else name


def plain_row(endpoint: Endpoint, ui_url: str) -> dict[str, Any]:
    """Return the documented keys of one endpoint as JSON values."""
    return {
        "location": endpoint.location,
        "names": list(endpoint.names),
        "common_name": endpoint.common_name,
        "profile": endpoint.profile,
        "workflow": endpoint.workflow,
        "target": endpoint.target,
        "server": endpoint.server,
        "automation_status": str(endpoint.automation_status),
        "job_name": endpoint.job_name,
        "request_id": str(endpoint.request_id) if endpoint.request_id else None,
        "not_after": time_text(endpoint.not_after),
        "days_left": endpoint.days_left,
        "issuer": endpoint.issuer,
        "fingerprint": endpoint.fingerprint,
        "serial": endpoint.serial,
        "key": endpoint.key,
        "tags": list(endpoint.tags),
        "last_success_at": time_text(endpoint.last_success_at),
        "next_renewal_at": time_text(endpoint.next_renewal_at),
        "security_findings": [dict(finding) for finding in endpoint.security_findings],
        "flow_run_url": run_url(ui_url, endpoint.flow_run_id),
        "risks": [risk.to_json() for risk in endpoint.risks],
        "step": endpoint.step,
        "ca": endpoint.ca,
        "lifetime_days": endpoint.lifetime_days,
        "renewal_pause": endpoint.renewal_pause,
    }


def table_row(endpoint: Endpoint, ui_url: str) -> dict[str, Any]:
    """Return one endpoint with its times and status as objects, for a table."""
    return {
        **plain_row(endpoint, ui_url),
        # As much as `certrail request show` needs.
        "request_id": str(endpoint.request_id)[:8] if endpoint.request_id else None,
        "automation_status": endpoint.automation_status,
        "not_after": endpoint.not_after,
        "last_success_at": endpoint.last_success_at,
        "next_renewal_at": endpoint.next_renewal_at,
    }


def _known(name: str) -> str:
    column = ALIASES.get(name.lower(), name.lower())
    if column not in COLUMNS:
        near = get_close_matches(column, COLUMNS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InvalidRequest(
            f"there is no column {name!r}", remedy=f"{hint}Columns are: {', '.join(COLUMNS)}"
        )
    return column
