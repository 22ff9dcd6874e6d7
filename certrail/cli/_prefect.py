"""Prefect's API: finding it, its client, and the flow runs of requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from certrail.cli._server import CLIENT_SETTINGS
from certrail.errors import Unreachable
from certrail.settings import Installation, adopt
from certrail.store import approvals, jobs
from certrail.store.requests import Request
from certrail.tracker import Status

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

_CALL_SECONDS = 30
_PAGE = 200


def installation() -> Installation:
    """Find the installation and let Prefect's client find it too; call it before anything else.

    Raises:
        Unreachable: nothing runs here and the environment names nothing else.
    """
    found = adopt()
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    # Prefect's own profile of this account must not mix in, nor its remarks.
    os.environ.setdefault("PREFECT_HOME", os.path.join(found.data_dir, "prefect"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    return found


@contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """Open Prefect's client.

    Raises:
        Unreachable: nobody answers.
    """
    import httpx
    from prefect.client.orchestration import get_client

    with get_client(httpx_settings={"timeout": _CALL_SECONDS}, sync_client=True) as opened:
        try:
            yield opened
        except httpx.HTTPError as exc:
            raise unreachable(exc) from exc


def start_run(request: Request) -> UUID:
    """Make the flow run that carries *request*; asked twice, it is the same run.

    Raises:
        Unreachable: Prefect's API does not answer, or was not set up.
    """
    return _make_run(request, idempotency_key=str(request.id), at=request.scheduled_at)


def retry_run(request: Request, why: str, *, at: datetime | None = None) -> UUID:
    """Let a worker take the request's flow run again; a new one if it is gone.

    One whose request waits for approval is paused. *why* is what the run's state says in
    Prefect otherwise; *at* is when a new run begins, None for now.

    Raises:
        Unreachable: see :func:`start_run`.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry

    if request.flow_run_id is not None:
        waits = request.status is Status.APPROVAL_PENDING
        state: State[Any] = approval_state(request) if waits else AwaitingRetry(message=why)
        with client() as opened:
            try:
                opened.set_flow_run_state(request.flow_run_id, state, force=True)
            except ObjectNotFound:
                pass
            else:
                return request.flow_run_id
    # The first key would bring back the run that was deleted, so it is another one.
    key = f"{request.id}-{request.run_count}-{request.flow_run_id}"
    return _make_run(request, idempotency_key=key, at=at)


