"""Prefect's server without the rows that it reads and does not use.

To create a run of a deployment and to end it the server loads the deployment
twice, each time with its schedules, its queue and the queue's pool, to learn
whether it has a concurrency limit; and for the first event of each run it looks
up the names of flow, deployment, queue, pool and parent, which are the same
for all members of a bulk job. What is answered and written is the same as before.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server import schemas
from prefect.server.api.workers import WorkerLookups
from prefect.server.database import provide_database_interface
from prefect.server.models import deployments, events, flow_runs
from prefect.server.orchestration import core_policy
from prefect.settings import PREFECT_API_EVENTS_RELATED_RESOURCE_CACHE_TTL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import lazyload
from sqlalchemy.orm.util import identity_key

from certrail.cli import _server_polls, _timezones

_labels: Any = flow_runs.with_system_labels_for_flow_run
_read_flow_run: Any = flow_runs.read_flow_run
_related: Any = events._flow_run_related_resources_from_orm
_queue_id = WorkerLookups._get_work_queue_id_from_name
# As long as Prefect itself keeps these names for each run.
_KEPT_SECONDS = PREFECT_API_EVENTS_RELATED_RESOURCE_CACHE_TTL.value().total_seconds()
_MOST = 1000
_alike: dict[tuple[UUID | None, ...], tuple[float, events.ResourceData]] = {}


def install() -> None:
    """Make the server of this process use these; its modules look them up where they are put."""
    _timezones.remember()
    _server_polls.install()
    flow_runs.with_system_labels_for_flow_run = labels
    flow_runs.read_flow_run = read_flow_run
    events._flow_run_related_resources_from_orm = related_resources
    vars(core_policy)["deployments"] = SimpleNamespace(read_deployment=read_deployment)
    WorkerLookups._get_work_queue_id_from_name = work_queue_id  # type: ignore[method-assign]


async def read_deployment(session: AsyncSession, deployment_id: UUID) -> Any:
    """Return a deployment with its own columns and its limit, None if there is none."""
    model = provide_database_interface().Deployment
    unused = (lazyload(model.schedules), lazyload(model.work_queue))
    found: Any = await session.get(model, deployment_id, options=unused)
    return found


async def read_flow_run(session: AsyncSession, flow_run_id: UUID, for_update: bool = False) -> Any:
    """Return a flow run; one that is locked for its next state comes without its queue."""
    model = provide_database_interface().FlowRun
    known = session.sync_session.identity_map.get(identity_key(model, flow_run_id))
    # Who made it in this session answers with its queue too.
    if not for_update or (known is not None and "work_queue" not in known.__dict__):
        return await _read_flow_run(session, flow_run_id, for_update=for_update)
    query = (
        sa.select(model)
        .where(model.id == flow_run_id)
        .options(lazyload(model.work_queue))
        .with_for_update()
    )
    return (await session.execute(query)).scalar()


async def labels(session: AsyncSession, flow_run: Any) -> Any:
    """Return the labels of a new run, the deployment's among them."""
    if isinstance(flow_run, schemas.core.FlowRun) and flow_run.deployment_id:
        found = await read_deployment(session, flow_run.deployment_id)
        if found is not None:
            return await deployments.with_system_labels_for_deployment_flow_run(
                session=session, deployment=found, user_supplied_labels=flow_run.labels or {}
            )
    return await _labels(session=session, flow_run=flow_run)


async def related_resources(session: AsyncSession, flow_run: Any) -> events.RelatedResourceList:
    """Return what a run's events name beside it, looked up once for all runs of the same kind."""
    kind = (
        flow_run.flow_id,
        flow_run.deployment_id,
        flow_run.work_queue_id,
        flow_run.parent_task_run_id,
    )
    of_run = events._flow_run_resource_data_cache
    until, known = _alike.get(kind, (0.0, None))
    if known is not None and time.monotonic() < until and flow_run.id not in of_run:
        itself = {"id": str(flow_run.id), "name": flow_run.name, "tags": flow_run.tags or []}
        of_run[flow_run.id] = known | {"flow-run": itself | {"role": "flow-run"}}
    found: events.RelatedResourceList = await _related(session=session, flow_run=flow_run)
    if time.monotonic() >= until and (data := of_run.get(flow_run.id)):
        if len(_alike) >= _MOST:
            _alike.clear()
        _alike[kind] = time.monotonic() + _KEPT_SECONDS, data
    return found


async def work_queue_id(
    self: WorkerLookups,
    session: AsyncSession,
    work_pool_name: str,
    work_queue_name: str,
    create_queue_if_not_found: bool = False,
) -> UUID:
    """Return the id of a queue without the queue and its pool."""
    db = provide_database_interface()
    query = (
        sa.select(db.WorkQueue.id)
        .join(db.WorkPool, db.WorkPool.id == db.WorkQueue.work_pool_id)
        .where(db.WorkPool.name == work_pool_name, db.WorkQueue.name == work_queue_name)
    )
    found: UUID | None = (await session.execute(query)).scalar()
    if found is not None:
        return found
    return await _queue_id(
        self, session, work_pool_name, work_queue_name, create_queue_if_not_found
    )
