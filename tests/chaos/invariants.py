"""What must hold after any storm, once the faults are over and every request was run to its end.

:mod:`tests.chaos.records` says what is asked once after all of them, and why.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from uuid import UUID

import psycopg

from tests.chaos.field import Field, Seen
from tests.chaos.records import (
    audit_trail_is_whole,
    everybody_was_told_once,
    must_be_whole,
    no_core_files,
    nothing_is_held,
)
from tests.support.agreement import must_agree_on_bare_runs
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for


def must_hold(field: Field, seen: Seen) -> None:
    """Check all that can be checked of these requests by themselves."""
    ids = [UUID(one) for one in seen.requests.values()]
    must_be_whole(field.stack, ids, since=field.began, logs=[field.log])
    must_agree_on_bare_runs(field.stack, [f"{name}:443" for name in seen.requests])
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


def must_be_settled(field: Field) -> None:
    """Check once, after all storms, what they may have left in the installation's records."""
    ids = field.all_requests()
    with closing(PrefectApi(field.stack.api_url)) as api:
        # Rather than to wait for the minute.
        api.run(api.get("/deployments/name/send-notifications/every-minute")["id"])
    nothing_is_held(field.stack, ids)
    everybody_was_told_once(field.stack, Counter(field.hooks.ids), ids)
    no_core_files(field.stack, since=field.began)
    audit_trail_is_whole(field.stack)


def _must_be_whole(field: Field, name: str, request_id: str) -> str:
    with psycopg.connect(field.stack.database_url) as connection:
        row = connection.execute(
            "select c.fingerprint, (select count(*) from outbox where request_id = r.id"
            " and event = 'certrail.certificate.installed')"
            " from requests r join certificates c on c.id = r.certificate_id where r.id = %s",
            [request_id],
        ).fetchone()
    assert row is not None
    fingerprint, installed = row
    assert installed == 1
    wait_for(
        lambda: field.outside.nginx.served(name) == fingerprint, f"{name} serves its certificate"
    )
    return str(fingerprint)


def _must_have_served(seen: Seen, name: str, served: str) -> None:
    visits = seen.visits[name]
    assert visits.failures == []
    assert visits.seen
    assert set(visits.seen) <= {seen.before[name], served}
