"""An inventory with connectors and a profile, and certificates to put into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import insert, select, update

from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.profile import ProfileConfig
from certrail.jobs.waves import Lane, Place, Route, Shard
from certrail.model import Action, Chain
from certrail.store import certificates, configured, new_jobs, new_requests, plans, requests
from certrail.store.database import transaction
from certrail.store.jobs import Job
from certrail.store.requests import Reason, Request
from certrail.store.schema import connectors, endpoints, journal
from certrail.store.schema import requests as request_table

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())

Issue = Callable[..., Chain]


def issue(
    *names: str,
    days: float = 60,
    issuer: str = "Test CA",
    key: ec.EllipticCurvePrivateKey = KEY,
) -> Chain:
    """Return a certificate that ends in *days*."""
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(min(now, end) - timedelta(days=30)).not_valid_after(end)
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return Chain.of([builder.add_extension(alternative, False).sign(KEY, hashes.SHA256())])


class Inventory:
    """Puts things into the inventory of a test."""

    def endpoint(self, location: str, **fields: Any) -> UUID:
        """Add or change an endpoint; *fields* are those of the configuration file."""
        wanted = EndpointConfig.model_validate({"location": location, **fields})
        with transaction() as connection:
            configured.apply_endpoints(connection, [wanted], "test")
            query = select(endpoints.c.id).where(endpoints.c.location == location)
            found: UUID = connection.execute(query).scalar_one()
            return found

    def set(self, location: str, **columns: Any) -> None:
        """Set columns of an endpoint that no configuration sets."""
        with transaction() as connection:
            connection.execute(
                update(endpoints).where(endpoints.c.location == location).values(**columns)
            )

    def certificate(self, location: str, chain: Chain) -> UUID:
        """Make *chain* the certificate that the endpoint got from us."""
        with transaction() as connection:
            found = certificates.save(connection, chain, ca="ca")
        self.set(location, certificate_id=found)
        return found

    def request(self, location: str, code: str = "requested", **columns: Any) -> Request:
        """Make a request of the endpoint; *columns* are set afterwards."""
        prepared = plans.for_location(location)
        made = new_requests.create(
            prepared.endpoint_id,
            action=Action.RENEW,
            plan=prepared.plan,
            reason=Reason(code, "because"),
            actor="test",
        )
        if columns:
            self.set_request(made, **columns)
        return requests.get(made.id)

    def set_request(self, request: Request, **columns: Any) -> None:
        """Set columns of a request."""
        with transaction() as connection:
            connection.execute(
                update(request_table).where(request_table.c.id == request.id).values(**columns)
            )

    def age_journal(self, by: timedelta) -> None:
        """Let everything have been begun earlier."""
        with transaction() as connection:
            connection.execute(update(journal).values(intent_at=journal.c.intent_at - by))

    def profile(self, name: str, **fields: Any) -> None:
        """Add or change a profile."""
        wanted = {"name": name, "workflow": "web-server", "ca": "ca", **fields}
        with transaction() as connection:
            configured.apply_profiles(connection, [ProfileConfig.model_validate(wanted)], "test")

    def connector(self, name: str, slug: str, **columns: Any) -> None:
        """Add a connector."""
        with transaction() as connection:
            connection.execute(insert(connectors).values(name=name, slug=slug, **columns))


def job_of(
    *names: str,
    called: str = "spring",
    left_out: Sequence[new_jobs.LeftOut] = (),
    canary: bool = False,
    max_failures: str | None = None,
) -> Job:
    """Start a job that renews these endpoints."""
    draft = new_jobs.Draft(
        name=called,
        action=Action.RENEW,
        concurrency=5,
        max_failures=max_failures,
        canary=canary,
        in_window=False,
        scheduled_at=None,
        actor="ann@host",
    )
    prepared = [plans.for_location(f"{name}:443") for name in names]
    chosen = [
        new_jobs.Chosen(
            endpoint_id=one.endpoint_id,
            action=Action.RENEW,
            plan=one.plan,
            place=Place(position=number, wave=1, shard=1),
            previous_certificate_id=one.certificate_id,
            certificate_id=None,
        )
        for number, one in enumerate(prepared, start=1)
    ]
    shards = [Shard(1, 1, Route("agents"), Lane.MAIN, len(chosen))]
    return new_jobs.create(draft, chosen, left_out, shards)


def of(job: Job, name: str) -> Request:
    """Return the request that the job made for an endpoint."""
    with transaction() as connection:
        found: UUID = connection.execute(
            select(request_table.c.id).where(
                request_table.c.job_id == job.id,
                request_table.c.endpoint_id == plans.for_location(f"{name}:443").endpoint_id,
            )
        ).scalar_one()
    return requests.get(found)


@pytest.fixture
def inventory(database_url: str) -> Inventory:
    """An inventory with the connectors `ca`, `ns`, `web` and the profile `p`."""
    there = Inventory()
    there.connector("ca", "ca-acme")
    there.connector("ns", "dns-rfc2136")
    there.connector("web", "host-ssh")
    there.profile("p", validation={"method": "dns-01", "dns": "ns"})
    return there
