"""What must hold in a whole installation once faults are over, whichever workflows ran.

Each function raises AssertionError with what is wrong; :func:`rules` has all of
them for a soak. What concerns one web server's request is in
:mod:`tests.chaos.invariants`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psycopg

from certrail.model import Workflow
from certrail.x509.export import Format, Part, load
from tests.chaos.ground import Ground
from tests.chaos.leaks import must_not_leak
from tests.chaos.records import (
    agrees_with_prefect,
    audit_trail_is_whole,
    everybody_was_told_once,
    no_core_files,
    nothing_is_held,
    rows_are_whole,
)
from tests.chaos.soak import Counts

Rule = Callable[[], str]


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
    yield lambda: everybody_was_told_once(
        stack, mails(ground), ids, of_all=True, kills=counts.kills.total()
    )
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
        newest = {
            location: (fingerprint, told)
            for location, fingerprint, *told in connection.execute(
                "select e.location, c.fingerprint,"
                " r.id, r.status, r.action, r.requested_by, r.created_at, r.reason_code,"
                " r.ended_because"
                " from endpoints e join lateral (select * from requests where endpoint_id = e.id"
                " order by created_at desc limit 1) r on true"
                " left join certificates c on c.id = r.certificate_id"
            )
        }
    used = {place.location: place for place in counts.done.values()}
    for location, place in used.items():
        found = ground.served(place)
        if found is None:
            content = (ground.delivered / f"{place.name}.p12").read_bytes()
            found = load(
                {Part.STORE: content}, Format.PKCS12, password=ground.password.read_text()
            ).chain.fingerprint
        fingerprint, told = newest[location]
        assert found == fingerprint, f"{location} has another certificate than {told}"
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


def mails(ground: Ground) -> Counter[str]:
    """Count the mails that arrived, by message id."""
    return Counter(
        str(one.mail["Message-ID"]).strip("<>").split("@")[0] for one in ground.mail.received
    )


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
