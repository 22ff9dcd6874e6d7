"""A fleet of endpoints through simulated months: the real sweep and the real record, no waiting.

Only the world around the product is played here: the clock, the CAs that
sign, and the agents that take a run when its moment has come. The database's
``now()`` is the simulated one as well, so what is stored is of that time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select, text, update

from certrail.configuration.endpoint import EndpointConfig
from certrail.model import Chain, KeyAlgorithm, RenewalInfo
from certrail.renewal.budget import hour_of
from certrail.renewal.hold import install_at
from certrail.steps import renewal
from certrail.store import (
    certificates,
    configured,
    database,
    orders,
    renewal_info,
    request_ends,
    request_runs,
    requests,
)
from certrail.store.requests import Request
from certrail.store.schema import certificates as certificate_table
from certrail.store.schema import endpoints
from certrail.store.schema import requests as table
from certrail.tracker import Status

LIFETIME = timedelta(days=47)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# The same certificates, and so the same moments, in each run.
_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
_AHEAD = timedelta(days=7)
_LEASE = timedelta(minutes=1)

_CLOCK = """
create schema simulated;
create table simulated.clock (at timestamptz not null);
insert into simulated.clock values (pg_catalog.now());
create function simulated.now() returns timestamptz language sql stable
  as 'select at from simulated.clock';
