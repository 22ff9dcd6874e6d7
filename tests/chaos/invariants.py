"""What must hold after any storm, once the faults are over and every request was run to its end."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.chaos.field import Field, Seen
from tests.support.process import wait_for


def must_hold(field: Field, seen: Seen) -> None:
    """Check everything but leaked keys, which is looked for once after all storms."""
    for name, request_id in seen.requests.items():
        served = _must_be_whole(field, name, request_id)
        _must_have_served(seen, name, served)
        assert field.outside.dns.records(f"_acme-challenge.{name}", "TXT") == []
    assert seen.certificates == len(seen.requests), "a certificate was lost or doubled"
    left = [p for p in field.outside.nginx.directory.rglob("*") if ".certrail" in p.name]
    assert left == []
    for failure in seen.failures:
        for title, cause, remedy, retryable in failure["failed"]:
            assert cause, title
            assert remedy, title
            assert retryable is not None, title


def _must_be_whole(field: Field, name: str, request_id: str) -> str:
    with psycopg.connect(field.stack.database_url) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query, [request_id]).fetchall()

        ((status, owner, fingerprint),) = rows(
            "select r.status, r.lease_owner, c.fingerprint from requests r"
            " join certificates c on c.id = r.certificate_id where r.id = %s"
        )
        steps = rows("select title, status from steps where request_id = %s order by number")
        live = rows("select count(*) from orders where request_id = %s and not is_dead")
        # Of a response to a challenge whose reply got lost nothing is left: the CA has decided.
        undone = rows(
            "select action, key from journal where request_id = %s and outcome is null"
            " and action <> 'challenge.respond'"
            " and not exists (select 1 from orders where key = journal.key and is_dead)"
        )
        told = rows(
            "select event, count(*) from outbox where request_id = %s"
            " and event in ('certrail.request.completed', 'certrail.certificate.installed',"
            " 'certrail.certificate.issued') group by event"
        )
    assert (status, owner) == ("automation-successful", None)
    assert {step for _, step in steps} <= {"completed", "skipped"}, steps
    assert live == [(1,)]
    assert undone == [], "something was begun and neither ended nor withdrawn"
    assert dict(told) == dict.fromkeys(
        (
            "certrail.request.completed",
            "certrail.certificate.installed",
            "certrail.certificate.issued",
        ),
        1,
    )
    wait_for(
        lambda: field.outside.nginx.served(name) == fingerprint, f"{name} serves its certificate"
    )
    return str(fingerprint)


def _must_have_served(seen: Seen, name: str, served: str) -> None:
    visits = seen.visits[name]
    assert visits.failures == []
    assert visits.seen
    assert set(visits.seen) <= {seen.before[name], served}
