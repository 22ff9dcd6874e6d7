"""What nobody does is told too: certificates that end, renewals that do not happen."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text

from certrail.errors import InvalidRequest
from certrail.notify import alarms, drain
from certrail.store.database import transaction
from certrail.store.schema import certificates, endpoints, profiles
from tests.integration.notify.conftest import OPS, Desk

NOW = datetime.now(UTC)


def place(
    name: str, *, left: timedelta, life: timedelta = timedelta(days=90), **renew: object
) -> None:
    """Add an endpoint whose certificate has *left* of its *life*."""
    with transaction() as connection:
        connection.execute(
            text(
                "insert into connectors (name, slug) values ('ca', 'ca-acme')"
                " on conflict do nothing"
            )
        )
        profile = connection.execute(
            insert(profiles)
            .values(name=name, workflow="web-server", ca="ca", settings={"renew": renew})
            .returning(profiles.c.id)
        ).scalar_one()
        certificate = connection.execute(
            insert(certificates)
            .values(
                fingerprint=uuid4().hex,
                serial="1",
                issuer="Test CA",
                names=[name],
                key_kind="ecdsa-p256",
                not_before=NOW + left - life,
                not_after=NOW + left,
                chain_pem="",
            )
            .returning(certificates.c.id)
        ).scalar_one()
        connection.execute(
            insert(endpoints).values(
                location=f"{name}:443", profile_id=profile, certificate_id=certificate
            )
        )


def told(desk: Desk) -> Counter[tuple[str, str]]:
    desk.rules(channels=["hook"])
    desk.drain()
    return Counter(
        (one["events"][0]["slug"], one["events"][0]["location"]) for one in desk.hooks.received
    )


def test_each_threshold_is_told_once(desk: Desk) -> None:
    """Fourteen days before, seven, three, one, and when it is over."""
    place("far.example.test", left=timedelta(days=30))
    place("soon.example.test", left=timedelta(days=6))
    place("over.example.test", left=timedelta(hours=-2))
    for _ in range(3):
        drain.note_expiries(NOW)

    assert told(desk) == {
        ("certificate-expiring", "soon.example.test:443"): 1,
        ("certificate-expired", "over.example.test:443"): 1,
    }
    with transaction() as connection:
        connection.execute(
            text("update certificates set not_after = now() + interval '2 days' where not_after"
                 " between now() + interval '1 day' and now() + interval '10 days'")
        )  # fmt: skip
    drain.note_expiries(NOW)
    assert told(desk)["certificate-expiring", "soon.example.test:443"] == 2


def test_an_overdue_renewal_is_told_once(desk: Desk) -> None:
    """Half of what the policy left is over, and nothing is under way."""
    place("due.example.test", left=timedelta(days=20))
    place("overdue.example.test", left=timedelta(days=14))
    place("late.example.test", left=timedelta(days=14), at_lifetime_fraction=0.9)
    place("by-hand.example.test", left=timedelta(days=14), auto=False)
    for _ in range(3):
        alarms.note_overdue(NOW)

    assert told(desk) == {("renewal-overdue", "overdue.example.test:443"): 1}


def test_an_alarm_is_told_once_for_each_occurrence(desk: Desk) -> None:
    """Automations may fire again for the same event."""
    run = UUID(int=7)
    for occurrence in ("a", "a", "b"):
        alarms.raise_alarm(
            "certrail.run.crashed",
            subject="reconcile",
            occurrence=occurrence,
            detail="Crashed: killed",
            flow_run_id=run,
        )
    assert told(desk) == {("run-crashed", "reconcile"): 2}
    with pytest.raises(InvalidRequest, match="no alarm"):
        alarms.raise_alarm("certrail.request.failed", subject="x", occurrence="x", detail="x")
    assert desk.mail.to(OPS) == []