"""


@dataclass(frozen=True, slots=True)
class Away:
    """A CA or an agent that does not answer.

    Attributes:
        name: of the CA, or of the install target that the agent reaches.
    """

    name: str
    since: datetime
    until: datetime

    def covers(self, name: str, at: datetime) -> bool:
        """Whether *name* is away at *at*."""
        return name == self.name and self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Ordered:
    """A certificate that a CA was asked for, and gave."""

    at: datetime
    ca: str
    location: str
    criticality: str
    reason: str
    replaces: UUID | None


@dataclass(slots=True)
class Fleet:
    """The endpoints, and what happened to them.

    Attributes:
        now: the simulated present.
        away: who does not answer, and when.
        orders: what the CAs signed.
        asked: runs that began in each clock hour at each CA, those that failed included.
        held: runs that had to wait for an agent that was away.
        gaps: locations that served an expired certificate, with when it ended and was replaced.
        sweep: one turn of the sweep, on the simulated present.
    """

    now: datetime
    away: Sequence[Away] = ()
    orders: list[Ordered] = field(default_factory=list)
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    gaps: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    held: set[UUID] = field(default_factory=set)
    failures: int = 0
    waited: int = 0
    sweep: Callable[[datetime], object] = lambda now: renewal.turn(now, horizon=_AHEAD)
    _serial: int = 0

    def start(self) -> None:
        """Let the database's ``now()`` be the simulated one."""
        with database.transaction() as connection:
            connection.execute(text(_CLOCK))
            name = connection.execute(text("select current_database()")).scalar_one()
            connection.execute(
                text(f'alter database "{name}" set search_path = simulated, pg_catalog, public')
            )
        # The next connections have it.
        database.engine().dispose()
        database.engine("AUTOCOMMIT").dispose()
        database.engine("AUTOCOMMIT", durable=False).dispose()
        self.set(self.now)

    def set(self, now: datetime) -> None:
        """Make *now* the present."""
        self.now = now
        with database.statement() as connection:
            connection.execute(text("update simulated.clock set at = :now"), {"now": now})

    def add(self, wanted: dict[str, Any], *, ca: str, age: timedelta) -> None:
        """Add an endpoint that has had a certificate from *ca* for so long."""
        with database.transaction() as connection:
            configured.apply_endpoints(connection, [EndpointConfig.model_validate(wanted)], "test")
            kept = certificates.save(
                connection, self._signed(wanted["location"], self.now - age), ca=ca
            )
            connection.execute(
                update(endpoints)
                .where(endpoints.c.location == wanted["location"])
                .values(certificate_id=kept)
            )

    def pass_time(self, until: datetime, every: timedelta) -> None:
        """Let time pass: sweep *every* so often; runs begin at their moments."""
        while self.now < until:
            self.sweep(self.now)
            end = min(self.now + every, until)
            self._run_due(self.now, end)
            self.set(end)

    def move_windows(self, ca: str, start: datetime, end: datetime) -> int:
        """Let *ca* suggest to renew all that it signed between *start* and *end*."""
        with database.transaction() as connection:
            found = (
                connection.execute(
                    select(certificate_table.c.id)
                    .join(endpoints, endpoints.c.certificate_id == certificate_table.c.id)
                    .where(certificate_table.c.ca == ca)
                )
                .scalars()
                .all()
            )
        for one in found:
            said = RenewalInfo(start, end, "https://ca.test/incident", 6 * HOUR)
            renewal_info.keep(one, said, self.now, self.now + 6 * HOUR)
        return len(found)

    def expired(self) -> list[str]:
        """Return the locations whose certificate has ended by now."""
        with database.transaction() as connection:
            return list(
                connection.execute(
                    select(endpoints.c.location)
                    .join(certificate_table, endpoints.c.certificate_id == certificate_table.c.id)
                    .where(certificate_table.c.not_after <= self.now)
                ).scalars()
            )

    def _run_due(self, since: datetime, until: datetime) -> None:
        while True:
            began = 0
            with database.transaction() as connection:
                rows = connection.execute(
                    select(
                        table.c.id,
                        table.c.scheduled_at,
                        endpoints.c.target,
                        endpoints.c.criticality,
                    )
                    .join(endpoints, table.c.endpoint_id == endpoints.c.id)
                    .where(
                        table.c.status == Status.AUTOMATION_SCHEDULED,
                        table.c.scheduled_at < until,
                    )
                    .order_by(table.c.scheduled_at)
                ).all()
            for row in rows:
                at = max(row.scheduled_at, since)
                if self._is_away(row.target, at):
                    self.held.add(row.id)
                    continue
                self.set(at)
                self._run(request_runs.take(row.id, "agent", _LEASE), row.criticality)
                began += 1
            if not began:
                return

    def _run(self, request: Request, criticality: str) -> None:
        ca = request.plan.ca.name
        if request.certificate_id is None:
            self.asked[ca, hour_of(self.now)] += 1
            order = orders.begin(request.id, ca, request.plan.names, KeyAlgorithm.ECDSA_P256)
            if self._is_away(ca, self.now):
                self.failures += 1
                request_ends.finish(request.id, "agent", Status.AUTOMATION_FAILED)
                return
            chain = self._signed(request.location, self.now)
            with database.transaction() as connection:
                kept = certificates.save(connection, chain, ca=order.ca)
                requests.keep_certificate(connection, request.id, kept)
            self.orders.append(
                Ordered(
                    self.now,
                    ca,
                    request.location,
                    criticality,
                    request.reason.code,
                    request.previous_certificate_id,
                )
            )
        verdict = install_at(request.plan.hold, self.now)
        if verdict.until is not None:
            self.waited += 1
            request_runs.wait(request.id, "agent", verdict.until, verdict.message, 4)
            return
        self._note_gap(request)
        request_ends.finish(request.id, "agent", Status.AUTOMATION_SUCCESSFUL)

    def _note_gap(self, request: Request) -> None:
        with database.statement() as connection:
            ended = connection.execute(
                select(certificate_table.c.not_after).where(
                    certificate_table.c.id == request.previous_certificate_id
                )
            ).scalar_one()
        if ended <= self.now:
            self.gaps.append((request.location, ended, self.now))

    def _is_away(self, name: str, at: datetime) -> bool:
        return any(one.covers(name, at) for one in self.away)

    def _signed(self, location: str, at: datetime) -> Chain:
        self._serial += 1
        name = location.partition(":")[0]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated CA")]))
            .public_key(_KEY.public_key())
            .serial_number(self._serial)
            .not_valid_before(at.astimezone(UTC))
            .not_valid_after((at + LIFETIME).astimezone(UTC))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        )
        return Chain.of([builder.sign(_KEY, hashes.SHA256(), ecdsa_deterministic=True)])
