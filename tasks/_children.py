"""Flow runs of a bulk job's endpoints: made as they begin, run in this process.

They belong to the deployment of their workflow, so that Prefect's Retry button
and a repair can have any worker run one of them alone, and they hang from a
task run of the job's own flow run, so that its page lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
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
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running

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
    """Begins and brings back the runs of one shard's endpoints.

    Args:
        name: of the shard, for people.
        tag: of the job's runs.
        job_run_id: the job's own run.
    """

    def __init__(self, client: PrefectClient, name: str, tag: str, job_run_id: UUID | None) -> None:
        self._client = client
        self._name = name
        self._tag = tag
        self._job_run_id = job_run_id
        self._deployments: dict[Workflow, DeploymentResponse] = {}
        self._asking = asyncio.Lock()
        self._free: list[UUID] = []
        self._taken: dict[UUID, UUID] = {}
        self._made = 0

    async def begin(self, request: Request) -> FlowRun:
        """Make the run of a request, as one that runs already; asked twice, it is the same run.

        One call: of all ways to make a run and begin it, the one that costs the server least.

        Raises:
            Unreachable: the server has no deployment for it.
        """
        deployment = await self._deployment(request.workflow)
        parent = await self._parent()
        is_used = False
        try:
            response = await self._client._client.post(
                "/flow_runs/", json=self._body(request, deployment, parent)
            )
            response.raise_for_status()
            run_id = UUID(response.json()["id"])
            is_used = response.status_code == httpx.codes.CREATED
        finally:
            if parent is not None and not is_used:
                self._free.append(parent)
        run = self._run(request, run_id, deployment, Running())
        if not is_used:
            # A worker made it and died before it noted so.
            return await self._pending(run)
        if parent is not None:
            self._taken[run_id] = parent
        run.run_count = 1
        run.start_time = cast(Any, run.state.timestamp if run.state else None)
        return run

    async def again(self, request: Request) -> FlowRun:
        """Bring the run that the request had back to where it can begin; a new one if it is gone.

        Raises:
            Unreachable: see :meth:`make`.
        """
        assert request.flow_run_id is not None
        deployment = await self._deployment(request.workflow)
        if request.run_count:
            await end_steps(self._client, request.flow_run_id)
        try:
            return await self._pending(
                self._run(request, request.flow_run_id, deployment, Pending())
            )
        except ObjectNotFound:
            return await self.begin(request)

    async def _pending(self, run: FlowRun) -> FlowRun:
        run.state = Pending(message="the job goes on with it")
        await self._client.set_flow_run_state(run.id, run.state, force=True)
        return run

    def over(self, run_id: UUID) -> None:
        """Let the next run hang from where this one did, which has had its last state."""
        if (parent := self._taken.pop(run_id, None)) is not None:
            self._free.append(parent)

    async def _parent(self) -> UUID | None:
        """Return a task run of the job's own run for a child to hang from, one for each place.

        Prefect writes each state of a child into its parent task run too, and holds
        that row until the state and its event are stored: children that run at the
        same time under one parent would wait for each other at every state.
        """
        if self._job_run_id is None:
            return None
        if self._free:
            return self._free.pop()
        self._made += 1
        return await tracking(self._client, self._job_run_id, f"{self._name}, place {self._made}")

    def _body(
        self, request: Request, deployment: DeploymentResponse, parent: UUID | None
    ) -> dict[str, Any]:
        return {
            "flow_id": str(deployment.flow_id),
            # Prefect's own route for a run of a deployment makes it scheduled or pending,
            # and holds its variables against the pool's schema each time.
            "deployment_id": str(deployment.id),
            "name": request.flow_run_name,
            "parameters": {"request_id": str(request.id)},
            "state": {"type": "RUNNING"},
            "tags": [self._tag],
            "idempotency_key": str(request.id),
            "parent_task_run_id": str(parent) if parent else None,
            # Should a worker have to run it alone, it is to be one that reaches the target.
            "work_pool_name": deployment.work_pool_name,
            "work_queue_name": request.plan.executor or deployment.work_queue_name,
            "labels": _prefect.labels(request),
        }

    def _run(
        self, request: Request, run_id: UUID, deployment: DeploymentResponse, state: State[Any]
    ) -> FlowRun:
        return FlowRun(
            id=run_id,
            flow_id=deployment.flow_id,
            deployment_id=deployment.id,
            name=request.flow_run_name,
            parameters={"request_id": str(request.id)},
            tags=[self._tag],
            run_count=request.run_count,
            state=state,
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

    async def _deployment(self, workflow: Workflow) -> DeploymentResponse:
        # All places of a shard ask at its beginning; one answer is enough.
        async with self._asking:
            if workflow not in self._deployments:
                name = f"{workflow}/request"
                try:
                    found = await self._client.read_deployment_by_name(name)
                except ObjectNotFound as exc:
                    raise Unreachable(
                        f"Prefect's server has no deployment {name}",
                        remedy="`certrail up` makes it.",
                    ) from exc
                self._deployments[workflow] = found
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
