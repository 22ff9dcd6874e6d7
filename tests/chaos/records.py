"""What must hold of an installation's own records once faults are over.

Each function raises AssertionError with what is wrong, and returns in a few
words what it has looked at. A soak asks of everything, a single case of its
requests. What is outside (hosts, DNS, clients) is looked at in
:mod:`tests.chaos.afterwards` and :mod:`tests.chaos.invariants`.

:func:`must_be_whole` has what is asked after each case. Once for the cases of a
module are asked, because time has to pass or everything has to be read for it,
and what is wrong then stays so:

* slots, leases and claims: those of a worker that was killed end by themselves, a slot after
  the minute that Prefect grants at least (a request's own lease is looked at after each case);
* messages that arrived: they are sent by a run of every minute (that each end was written down
  once, to be told, is looked at after each case);
* the dumps of both databases that are searched for keys: nothing is removed from either
  meanwhile, so what was written in any case is still there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import psycopg

from certrail import audit_chain
from certrail.store import audit
from certrail.tracker import SUCCESSFUL
from tests.chaos.leaks import must_not_leak
from tests.support.agreement import must_agree, must_agree_on_bare_runs
from tests.support.process import wait_for
from tests.support.stack import ROOT, Stack

# Of a response to a challenge whose reply got lost nothing is left: the CA has decided.
_UNDONE = """
    select action, key from journal where request_id = any(%s) and outcome is null
    and action <> 'challenge.respond'
    and not exists (select 1 from orders where key = journal.key and is_dead)
"""
_ENDS = ("certrail.request.completed", "certrail.certificate.issued")


def until_over(stack: Stack, request_id: str) -> None:
    """Wait until nobody has to work on a request any more, within a minute."""

    def over() -> bool:
        with psycopg.connect(stack.database_url) as connection:
            row = connection.execute(
                "select status not in ('automation-requested', 'in-progress')"
                " and lease_owner is null from requests where id = %s",
                [request_id],
            ).fetchone()
        return row == (True,)

    wait_for(over, "the request ends", within=60)


def must_be_whole(
    stack: Stack, ids: Sequence[UUID], *, since: float, logs: Iterable[Path] = ()
) -> None:
    """Look at what can be looked at after each case; the case began at *since*."""
    rows_are_whole(stack, ids)
    findings, head = audit_chain.verify(audit.chain(), [], unchained=audit.unchained())
    assert findings == []
    assert head is not None
    no_core_files(stack, since=since)
    must_not_leak(stack, ids, logs=logs, databases=False)


def must_be_whole_at_last(
    stack: Stack, ids: Sequence[UUID], *, since: float, logs: Iterable[Path] = ()
) -> None:
    """Look at all that is an installation's own, at the end of a module that began at *since*."""
    rows_are_whole(stack, ids)
    nothing_is_held(stack, ids)
    audit_trail_is_whole(stack)
    no_core_files(stack, since=since)
    must_not_leak(stack, ids, logs=logs)


def rows_are_whole(stack: Stack, ids: Sequence[UUID]) -> str:
    """Successful; one order each, all steps ended, nothing begun and left, ends told once."""
    with psycopg.connect(stack.database_url) as connection:

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query, [list(ids)]).fetchall()

        ended = rows(
            "select id, status, lease_owner from requests where id = any(%s)"
            " and (lease_owner is not null"
            f" or status not in ({', '.join(repr(str(one)) for one in SUCCESSFUL)}))"
        )
        orders: dict[object, object] = dict(
            rows(  # type: ignore[arg-type]
                "select request_id, count(*) from orders"
                " where request_id = any(%s) and not is_dead group by 1"
            )
        )
        steps = rows(
            "select request_id, title, status from steps where request_id = any(%s)"
            " and status not in ('completed', 'skipped')"
        )
        undone = rows(_UNDONE)
        told = Counter[tuple[object, object]](
            {
                (request, event): number
                for request, event, number in rows(
                    "select request_id, event, count(*) from outbox"
                    " where request_id = any(%s) group by 1, 2"
                )
            }
        )
    assert ended == [], f"a request has not come through, or is held: {ended[:5]}"
    assert orders == dict.fromkeys(ids, 1), "an order was doubled or lost"
    assert steps == [], f"a step has no end: {steps[:5]}"
    assert undone == [], f"something was begun and neither ended nor withdrawn: {undone[:5]}"
    wrong = [(one, event) for one in ids for event in _ENDS if told[one, event] != 1]
    assert wrong == [], f"lost or doubled: {[(*one, told[one]) for one in wrong[:5]]}"
    return f"{len(ids)} requests, {told.total()} events"


