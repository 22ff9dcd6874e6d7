"""Step rows: where each documented step of a request stands, and the history of tries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select, text, update

from certrail.errors import CertrailError, ConnectorError
from certrail.store.database import statement
from certrail.store.schema import step_attempts, steps
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
    with statement() as connection:
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
    with statement() as connection:
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


_BEGIN = text(
    """
    with begun as (
      update steps set status = 'running', attempts = attempts + 1,
        started_at = coalesce(started_at, now()), ended_at = null, task_run_id = :task_run_id
      where request_id = :request_id and number = :number
      returning attempts
    ), noted as (
      insert into step_attempts (request_id, number, run, status, started_at)
      values (:request_id, :number, :run, 'running', now())
    )
    select attempts from begun
    """
)
_END = text(
    """
    with ended as (
      update steps set status = :status, detail = :detail, cause = :cause, remedy = :remedy,
        retryable = :retryable, error = :error,
        ended_at = case when :is_final then now() end
      where request_id = :request_id and number = :number
        and (cast(:status as text) in ('completed', 'skipped')
          or status not in ('completed', 'skipped'))
      returning title
    ), noted as (
      update step_attempts set status = :tried, detail = :detail, cause = :cause, ended_at = now()
      where ended_at is null and id = (
        select max(id) from step_attempts where request_id = :request_id and number = :number
      )
    )
    insert into outbox (event, resource, request_id, payload)
    select cast(:event as text), 'certrail.endpoint.' || e.location, r.id,
      jsonb_strip_nulls(jsonb_build_object(
        'location', e.location, 'step', ended.title, 'number', cast(:number as int),
        'detail', coalesce(cast(:detail as text), cast(:cause as text)),
        'cause', cast(:cause as text), 'remedy', cast(:remedy as text),
        'retryable', cast(:retryable as boolean)
      ))
    from ended, requests r join endpoints e on e.id = r.endpoint_id
    where r.id = :request_id and cast(:event as text) is not null
    """
)


def begin(request_id: UUID, number: int, run: int, task_run_id: UUID | None) -> int:
    """Note that a try of the step begins; returns how many tries there were, this one included."""
    with statement() as connection:
        attempts: int = connection.execute(
            _BEGIN,
            {
                "request_id": request_id,
                "number": number,
                "run": run,
                "task_run_id": task_run_id,
            },
        ).scalar_one()
    return attempts


def end(request_id: UUID, number: int, status: StepStatus, detail: str) -> None:
    """Note that the step is completed, skipped or cancelled."""
    _end(request_id, number, status, detail=detail)


def again(connection: Connection, request_ids: Collection[UUID]) -> None:
    """Put failed and cancelled steps back in the caller's transaction; finished ones stay so."""
    connection.execute(
        update(steps)
        .where(
            steps.c.request_id.in_(request_ids),
            steps.c.status.in_((StepStatus.FAILED, StepStatus.CANCELLED)),
        )
        .values(
            status=StepStatus.PENDING,
            cause=None,
            remedy=None,
            retryable=None,
            error=None,
            detail=None,
            ended_at=None,
        )
    )


def hold(request_id: UUID, number: int, why: str) -> bool:
    """Show what a step that is not over waits for; False if it is over."""
    query = (
        update(steps)
        .where(
            steps.c.request_id == request_id,
            steps.c.number == number,
            steps.c.status.in_((StepStatus.PENDING, StepStatus.RUNNING)),
        )
        .values(detail=why)
        .returning(steps.c.number)
    )
    with statement() as connection:
        return connection.execute(query).first() is not None


def fail(request_id: UUID, number: int, error: CertrailError, *, final: bool) -> None:
    """Note that a try failed; *final* when no other try follows in this run.

    A step that another run has finished meanwhile stays finished.
    """
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
    told = status.is_final and status is not StepStatus.CANCELLED
    # The next intent or the request's end makes it last; without them the step is run again.
    with statement(durable=False) as connection:
        connection.execute(
            _END,
            {
                "request_id": request_id,
                "number": number,
                "status": status,
                "is_final": status.is_final,
                "tried": StepStatus.FAILED if error else status,
                "detail": detail,
                "cause": str(error) if error else None,
                "remedy": error.remedy if error else None,
                "retryable": error.retryable if error else None,
                "error": _class_of(error),
                "event": f"certrail.step.{status}" if told else None,
            },
        )


def _class_of(error: CertrailError | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, ConnectorError) and error.code:
        return f"{type(error).__name__}:{error.code}"
    return type(error).__name__
