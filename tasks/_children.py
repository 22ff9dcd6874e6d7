"""Flow runs of a bulk job's endpoints: made many at a call, run in this process.

They belong to the deployment of their workflow, so that Prefect's Retry button
and a repair can have any worker run one of them alone, and they hang from a
task run of the job's own flow run, so that its page lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending

from certrail.cli import _prefect
from certrail.errors import Unreachable
from certrail.model import Workflow
from certrail.store.job_ends import Ended
from certrail.store.requests import Request
from certrail.tracker import SUCCESSFUL, Status

_UNFINISHED = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]
_PAGE = 200


class Children:
    """Makes and brings back the runs of one job's endpoints."""

    def __init__(self, client: PrefectClient, tag: str, job_run_id: UUID | None) -> None:
        self._client = client
        self._tag = tag
        self._job_run_id = job_run_id
        self._deployments: dict[Workflow, tuple[UUID, UUID]] = {}

    async def make(self, requests: Sequence[Request], name: str) -> dict[UUID, FlowRun]:
        """Make the runs of *requests*, by one call; asked twice, they are the same runs.

        They hang from a task run *name* of their own: Prefect writes each state of
        a child into its parent task run too, so that hundreds of children of one
        would wait for each other at its row.

        Returns the runs by the request's id.

        Raises:
            Unreachable: the server has no deployment for them, or refused one.
        """
        made: dict[UUID, FlowRun] = {}
        parent = await tracking(self._client, self._job_run_id, name) if self._job_run_id else None
        for workflow in {request.workflow for request in requests}:
            deployment_id, flow_id = await self._deployment(workflow)
            of_it = [request for request in requests if request.workflow is workflow]
            reply = await self._client._client.post(
                f"/deployments/{deployment_id}/create_flow_run/bulk",
                json=[self._body(request, parent) for request in of_it],
            )
            reply.raise_for_status()
            for request, result in zip(of_it, reply.json()["results"], strict=True):
                if result["status"] != "CREATED":
                    raise Unreachable(f"Prefect made no run for {request.location}: {result}")
                made[request.id] = self._run(
                    request, UUID(result["flow_run_id"]), deployment_id, flow_id
                )
        return made

    async def again(self, request: Request) -> FlowRun:
        """Bring the run that the request had back to where it can begin; a new one if it is gone.

        Raises:
            Unreachable: see :meth:`make`.
        """
        assert request.flow_run_id is not None
        deployment_id, flow_id = await self._deployment(request.workflow)
        if request.run_count:
            await end_steps(self._client, request.flow_run_id)
        try:
            await self._client.set_flow_run_state(
                request.flow_run_id,
                Pending(message="the job goes on with it"),
                force=True,
            )
        except ObjectNotFound:
            return (await self.make([request], f"again: {request.location}"))[request.id]
        return self._run(request, request.flow_run_id, deployment_id, flow_id)

    def _body(self, request: Request, parent: UUID | None) -> dict[str, Any]:
        return {
            "name": request.flow_run_name,
            "parameters": {"request_id": str(request.id)},
            "state": {"type": "PENDING", "message": "its place in the job comes"},
            "tags": [self._tag],
            "idempotency_key": str(request.id),
            "parent_task_run_id": str(parent) if parent else None,
            # Should a worker have to run it alone, it is to be one that reaches the target.
            "work_queue_name": request.plan.executor,
            "labels": _prefect.labels(request),
        }

    def _run(self, request: Request, run_id: UUID, deployment_id: UUID, flow_id: UUID) -> FlowRun:
        return FlowRun(
            id=run_id,
            flow_id=flow_id,
            deployment_id=deployment_id,
            name=request.flow_run_name,
            parameters={"request_id": str(request.id)},
            tags=[self._tag],
            run_count=request.run_count,
            state=Pending(),
        )

    async def cancelled(self, run_ids: Sequence[UUID]) -> list[FlowRun]:
        """Return those of the runs that somebody cancels or has cancelled in Prefect."""
        return await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(run_ids)),
                state=FlowRunFilterState(
                    type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
                ),
            )
        )

    async def end_cancelled(self, run_id: UUID) -> None:
        """End a run that was cancelled before it began."""
        state: State[Any] = Cancelled(message="Cancelled before its first step.")
        await self._client.set_flow_run_state(run_id, state, force=True)

    async def _deployment(self, workflow: Workflow) -> tuple[UUID, UUID]:
        if workflow not in self._deployments:
            name = f"{workflow}/request"
            try:
                found = await self._client.read_deployment_by_name(name)
            except ObjectNotFound as exc:
                raise Unreachable(
                    f"Prefect's server has no deployment {name}", remedy="`certrail up` makes it."
                ) from exc
            self._deployments[workflow] = (found.id, found.flow_id)
        return self._deployments[workflow]


async def end_steps(client: PrefectClient, flow_run_id: UUID) -> None:
    """End the task runs that a killed worker left running; nobody else would."""
    left = await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(
                type=TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
            )
        ),
    )
    for task_run in left:
        state: State[Any] = Crashed(message="the worker that ran this died; another one went on")
        await client.set_task_run_state(task_run.id, state, force=True)


async def tracking(client: PrefectClient, job_run_id: UUID, name: str) -> UUID:
    """Make a task run of the job's own run that child runs hang from."""
    reply = await client._client.post(
        "/task_runs/",
        json={
            "name": name,
            "flow_run_id": str(job_run_id),
            "task_key": "bulk-shard",
            "dynamic_key": uuid4().hex,
            "state": {"type": "PENDING"},
        },
    )
    reply.raise_for_status()
    return UUID(reply.json()["id"])


async def unfinished(client: PrefectClient, job_run_id: UUID) -> list[FlowRun]:
    """Return the child runs of a job's flow run that Prefect shows as not over."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[job_run_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
            ),
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


async def settle(client: PrefectClient, ended: Sequence[Ended]) -> None:
    """Tell Prefect how requests ended whose runs could not tell it themselves."""
    for one in ended:
        await client.set_flow_run_state(one.flow_run_id, _state(one), force=True)


def _state(ended: Ended) -> State[Any]:
    message = f"{ended.location}: {ended.status.text.lower()}"
    if ended.status in SUCCESSFUL:
        return Completed(message=message)
    if ended.status is Status.CANCELLED:
        return Cancelled(message=message)
    return Failed(message=message)
