"""Step rows: where each documented step of a request stands, and the history of tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select, update

from certrail.errors import CertrailError, ConnectorError
from certrail.store import outbox
from certrail.store.database import transaction
from certrail.store.schema import endpoints, requests, step_attempts, steps
from certrail.tracker import StepStatus, Title


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request as the trackers show it."""

    number: int
    title: Title
    status: StepStatus
    detail: str | None
    started_at: datetime | None
    ended_at: datetime | None
    attempts: int
    cause: str | None
    remedy: str | None
    retryable: bool | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a step."""

    number: int
    run: int
    status: StepStatus
    detail: str | None
    cause: str | None
    started_at: datetime
    ended_at: datetime | None


def of_request(request_id: UUID) -> list[Step]:
    """Return the steps in their documented order."""
    return of_requests([request_id])[request_id]


def of_requests(request_ids: Sequence[UUID]) -> dict[UUID, list[Step]]:
    """Return the steps of several requests in one query."""
    query = select(steps).where(steps.c.request_id.in_(request_ids)).order_by(steps.c.number)
    found: dict[UUID, list[Step]] = {request_id: [] for request_id in request_ids}
    with transaction() as connection:
        for row in connection.execute(query):
            found[row.request_id].append(
                Step(
                    number=row.number,
                    title=Title(row.title),
                    status=StepStatus(row.status),
                    detail=row.detail,
                    started_at=row.started_at,
                    ended_at=row.ended_at,
                    attempts=row.attempts,
                    cause=row.cause,
                    remedy=row.remedy,
                    retryable=row.retryable,
                    error=row.error,
                )
            )
    return found


def history(request_id: UUID) -> list[Attempt]:
    """Return every try of every step, oldest first."""
    query = (
        select(step_attempts)
        .where(step_attempts.c.request_id == request_id)
        .order_by(step_attempts.c.id)
    )
    with transaction() as connection:
        return [
            Attempt(
                row.number,
                row.run,
                StepStatus(row.status),
                row.detail,
                row.cause,
                row.started_at,
                row.ended_at,
            )
            for row in connection.execute(query)
        ]


def begin(request_id: UUID, number: int, run: int, task_run_id: UUID | None) -> int:
    """Note that a try of the step begins; returns how many tries there were, this one included."""
    with transaction() as connection:
        attempts: int = connection.execute(
            update(steps)
            .where(steps.c.request_id == request_id, steps.c.number == number)
            .values(
                status=StepStatus.RUNNING,
                attempts=steps.c.attempts + 1,
                started_at=func.coalesce(steps.c.started_at, func.now()),
                ended_at=None,
                task_run_id=task_run_id,
            )
            .returning(steps.c.attempts)
        ).scalar_one()
        connection.execute(
            insert(step_attempts).values(
                request_id=request_id,
                number=number,
                run=run,
                status=StepStatus.RUNNING,
                started_at=func.now(),
            )
        )
    return attempts


def end(request_id: UUID, number: int, status: StepStatus, detail: str) -> None:
    """Note that the step is completed, skipped or cancelled."""
    _end(request_id, number, status, detail=detail)


def fail(request_id: UUID, number: int, error: CertrailError, *, final: bool) -> None:
    """Note that a try failed; *final* when no other try follows in this run."""
    _end(
        request_id,
        number,
        StepStatus.FAILED if final else StepStatus.RUNNING,
        error=error,
    )


def _end(
    request_id: UUID,
    number: int,
    status: StepStatus,
    *,
    detail: str | None = None,
    error: CertrailError | None = None,
) -> None:
    cause = str(error) if error else None
    tried = StepStatus.FAILED if error else status
    with transaction() as connection:
        row = connection.execute(
            update(steps)
            .where(steps.c.request_id == request_id, steps.c.number == number)
            .values(
                status=status,
                detail=detail,
                cause=cause,
                remedy=error.remedy if error else None,
                retryable=error.retryable if error else None,
                error=_class_of(error),
                ended_at=func.now() if status.is_final else None,
            )
            .returning(steps.c.title)
        ).one()
        latest = (
            select(func.max(step_attempts.c.id))
            .where(step_attempts.c.request_id == request_id, step_attempts.c.number == number)
            .scalar_subquery()
        )
        connection.execute(
            update(step_attempts)
            .where(step_attempts.c.id == latest)
            .values(status=tried, detail=detail, cause=cause, ended_at=func.now())
        )
        if status.is_final and status is not StepStatus.CANCELLED:
            location = connection.execute(
                select(endpoints.c.location)
                .select_from(requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id))
                .where(requests.c.id == request_id)
            ).scalar_one()
            outbox.put(
                connection,
                f"certrail.step.{status}",
                location,
                request_id=request_id,
                step=row.title,
                number=number,
                detail=detail or cause,
            )


def _class_of(error: CertrailError | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, ConnectorError) and error.code:
        return f"{type(error).__name__}:{error.code}"
    return type(error).__name__
