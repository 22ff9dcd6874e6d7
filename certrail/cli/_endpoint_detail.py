"""One endpoint on the screen: attributes, certificate, automation, last request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from certrail.cli import _columns
from certrail.cli._output import is_terminal, local, style_of
from certrail.drift import not_looked_at
from certrail.log import plain
from certrail.store.endpoint_detail import Detail
from certrail.store.request_view import RequestView, time_text
from certrail.words import counted


def to_json(found: Detail, last: RequestView | None, ui_url: str) -> dict[str, Any]:
    """Return the list's keys and everything else that is known."""
    row = found.row
    return {
        **_columns.plain_row(row, ui_url),
        "addresses": list(found.addresses),
        "sni": found.sni,
        "starttls": found.starttls,
        "server_settings": dict(found.server),
        "certificate": {
            "fingerprint": row.fingerprint,
            "serial": row.serial,
            "common_name": row.common_name,
            "issuer": row.issuer,
            "key": row.key,
            "not_after": time_text(row.not_after),
            "days_left": row.days_left,
            "issued_here": found.certificate_id is not None,
            "chain_pem": found.chain_pem,
        }
        if row.fingerprint
        else None,
        "automation": {
            "status": str(row.automation_status),
            "profile": row.profile,
            "workflow": row.workflow,
            "target": row.target,
            "settings": _without_pem(found.settings),
            "next_renewal_at": time_text(row.next_renewal_at),
            "last_success_at": time_text(row.last_success_at),
            "auto_renew": found.auto_renew,
            "executor": found.executor,
            "renewal": dict(found.renewal) if found.renewal else None,
            "risks": [risk.to_json() for risk in row.risks],
            "request_id": str(row.request_id) if row.request_id else None,
            "flow_run_url": last.flow_run_url if last else None,
        },
        "request": last.to_json() if last else None,
        "observed": dict(found.observed) if found.observed else None,
        "observed_at": time_text(found.observed_at),
        "not_looked_at": not_looked_at(row.location, found.addresses, row.target),
        "created_at": time_text(found.created_at),
        "updated_at": time_text(found.updated_at),
    }


def show(found: Detail, last: RequestView | None) -> None:
    """Print the endpoint for people."""
    for heading, lines in _sections(found, last):
        click.echo(click.style(heading, bold=True) if is_terminal() else heading)
        for name, value, style in lines:
            if value:
                shown = _styled(value, style) if is_terminal() else value
                click.echo(f"  {name:<{_NAME_WIDTH}} {shown}")


_NAME_WIDTH = 18
_Lines = list[tuple[str, str, str]]


def _sections(found: Detail, last: RequestView | None) -> Iterator[tuple[str, _Lines]]:
    row = found.row
    status = row.automation_status
    yield (
        plain(row.location),
        [
            ("status", status.text, style_of(status)),
            ("names", plain(" ".join(row.names)), ""),
            ("addresses", plain(" ".join(found.addresses)), ""),
            ("server name", plain(found.sni or ""), ""),
            ("STARTTLS", plain(found.starttls or ""), ""),
            ("tags", plain(" ".join(row.tags)), ""),
            (
                "not looked at",
                plain(not_looked_at(row.location, found.addresses, row.target) or ""),
                "",
            ),
        ],
    )
    if row.fingerprint:
        ends = f"{local(row.not_after)} ({counted(row.days_left or 0, 'day')} left)"
        yield (
            "Certificate",
            [
                ("common name", plain(row.common_name or ""), ""),
                ("issuer", plain(row.issuer or ""), ""),
                ("valid to", ends, "red" if (row.days_left or 0) < 0 else ""),
                ("key", plain(row.key or ""), ""),
                ("serial number", row.serial or "", ""),
                ("SHA-256", row.fingerprint, ""),
                ("seen", local(found.observed_at), ""),
            ],
        )
    if row.security_findings:
        yield (
            "Security findings",
            [
                (str(f.get("severity", "")), plain(f.get("message", f.get("code", ""))), "yellow")
                for f in row.security_findings
            ],
        )
    if row.risks:
        yield (
            "At risk",
            [(risk.code, f"{plain(risk.message)}\n{'':21}{risk.remedy}", "") for risk in row.risks],
        )
    yield "Automation", _automation(found, last)
    if last:
        failed = last.failed_step
        yield (
            "Last request",
            [
                ("request", str(last.request.id), ""),
                ("action", str(last.request.action), ""),
                ("status", last.request.status.text, style_of(last.request.status)),
                ("started", local(last.request.started_at), ""),
                ("failed step", f"{failed.number}. {failed.title}" if failed else "", ""),
                ("cause", plain(failed.cause or "") if failed else "", "red"),
                ("remedy", plain(failed.remedy or "") if failed else "", ""),
                ("Prefect", last.flow_run_url or "", ""),
            ],
        )


def _automation(found: Detail, last: RequestView | None) -> _Lines:
    row, settings = found.row, found.settings or {}
    if not row.profile:
        return [("profile", "none: give it one with `certrail apply`", "")]
    renew = settings.get("renew") or {}
    server = " ".join(f"{key}={value}" for key, value in found.server.items())
    auto = renew.get("auto", True) if found.auto_renew is None else found.auto_renew
    by_itself = "by itself" if auto else "only when asked"
    why = (found.renewal or {}).get("message", "")
    return [
        ("profile", plain(row.profile), ""),
        ("workflow", row.workflow or "", ""),
        ("CA", plain(settings.get("ca", "")), ""),
        ("validation", plain((settings.get("validation") or {}).get("method", "none")), ""),
        ("target", plain(row.target or ""), ""),
        ("server", plain(server), ""),
        ("renews", by_itself, ""),
        ("next renewal", local(row.next_renewal_at), ""),
        ("because", plain(str(why)), ""),
        ("held back", plain(row.renewal_pause or ""), ""),
        ("reached by", plain(found.executor or ""), ""),
        ("last success", local(row.last_success_at), ""),
        ("window", plain(_windows(settings)), ""),
    ]


def _windows(settings: Mapping[str, Any]) -> str:
    windows = settings.get("maintenance_window") or []
    listed = [_window(one) for one in (windows if isinstance(windows, list) else [windows])]
    if blackout := settings.get("blackout"):
        listed.append(f"not on {', '.join(blackout['dates'])} ({blackout.get('timezone', 'UTC')})")
    return "; ".join(listed)


def _window(window: dict[str, Any]) -> str:
    days = ",".join(window.get("days") or ()) or "every day"
    return f"{days} {window['start']}-{window['end']} {window.get('timezone', 'UTC')}"


def _without_pem(settings: Any) -> Any:
    if settings is None:
        return None
    return {**json.loads(json.dumps(settings)), "trust_pem": bool(settings.get("trust_pem"))}


def _styled(text: str, style: str) -> str:
    words = style.split()
    colour = words[-1] if words and words[-1] not in ("bold", "dim") else None
    return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)
