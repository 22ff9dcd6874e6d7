"""Housekeeping goes on after the clock of the Prefect server was wrong.

Prefect's scheduler makes runs an hour ahead. Those that a clock took for late are all begun
at once when it is set back, and those of the future that it has left count as enough: for
as long nothing would be repaired, renewed or told. So the worker of ``certrail up`` looks
every minute whether each deployment has a run that comes soon, and else makes one.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule

from tasks.upkeep import HOUSEKEEPING

_LOOK_SECONDS = 60.0
_log = logging.getLogger("certrail")


async def keep_scheduled() -> None:
    """Look every minute, until it is cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            async with get_client() as client:
                await fill(client)
        except httpx.HTTPError as exc:
            _log.debug("schedules: %s", exc)  # the server is away; a minute later it may not be


async def fill(client: PrefectClient) -> list[str]:
    """Make a run of those deployments that lack a next one; returns their entrypoints."""
    filled = []
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[HOUSEKEEPING]))
    for deployment in await client.read_deployments(deployment_filter=tagged, limit=200):
        if not deployment.paused and await _has_a_gap(client, deployment):
            key = f"{deployment.id} {datetime.now(UTC):%Y-%m-%d %H:%M}"
            await client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
            _log.warning("%s had no next run; one begins now", deployment.entrypoint)
            filled.append(str(deployment.entrypoint))
    return filled


async def _has_a_gap(client: PrefectClient, deployment: DeploymentResponse) -> bool:
    every = [
        one.schedule.interval
        for one in deployment.schedules
        if one.active and isinstance(one.schedule, IntervalSchedule)
    ]
    if not every:
        return False
    soon = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(
                before_=datetime.now(UTC) + 2 * min(every)
            ),
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        limit=1,
    )
    return not soon
