"""Which certificate an endpoint had before a request, and how to get back to it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from certrail.model import Action, Staged
from certrail.rollback import Facts
from certrail.store import certificates
from certrail.store import requests as request_store
from certrail.store.certificates import Certificate
from certrail.store.database import statement
from certrail.store.requests import Request
from certrail.store.schema import endpoints, requests
from certrail.tracker import SUCCESSFUL


@dataclass(frozen=True, slots=True)
class Way:
    """The way back from what a request installed.

    Attributes:
        request: what is taken back.
        present: the certificate that it installed, None if it installed none.
        before: the certificate before, None if the inventory does not know it.
        staged: what the target needs to bring it back by itself, None if it cannot.
        facts: what decides whether that is done.
    """

    request: Request
    present: Certificate | None
    before: Certificate | None
    staged: Staged | None
    facts: Facts


def way_back(which: str) -> Way:
    """Return the way back from a request, or from what a location has now.

    Raises:
        NotFound, InvalidRequest: there is no such request, or several.
    """
    found = request_store.find(which, begun=True)
    if found.location == which.lower():
        found = _present_of(found) or found
    is_installed = found.status in SUCCESSFUL and found.certificate_id is not None
    # One that installed the same again was not the first: what was there before that counts.
    first = _first_of(found) if is_installed else found
    staged = Staged.from_json(first.staged) if first.staged else None
    present = certificates.get(found.certificate_id) if found.certificate_id else None
    before = _before(first, staged, present)
    had_before = before is not None or bool(staged and staged.replaces)
    return Way(
        found,
        present,
        before,
        staged,
        Facts(
            is_installed=is_installed,
            is_present=is_installed and _has(found.endpoint_id) == found.certificate_id,
            had_before=had_before,
            before=before,
            has_key=before is not None and before.key_id is not None,
            # Of several places only the first is on record here.
            is_kept_there=staged is not None and not found.plan.also_on,
        ),
    )


def _has(endpoint_id: UUID) -> UUID | None:
    with statement() as connection:
        found: UUID | None = connection.execute(
            select(endpoints.c.certificate_id).where(endpoints.c.id == endpoint_id)
        ).scalar()
    return found


def _present_of(request: Request) -> Request | None:
    """Return the request that brought what the endpoint has now."""
    query = (
        request_store.selected()
        .where(
            requests.c.endpoint_id == request.endpoint_id,
            requests.c.certificate_id == endpoints.c.certificate_id,
            requests.c.status.in_(SUCCESSFUL),
        )
        .order_by(requests.c.created_at.desc())
        .limit(1)
    )
    with statement() as connection:
        row = connection.execute(query).first()
    return request_store.read(row) if row is not None else None


def _first_of(request: Request) -> Request:
    """Return the first request that installed the same certificate, if *request* did it again."""
    if request.action is not Action.REDEPLOY:
        return request
    query = (
        request_store.selected()
        .where(
            requests.c.endpoint_id == request.endpoint_id,
            requests.c.certificate_id == request.certificate_id,
            requests.c.status.in_(SUCCESSFUL),
        )
        .order_by(requests.c.created_at)
        .limit(1)
    )
    with statement() as connection:
        return request_store.read(connection.execute(query).one())


def _before(
    request: Request, staged: Staged | None, present: Certificate | None
) -> Certificate | None:
    found = None
    if staged is not None and staged.replaces:
        found = certificates.by_fingerprint(staged.replaces)
    elif request.previous_certificate_id is not None:
        found = certificates.get(request.previous_certificate_id)
    if found is None or (present is not None and found.id == present.id):
        return None
    return found