def cancel_run(request: Request) -> None:
    """Tell Prefect that the request is cancelled, or is to stop when it is running.

    A run that is over, or gone, is left alone.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled, Cancelling

    if request.flow_run_id is None:
        return
    with client() as opened:
        try:
            run = opened.read_flow_run(request.flow_run_id)
            if run.state is None or run.state.is_final():
                return
            begun = run.state.is_running() or request.status is Status.IN_PROGRESS
            asked = "cancelled with `certrail request cancel`"
            state: State[Any] = Cancelling(message=asked) if begun else Cancelled(message=asked)
            opened.set_flow_run_state(request.flow_run_id, state)
        except ObjectNotFound:
            return


def approve_run(request: Request) -> UUID:
    """Let the run of an approved request go on, at its time or now; a new one if it is gone."""
    with runs() as opened:
        return opened.move(request)


class Runs:
    """Flow runs of many requests, with one connection to Prefect."""

    def __init__(self, opened: SyncPrefectClient) -> None:
        self._client = opened
        self._deployments: dict[str, UUID] = {}

    def start(self, request: Request, *, key: str = "", at: datetime | None = None) -> UUID:
        """Make the run of *request*; with the same *key* (its id) it is the same run.

        One that waits for approval is made paused, so that it holds no place
        in a worker and can be resumed in Prefect's pages.
        """
        from prefect.states import Scheduled

        waits = request.status is Status.APPROVAL_PENDING
        # No worker may take it before it is paused: that would be an approval.
        begins = (request.approval_until if waits else None) or at or request.scheduled_at
        run = self._client.create_flow_run_from_deployment(
            self._deployment(f"{request.workflow}/request"),
            parameters={"request_id": str(request.id)},
            name=request.flow_run_name,
            idempotency_key=key or str(request.id),
            # Only the executor that reaches the target takes from this queue.
            work_queue_name=request.plan.executor,
            tags=[] if request.job_id is None else [jobs.by_id(request.job_id).tag],
            labels=labels(request),
            state=Scheduled(scheduled_time=moment(begins), message=request.reason.message),
        )
        if waits:
            self._client.set_flow_run_state(run.id, approval_state(request), force=True)
        return run.id

    def move(self, request: Request) -> UUID:
        """Let the run of *request* begin when the request says; what runs already is left alone."""
        from prefect.exceptions import ObjectNotFound
        from prefect.states import AwaitingRetry, Scheduled

        if request.flow_run_id is None:
            return self.start(request)
        at = moment(request.scheduled_at)
        try:
            state = self._client.read_flow_run(request.flow_run_id).state
            if state is not None and (state.is_pending() or state.is_running()):
                return request.flow_run_id
            again = state is not None and state.is_final()
            new: State[Any] = (
                AwaitingRetry(scheduled_time=at, message="tried again by the renewal policy")
                if again
                else Scheduled(scheduled_time=at, message=request.reason.message)
            )
            self._client.set_flow_run_state(request.flow_run_id, new, force=True)
        except ObjectNotFound:
            # The first key would bring back the run that was deleted.
            key = f"{request.id}-{request.run_count}-{request.flow_run_id}"
            return self.start(request, key=key)
        return request.flow_run_id

    def _deployment(self, name: str) -> UUID:
        from prefect.exceptions import ObjectNotFound

        if name not in self._deployments:
            try:
                self._deployments[name] = self._client.read_deployment_by_name(name).id
            except ObjectNotFound as exc:
                raise Unreachable(
                    f"Prefect's server has no deployment {name}",
                    remedy="`certrail up` makes it; `certrail doctor` says what else is missing.",
                ) from exc
        return self._deployments[name]


@contextmanager
def runs() -> Iterator[Runs]:
    """Open Prefect's client for the runs of several requests.

    Raises:
        Unreachable: nobody answers.
    """
    with client() as opened:
        yield Runs(opened)


def approval_state(request: Request) -> State[Any]:
    """Return the state of a run that waits for approval: paused, with what is waited for."""
    from prefect.states import Paused

    left = 0.0
    if request.approval_until is not None:
        left = (request.approval_until - datetime.now(UTC)).total_seconds()
    return Paused(
        name="ApprovalPending",
        # A little longer than ours, so that our own record says first that it expired.
        timeout_seconds=int(max(left, 0)) + 600,
        reschedule=True,
        message=approvals.told(request),
    )


def _make_run(request: Request, *, idempotency_key: str, at: datetime | None) -> UUID:
    with runs() as opened:
        return opened.start(request, key=idempotency_key, at=at)


def labels(request: Request) -> dict[str, Any]:
    """Return what the request's flow run is labelled with."""
    return {
        "certrail.endpoint": request.location,
        "certrail.profile": request.plan.profile,
        "certrail.request": str(request.id),
    }


def moment(when: datetime | None) -> Any:
    """Return a time, now if None, as Prefect's models want it."""
    from prefect.types._datetime import create_datetime_instance, now

    return create_datetime_instance(when) if when else now("UTC")


def unreachable(exc: Exception) -> Unreachable:
    """Return the error for a failed call, for people."""
    said = str(exc) or type(exc).__name__
    return Unreachable(
        f"Prefect's API at {os.environ.get('PREFECT_API_URL', '?')} does not answer: {said}",
        remedy="Start it with `certrail up`, or correct PREFECT_API_URL.",
    )