def nothing_is_held(stack: Stack, ids: Sequence[UUID] | None = None) -> str:
    """No slot of a limit, no lease, no claim; of these requests, or of all."""
    held = {"limits": 0}
    of = None if ids is None else list(ids)

    def free() -> bool:
        limits = httpx.post(f"{stack.api_url}/v2/concurrency_limits/filter", json={}, timeout=30)
        taken = [one["name"] for one in limits.raise_for_status().json() if one["active_slots"]]
        held["limits"] = len(limits.json())
        with psycopg.connect(stack.database_url) as connection:
            rows = connection.execute(
                "select 'request ' || id from requests where lease_owner is not null"
                " and (%(of)s::uuid[] is null or id = any(%(of)s))"
                " union all select 'notification ' || n.id from notifications n"
                " join outbox o on o.id = n.outbox_id where n.status = 'pending'"
                " and (%(of)s::uuid[] is null or o.request_id = any(%(of)s))"
                " union all select 'event ' || id from outbox where routed_at is null"
                " and (%(of)s::uuid[] is null or request_id = any(%(of)s))",
                {"of": of},
            ).fetchall()
        what = [*taken, *(one for (one,) in rows), *_lease_files(stack.data_dir)]
        held["what"] = what  # type: ignore[assignment]
        return not what

    # A lease of a killed worker ends by itself.
    try:
        wait_for(free, "nothing is held", within=180)
    except AssertionError:
        raise AssertionError(f"still held: {held}") from None
    return f"{held['limits']} limits, leases of requests, claims of messages"


def _lease_files(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("concurrency_leases/*.json"):
        with suppress(FileNotFoundError):  # given back meanwhile
            if path.name != "expirations.json" or len(path.read_text()) > len("{}"):
                found.append(path.name)
    return found


def everybody_was_told_once(
    stack: Stack,
    arrived: Counter[str],
    ids: Sequence[UUID],
    *,
    of_all: bool = False,
    kills: int = 0,
) -> str:
    """Each message of the log arrived, once; each request's end is in one of them.

    *arrived* counts by message id what came to the receiver of these requests' messages;
    with *of_all* of all messages, also those about no request. *kills* is how often sender or
    database died: each can keep the note from being written that a message was taken, which
    comes again then, by the same id (docs/notifications.md).
    """
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "select n.message_id, n.status, o.request_id, o.event from notifications n"
            " join outbox o on o.id = n.outbox_id"
            " where o.request_id = any(%s) or (%s and o.request_id is null)",
            [list(ids), of_all],
        ).fetchall()
    states = Counter(status for _, status, _, _ in rows)
    assert set(states) == {"sent"}, dict(states)
    sent = {message for message, _, _, _ in rows}
    assert set(arrived) == sent, "a message was lost, or nobody knows of it"
    twice = [one for one, times in arrived.items() if times > 1]
    assert sum(arrived[one] - 1 for one in twice) <= kills, f"{len(twice)} messages came twice"
    told = Counter(request for _, _, request, event in rows if event == _ENDS[0])
    wrong = {str(one): told[one] for one in ids if told[one] != 1}
    assert wrong == {}, f"told of another number of times: {wrong}"
    again = f", {len(twice)} again by the same id after one of {kills} kills" if twice else ""
    return f"{len(arrived)} messages about {len(rows)} events{again}"


def agrees_with_prefect(stack: Stack, locations: Sequence[str] = ()) -> str:
    """Runs and task runs, asked over the API, are as our rows."""
    return must_agree(stack, locations=locations, within=180)


def no_core_files(stack: Stack, *, since: float) -> str:
    """No process of ours left its memory anywhere it could."""
    folders = {Path("/"), ROOT, Path.cwd(), Path(tempfile.gettempdir()), stack.data_dir}
    cores = [
        path
        for folder in folders
        for path in folder.glob("core*")
        if path.is_file() and _is_core(path) and path.stat().st_mtime >= since
    ]
    assert cores == []
    return f"{len(folders)} folders"


def _is_core(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def audit_trail_is_whole(stack: Stack) -> str:
    """The chain of the audit trail holds from its first line to its last."""
    done = stack.cli("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[0]


def must_be_left_whole(stack: Stack, locations: Sequence[str]) -> None:
    """Look at everything of endpoints whose runs were killed, once after all of them."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "select r.id from requests r join endpoints e on e.id = r.endpoint_id"
            " where e.location = any(%s)",
            [list(locations)],
        )
        ids = [id_ for (id_,) in rows]
    rows_are_whole(stack, ids)
    must_agree_on_bare_runs(stack, locations, killed=True)
    nothing_is_held(stack, ids)
    audit_trail_is_whole(stack)
    must_not_leak(stack, ids)
