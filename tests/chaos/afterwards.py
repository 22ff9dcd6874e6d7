"""What must hold in a whole installation once faults are over, whichever workflows ran.

Each function raises AssertionError with what is wrong; :func:`rules` has all of
them for a soak. What concerns one web server's request is in
:mod:`tests.chaos.invariants`.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import httpx
import psycopg

from certrail.model import Workflow
from certrail.x509.export import Format, Part, load
from tests.chaos.ground import Ground
from tests.chaos.leaks import must_not_leak
from tests.chaos.soak import Counts
from tests.support.agreement import must_agree
from tests.support.mail_server import MailServer
from tests.support.process import wait_for
from tests.support.stack import ROOT, Stack

Rule = Callable[[], str]
# Of a response to a challenge whose reply got lost nothing is left: the CA has decided.
_UNDONE = """
    select action, key from journal where request_id = any(%s) and outcome is null
    and action <> 'challenge.respond'
    and not exists (select 1 from orders where key = journal.key and is_dead)
"""
_ENDS = ("certrail.request.completed", "certrail.certificate.issued")


def rules(ground: Ground, counts: Counts, issued: Counter[str], began: float) -> Iterator[Rule]:
    """Return everything that must hold; *issued* are the CAs' counts, *began* the start's time.

    Each rule says in a few words what it has looked at.
    """
    stack, ids = ground.stack, list(counts.done)
    yield lambda: issued_once(ground, counts, issued)
    yield lambda: rows_are_whole(stack, ids)
    yield lambda: what_failed_was_explained(counts)
    yield lambda: clients_found_a_valid_pair(ground, counts)
    yield lambda: places_have_the_last_certificate(ground, counts)
    yield lambda: nothing_is_left_outside(ground)
    yield lambda: nothing_is_held(stack)
    yield lambda: everybody_was_told_once(stack, ground.mail, ids)
    yield lambda: agrees_with_prefect(stack)
    yield lambda: no_core_files(stack, since=began)
    yield lambda: audit_trail_is_whole(stack)
    yield lambda: keys_are_nowhere(ground, counts)


def issued_once(ground: Ground, counts: Counts, issued: Counter[str]) -> str:
    """As many certificates as requests, says the CA."""
    of = {Workflow.WEB_SERVER: "pebble"}
    wanted = Counter(of.get(place.workflow, "folder") for place in counts.done.values())
    assert issued == wanted, f"the CAs issued {dict(issued)}, requests were {dict(wanted)}"
    return f"{wanted.total()} certificates"


def rows_are_whole(stack: Stack, ids: Sequence[UUID]) -> str:
    """One order each, all steps ended, nothing begun and left, every end told once."""
    with psycopg.connect(stack.database_url) as connection:

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query, [list(ids)]).fetchall()

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
    assert orders == dict.fromkeys(ids, 1), "an order was doubled or lost"
    assert steps == [], "a step has no end"
    assert undone == [], "something was begun and neither ended nor withdrawn"
    wrong = [(one, event) for one in ids for event in _ENDS if told[one, event] != 1]
    assert wrong == [], f"lost or doubled: {[(*one, told[one]) for one in wrong[:5]]}"
    return f"{len(ids)} requests, {told.total()} events"


def what_failed_was_explained(counts: Counts) -> str:
    """Every failed step has cause, remedy and retryable."""
    for title, cause, remedy, retryable in counts.failures:
        assert cause, title
        assert remedy, (title, cause)
        assert retryable is not None, (title, cause)
    return f"{len(counts.failures)} failed steps"


def clients_found_a_valid_pair(ground: Ground, counts: Counts) -> str:
    """Every handshake was completed, with a certificate that was there or that we put there."""
    assert counts.broken == [], counts.broken[:5]
    with psycopg.connect(ground.stack.database_url) as connection:
        ours = {str(one) for (one,) in connection.execute("select fingerprint from certificates")}
    for name, seen in counts.seen.items():
        assert len(seen - ours) <= 1, f"{name} served what nobody gave it"
    return f"{counts.handshakes} handshakes"


def places_have_the_last_certificate(ground: Ground, counts: Counts) -> str:
    """From outside everything is as the inventory has it."""
    with psycopg.connect(ground.stack.database_url) as connection:
        last: dict[str, str] = dict(
            connection.execute(
                "select e.location, c.fingerprint from endpoints e"
                " join lateral (select certificate_id from requests where endpoint_id = e.id"
                " order by created_at desc limit 1) r on true"
                " join certificates c on c.id = r.certificate_id"
            ).fetchall()
        )
    used = {place.location: place for place in counts.done.values()}
    for location, place in used.items():
        found = ground.served(place)
        if found is None:
            content = (ground.delivered / f"{place.name}.p12").read_bytes()
            found = load(
                {Part.STORE: content}, Format.PKCS12, password=ground.password.read_text()
            ).chain.fingerprint
        assert found == last[location], f"{location} has another certificate"
    return f"{len(used)} endpoints"


def nothing_is_left_outside(ground: Ground) -> str:
    """No TXT record, no staged file or shelf, no lock."""
    names = [one.name for one in ground.places if one.workflow is Workflow.WEB_SERVER]
    for name in names:
        assert ground.outside.dns.records(f"_acme-challenge.{name}", "TXT") == [], name
    left = [p for p in ground.outside.nginx.directory.rglob("*") if ".certrail" in p.name]
    left += [p for p in ground.delivered.rglob("*") if p.name.startswith(".certrail-")]
    assert left == [], left[:5]
    shelf = (ground.caddy.config("apps/http/servers") or {}).get("certrail_staged")
    assert shelf is None, f"Caddy still has what was staged: {list(shelf.get('named_routes', {}))}"
    return f"{len(names)} names in DNS, folders of all hosts, the appliance"


def nothing_is_held(stack: Stack) -> str:
    """No slot of a limit, no lease, no claim."""
    held = {"limits": 0}

    def free() -> bool:
        limits = httpx.post(f"{stack.api_url}/v2/concurrency_limits/filter", json={}, timeout=30)
        taken = [one["name"] for one in limits.raise_for_status().json() if one["active_slots"]]
        held["limits"] = len(limits.json())
        with psycopg.connect(stack.database_url) as connection:
            rows = connection.execute(
                "select 'request ' || id from requests where lease_owner is not null"
                " union all select 'notification ' || id from notifications"
                " where status = 'pending'"
                " union all select 'event ' || id from outbox where routed_at is null"
            ).fetchall()
        held["what"] = [*taken, *(one for (one,) in rows)]  # type: ignore[assignment]
        return not held["what"]

    # A lease of a killed worker ends by itself.
    try:
        wait_for(free, "nothing is held", within=180)
    except AssertionError:
        raise AssertionError(f"still held: {held}") from None
    files = list(stack.data_dir.rglob("concurrency_leases/*.json"))
    leases = [p.name for p in files if p.name != "expirations.json"]
    leases += [
        p.read_text() for p in files if p.name == "expirations.json" if len(p.read_text()) > 2
    ]
    assert leases == [], leases
    return f"{held['limits']} limits, leases of requests, claims of messages"


def everybody_was_told_once(stack: Stack, mail: MailServer, ids: Sequence[UUID]) -> str:
    """Each message of the log arrived by SMTP, once; each request's end is in one of them."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "select n.message_id, n.status, o.request_id, o.event from notifications n"
            " join outbox o on o.id = n.outbox_id"
        ).fetchall()
    states = Counter(status for _, status, _, _ in rows)
    assert set(states) == {"sent"}, dict(states)
    arrived = Counter(
        str(one.mail["Message-ID"]).strip("<>").split("@")[0] for one in mail.received
    )
    sent = {message for message, _, _, _ in rows}
    assert set(arrived) == sent, "a message was lost, or nobody knows of it"
    twice = [one for one, times in arrived.items() if times > 1]
    assert twice == [], f"{len(twice)} messages came twice"
    told = Counter(request for _, _, request, event in rows if event == _ENDS[0])
    wrong = {str(one): told[one] for one in ids if told[one] != 1}
    assert wrong == {}, f"told of another number of times: {wrong}"
    return f"{len(arrived)} mails about {len(rows)} events"


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


def keys_are_nowhere(ground: Ground, counts: Counts) -> str:
    """No private key in anything that is written, shown, sent or left."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "certrail-soak-mails"
    folder.write_bytes(b"\n".join(one.raw for one in ground.mail.received))
    try:
        number, size = must_not_leak(ground.stack, counts.done)
    finally:
        folder.unlink()
    return f"{number} keys in {size // 2**20} MiB"


def failures_of(rules_: Collection[Rule]) -> tuple[list[str], list[str]]:
    """Run *rules_*; returns what they have looked at, and what did not hold."""
    held, broken = [], []
    for rule in rules_:
        try:
            held.append(rule())
        except AssertionError as exc:
            broken.append(str(exc)[:2000])
    return held, broken
