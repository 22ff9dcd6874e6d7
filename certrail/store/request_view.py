"""What is shown of a request: one record for the command line, reports and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from certrail.jobs.pauses import AT_THE_CA, Pause, budget_of, last
from certrail.store import pauses, places, requests, steps
from certrail.store.database import transaction
from certrail.store.places import PlaceRow
from certrail.store.requests import Request
from certrail.store.schema import certificates, jobs
from certrail.store.steps import Attempt, Step
from certrail.tracker import ACTIVE, SUCCESSFUL, StepStatus


@dataclass(frozen=True, slots=True)
class CertificateSummary:
    """The certificate that a request obtained."""

    fingerprint: str
    serial: str
    not_after: datetime
    issuer: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "fingerprint": self.fingerprint,
            "serial": self.serial,
            "not_after": time_text(self.not_after),
            "issuer": self.issuer,
        }


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request with its steps, its certificate and where to look at it in Prefect.

    Attributes:
        history: every try of every step, oldest first; None where it was not asked for.
        waits_for: the pause of its CA's budget, None where nothing holds it up.
        places: where its certificate is wanted, if that is several machines.
    """

    request: Request
    steps: tuple[Step, ...]
    job_name: str | None
    certificate: CertificateSummary | None
    flow_run_url: str | None
    history: tuple[Attempt, ...] | None = None
    waits_for: Pause | None = None
    places: tuple[PlaceRow, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.request.status not in ACTIVE

    @property
    def is_successful(self) -> bool:
        """Whether it did all that was asked."""
        return self.request.status in SUCCESSFUL

    @property
    def failed_step(self) -> Step | None:
        """The step that stopped it, None if none did."""
        return next((step for step in self.steps if step.status is StepStatus.FAILED), None)

    def to_json(self) -> dict[str, Any]:
        """Return the documented object; ``history`` only where it was asked for."""
        request = self.request
        shown: dict[str, Any] = {
            "request_id": str(request.id),
            "location": request.location,
            "workflow": str(request.workflow),
            "action": str(request.action),
            "status": str(request.status),
            "job_name": self.job_name,
            "reason": {"code": request.reason.code, "message": request.reason.message},
            "scheduled_at": time_text(request.scheduled_at),
            "started_at": time_text(request.started_at),
            "ended_at": time_text(request.ended_at),
            "flow_run_id": str(request.flow_run_id) if request.flow_run_id else None,
            "flow_run_url": self.flow_run_url,
            "certificate": self.certificate.to_json() if self.certificate else None,
            "steps": [_step(step) for step in self.steps],
            "requested_by": request.requested_by,
            "created_at": time_text(request.created_at),
            "profile": request.plan.profile,
            "run_count": request.run_count,
            "cancel_requested": request.cancel_requested,
        }
        if self.waits_for is not None:
            shown["waits_for"] = pause_json(self.waits_for)
        if self.places:
            shown["places"] = [one.to_json() for one in self.places]
        if self.history is not None:
            shown["history"] = [_attempt(attempt) for attempt in self.history]
        return shown


def view(request: Request, *, ui_url: str, history: bool = False) -> RequestView:
    """Return what is shown of one request; *ui_url* is where Prefect's pages are."""
    found = views([request], ui_url=ui_url)[0]
    if not history:
        return found
    return replace(found, history=tuple(steps.history(request.id)))


def views(listed: Sequence[Request], *, ui_url: str) -> list[RequestView]:
    """Return what is shown of several requests, in their order, by a few queries in all."""
    if not listed:
        return []
    by_request = steps.of_requests([request.id for request in listed])
    obtained = _certificates({r.certificate_id for r in listed if r.certificate_id})
    names = _job_names({r.job_id for r in listed if r.job_id})
    paused = pauses.present() if any(r.status in ACTIVE for r in listed) else []
    return [
        RequestView(
            request=request,
            steps=tuple(by_request[request.id]),
            job_name=names.get(request.job_id) if request.job_id else None,
            certificate=obtained.get(request.certificate_id) if request.certificate_id else None,
            flow_run_url=run_url(ui_url, request.flow_run_id),
            waits_for=_pause_of(request, by_request[request.id], paused),
            places=_places(request) if request.plan.also_on else (),
        )
        for request in listed
    ]


def find(text: str, *, ui_url: str, history: bool = False) -> RequestView:
    """Return the request with that id, or the newest one of that location that has begun.

    Raises:
        NotFound: there is none.
        InvalidRequest: several ids start that way.
    """
    return view(requests.find(text, begun=True), ui_url=ui_url, history=history)


def run_url(ui_url: str, flow_run_id: UUID | None) -> str | None:
    """Return the page of a flow run in Prefect's UI."""
    if flow_run_id is None or not ui_url:
        return None
    return f"{ui_url.rstrip('/')}/runs/flow-run/{flow_run_id}"


def time_text(moment: datetime | None) -> str | None:
    """Return RFC 3339 text in UTC, with ``Z``."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def pause_json(pause: Pause) -> dict[str, Any]:
    """Return a budget that pauses as plain data."""
    return {"budget": pause.budget, "until": time_text(pause.until), "why": pause.why}


def _places(request: Request) -> tuple[PlaceRow, ...]:
    if begun := places.of_request(request.id):
        return tuple(begun)
    targets = [request.plan.target, *(place.target for place in request.plan.also_on)]
    names = [target.name if target else request.location for target in targets]
    return tuple(PlaceRow(n, name, None, False, None) for n, name in enumerate(names))


def _pause_of(request: Request, of_it: Sequence[Step], paused: Sequence[Pause]) -> Pause | None:
    asks = any(step.title in AT_THE_CA and not step.status.is_final for step in of_it)
    if request.status not in ACTIVE or not asks:
        return None
    return last(paused, (budget_of(request.plan.ca.name),))


def _step(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "title": str(step.title),
        "status": str(step.status),
        "detail": step.detail,
        "started_at": time_text(step.started_at),
        "ended_at": time_text(step.ended_at),
        "attempts": step.attempts,
        "cause": step.cause,
        "remedy": step.remedy,
        "retryable": step.retryable,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "run": attempt.run,
        "status": str(attempt.status),
        "detail": attempt.detail,
        "cause": attempt.cause,
        "started_at": time_text(attempt.started_at),
        "ended_at": time_text(attempt.ended_at),
    }


def _certificates(ids: set[UUID]) -> Mapping[UUID, CertificateSummary]:
    if not ids:
        return {}
    query = select(certificates).where(certificates.c.id.in_(ids))
    with transaction() as connection:
        return {
            row.id: CertificateSummary(row.fingerprint, row.serial, row.not_after, row.issuer)
            for row in connection.execute(query)
        }


def _job_names(ids: set[UUID]) -> Mapping[UUID, str]:
    if not ids:
        return {}
    with transaction() as connection:
        rows = connection.execute(select(jobs.c.id, jobs.c.name).where(jobs.c.id.in_(ids)))
        return {row.id: row.name for row in rows}
