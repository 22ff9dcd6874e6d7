"""What notifications tell of: the facts about endpoints and requests that go into a message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Connection, Float, Row, Text, cast, func, literal, select

from certrail.store.schema import (
    certificates,
    endpoints,
    jobs,
    outbox,
    profiles,
    requests,
    steps,
)
from certrail.tracker import ACTIVE


def crossing(
    connection: Connection, days: Sequence[int]
) -> list[tuple[str, str, datetime, int | None]]:
    """Return endpoints whose certificate ends within the longest of *days*, or has ended.

    Each with location, fingerprint, end, and the shortest of *days* that it is
    within; None where it has ended.
    """
    query = (
        select(
            endpoints.c.location,
            certificates.c.fingerprint,
            certificates.c.not_after,
            (certificates.c.not_after - func.now()).label("left"),
        )
        .select_from(endpoints.join(certificates, endpoints.c.certificate_id == certificates.c.id))
        .where(
            certificates.c.not_after < func.now() + timedelta(days=max(days, default=0)),
            certificates.c.not_after > func.now() - timedelta(days=30),
            endpoints.c.profile_id.is_not(None),
        )
    )
    found: list[tuple[str, str, datetime, int | None]] = []
    for row in connection.execute(query):
        if row.left <= timedelta(0):
            found.append((row.location, row.fingerprint, row.not_after, None))
        else:
            within = min(day for day in days if row.left <= timedelta(days=day))
            found.append((row.location, row.fingerprint, row.not_after, within))
    return found


def overdue(connection: Connection) -> list[tuple[str, str, datetime]]:
    """Return endpoints that renew by themselves, should have long ago, and have no request.

    Each with location, fingerprint and end of the certificate in use.
    """
    renew = profiles.c.settings["renew"]
    fraction = func.coalesce(cast(renew["at_lifetime_fraction"].astext, Float), literal(0.67))
    lifetime = certificates.c.not_after - certificates.c.not_before
    # Half of what the policy left is gone.
    moment = certificates.c.not_before + lifetime * ((literal(1.0) + fraction) / 2)
    active = (
        select(requests.c.id)
        .where(requests.c.endpoint_id == endpoints.c.id, requests.c.status.in_(ACTIVE))
        .exists()
    )
    query = (
        select(endpoints.c.location, certificates.c.fingerprint, certificates.c.not_after)
        .select_from(
            endpoints.join(certificates, endpoints.c.certificate_id == certificates.c.id).join(
                profiles, endpoints.c.profile_id == profiles.c.id
            )
        )
        .where(
            moment < func.now(),
            certificates.c.not_after > func.now() - timedelta(days=30),
            func.coalesce(cast(renew["auto"].astext, Boolean), literal(True)),
            ~active,
        )
    )
    return [(row.location, row.fingerprint, row.not_after) for row in connection.execute(query)]


def request_of_run(connection: Connection, flow_run_id: UUID) -> tuple[UUID, str] | None:
    """Return id and location of the request that a Prefect run carries, if it carries one."""
    row = connection.execute(
        select(requests.c.id, endpoints.c.location)
        .select_from(requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id))
        .where(requests.c.flow_run_id == flow_run_id)
    ).first()
    return (row.id, row.location) if row else None


def job_courses(connection: Connection, job_ids: Iterable[UUID]) -> Sequence[Row[Any]]:
    """Return id, name, beginning and end of jobs, and whether an event of it is not routed yet."""
    untold = (
        select(outbox.c.id)
        .where(
            outbox.c.routed_at.is_(None),
            outbox.c.request_id.is_(None),
            outbox.c.payload["job_id"].astext == cast(jobs.c.id, Text),
        )
        .exists()
    )
    query = select(
        jobs.c.id, jobs.c.name, jobs.c.started_at, jobs.c.ended_at, untold.label("untold")
    ).where(jobs.c.id.in_(set(job_ids)))
    return connection.execute(query).all()


def failed_step(connection: Connection, request_id: UUID) -> Row[Any] | None:
    """Return the failed step of a request, if it has one."""
    return connection.execute(
        select(steps)
        .where(steps.c.request_id == request_id, steps.c.status == "failed")
        .order_by(steps.c.number.desc())
        .limit(1)
    ).first()


def place(connection: Connection, location: str) -> Row[Any] | None:
    """Return profile, end and issuer of the certificate that an endpoint has now."""
    return connection.execute(
        select(
            profiles.c.name.label("profile"),
            endpoints.c.target,
            certificates.c.not_after,
            certificates.c.issuer,
        )
        .select_from(
            endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id).outerjoin(
                certificates, endpoints.c.certificate_id == certificates.c.id
            )
        )
        .where(endpoints.c.location == location)
    ).first()


def request(connection: Connection, request_id: UUID) -> Row[Any] | None:
    """Return what a message says about a request."""
    return connection.execute(
        select(requests, jobs.c.name.label("job_name"))
        .select_from(requests.outerjoin(jobs, requests.c.job_id == jobs.c.id))
        .where(requests.c.id == request_id)
    ).first()
