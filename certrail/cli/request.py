"""``certrail request``: start, follow, retry and cancel automation requests."""

from __future__ import annotations

from datetime import datetime

import click

from certrail.cli import _dry_run, _prefect, _progress, _starting
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._times import Moment
from certrail.errors import InvalidRequest
from certrail.model import STARTED, Action
from certrail.store import request_view, requests
from certrail.store.request_view import RequestView
from certrail.store.requests import Request
from certrail.tracker import Status
from certrail.words import quoted

_ID = 8


@click.group(
    epilog=examples(
        "certrail request start www.example.org:443 --wait",
        "certrail request show www.example.org:443",
    )
)
def request() -> None:
    """Start, follow, retry and cancel automation requests."""


@request.command(
    epilog=examples(
        "certrail request start www.example.org:443 --wait",
        "certrail request start www.example.org:443 --action reissue --at '2027-01-31 02:00'",
        "certrail request start www.example.org:443 --window --json",
        "certrail request start www.example.org:443 --dry-run",
    )
)
@click.argument("location")
@click.option(
    "--action",
    type=click.Choice([action.value for action in STARTED]),
    help="enroll: first certificate; renew: the next one; reissue: a new one now, with a new "
    "key; redeploy: install the present one again, nothing is ordered. Default: enroll or renew.",
)
@click.option("--at", type=Moment(), help="Begin then: a time, local without a zone, or +2h.")
@click.option("--window", is_flag=True, help="Begin in the profile's next maintenance window.")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit code 1 if it fails.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Reach the server, read and test its configuration, and print what would change in it. "
    "Nothing is ordered or written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def start(
    location: str,
    action: str | None,
    at: datetime | None,
    window: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Start a request for the endpoint LOCATION."""
    if dry_run:
        found = _dry_run.preview(location, Action(action) if action else None)
        if as_json:
            echo_json(found)
            return DONE
        click.echo(f"{found['action']} {found['location']}: nothing was ordered or changed")
        for one in (found, *found.get("also_on", ())):
            click.echo(f"{one['target']}, {one['server']} at {one['place']}: {one['summary']}")
            click.echo(f"certificates are kept in {one['directory']}")
            click.echo(one["diff"], nl=False)
        return DONE
    if at is not None and window:
        raise InvalidRequest("--at and --window exclude each other", remedy="Give one of them.")
    ui_url = _prefect.installation().ui_url
    made = _starting.start(
        location, action=Action(action) if action else None, at=at, in_window=window
    )
    return _told(made, ui_url, wait=wait, as_json=as_json)


@request.command(
    epilog=examples(
        "certrail request show www.example.org:443",
        "certrail request show 3f2a9c41 --watch",
        "certrail request show 3f2a9c41 --history",
        "certrail request show 3f2a9c41 --json",
    )
)
@click.argument("which", metavar="ID|LOCATION")
@click.option("--watch", is_flag=True, help="Follow it to its end; exit code 1 if it fails.")
@click.option("--history", is_flag=True, help="Show every try of every step too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the history.")
def show(which: str, watch: bool, history: bool, as_json: bool) -> int:
    """Show the steps of a request, or of the newest one of a location."""
    ui_url = _prefect.installation().ui_url
    view = request_view.find(which, ui_url=ui_url, history=as_json or history)
    if watch:
        return _followed(view.request, ui_url, as_json=as_json)
    if as_json:
        echo_json(view.to_json())
    else:
        _progress.show(view)
    return DONE


@request.command(
    "list",
    epilog=examples(
        "certrail request list --status automation-failed",
        "certrail request list --location www.example.org:443 --json",
    ),
)
@click.option(
    "--status", type=click.Choice([status.value for status in Status]), help="Only these."
)
@click.option("--location", help="Only those of one endpoint.")
@click.option("--limit", type=click.IntRange(1, 10000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(status: str | None, location: str | None, limit: int, as_json: bool) -> None:
    """List requests, newest first."""
    ui_url = _prefect.installation().ui_url
    found = requests.newest(
        status=Status(status) if status else None, location=location, limit=limit
    )
    shown = request_view.views(found, ui_url=ui_url)
    if as_json:
        echo_json([view.to_json() for view in shown])
        return
    if not shown:
        click.echo("there are no such requests")
        return
    columns = ("id", "location", "action", "status", "step", "created")
    echo_table([(name, name) for name in columns], [_line(view) for view in shown])


@request.command(
    epilog=examples(
        "certrail request retry www.example.org:443 --wait", "certrail request retry 3f2a9c41"
    )
)
@click.argument("which", metavar="ID|LOCATION")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit code 1 if it fails.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def retry(which: str, wait: bool, as_json: bool) -> int:
    """Let a failed or cancelled request go on from the step that failed.

    Endpoint and profile count as they are configured now. What was ordered
    is not ordered again. What nobody approved yet waits for approval anew;
    what was denied is refused.
    """
    ui_url = _prefect.installation().ui_url
    return _told(_starting.retry(which), ui_url, wait=wait, as_json=as_json)


@request.command(
    epilog=examples(
        "certrail request rollback 3f2a9c41 --wait",
        "certrail request rollback www.example.org:443",
    )
)
@click.argument("which", metavar="ID|LOCATION")
@click.option("--force", is_flag=True, help="Even to a certificate that is expired or revoked.")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit code 1 if it fails.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rollback(which: str, force: bool, wait: bool, as_json: bool) -> int:
    """Go back to the certificate that was there before a request.

    That is a request of its own: staged, checked, switched and tested like any
    other, or left as it is. Nothing is ordered. The endpoint does not renew by
    itself afterwards until it is told to: `certrail endpoint auto-renew LOCATION on`.
    """
    ui_url = _prefect.installation().ui_url
    return _told(_starting.roll_back(which, force=force), ui_url, wait=wait, as_json=as_json)


@request.command(epilog=examples("certrail request cancel www.example.org:443"))
@click.argument("which", metavar="ID|LOCATION")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def cancel(which: str, as_json: bool) -> int:
    """Cancel a request; one that runs stops at its next safe point."""
    ui_url = _prefect.installation().ui_url
    made = _starting.cancel(which)
    if as_json:
        echo_json(request_view.view(made, ui_url=ui_url).to_json())
    elif made.status is Status.CANCELLED:
        click.echo(f"{made.location}: cancelled")
    else:
        click.echo(
            f"{made.location}: asked to stop at its next safe point; "
            f"follow it with `certrail request show {quoted(made.location)} --watch`"
        )
    return DONE


@request.command(
    epilog=examples(
        "certrail request approve 3f2a9c41", "certrail request approve 3f2a9c41 --note CHG-1234"
    )
)
@click.argument("which", metavar="ID|LOCATION")
@click.option("--note", default="", help="Why; it goes into the audit trail.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def approve(which: str, note: str, as_json: bool) -> int:
    """Let a request go on that waits for approval: at its time, or now."""
    ui_url = _prefect.installation().ui_url
    return _told(_starting.approve(which, note), ui_url, wait=False, as_json=as_json)


@request.command(epilog=examples("certrail request deny 3f2a9c41 --note 'not before the audit'"))
@click.argument("which", metavar="ID|LOCATION")
@click.option("--note", default="", help="Why; it goes into the audit trail.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def deny(which: str, note: str, as_json: bool) -> int:
    """Refuse a request that waits for approval.

    A renewal that was refused does not come back by itself: `certrail
    endpoint auto-renew LOCATION on` lets it.
    """
    ui_url = _prefect.installation().ui_url
    return _told(_starting.deny(which, note), ui_url, wait=False, as_json=as_json)


def _told(made: Request, ui_url: str, *, wait: bool, as_json: bool) -> int:
    if wait:
        return _followed(made, ui_url, as_json=as_json)
    view = request_view.view(made, ui_url=ui_url)
    if as_json:
        echo_json(view.to_json())
    else:
        _progress.show(view)
    return DONE


def _followed(made: Request, ui_url: str, *, as_json: bool) -> int:
    def look() -> RequestView:
        return request_view.view(requests.get(made.id), ui_url=ui_url)

    ended = _progress.wait(look) if as_json else _progress.follow(look)
    if as_json:
        echo_json(request_view.view(ended.request, ui_url=ui_url, history=True).to_json())
    return DONE if ended.is_successful else FAILED


def _line(view: RequestView) -> dict[str, object]:
    made = view.request
    reached = view.failed_step or next(
        (step for step in reversed(view.steps) if step.started_at), None
    )
    return {
        "id": str(made.id)[:_ID],
        "location": made.location,
        "action": made.action,
        "status": made.status,
        "step": f"{reached.number}. {reached.title}" if reached else "",
        "created": made.created_at,
    }
