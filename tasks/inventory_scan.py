"""What the endpoints of the inventory serve now."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType

from certrail.cli._server import POOLS
from certrail.settings import silent_after
from certrail.steps import looking
from certrail.store import executors, observed
from certrail.words import counted
from tasks._threads import in_thread

_MOST = 5000
# Shorter than what reconciliation takes for the life of housekeeping.
_WITHIN = timedelta(minutes=5)
_OPEN = [kind for kind in StateType if kind not in TERMINAL_STATES]


@task(
    name="Look at the endpoints",
    task_run_name="Look at the endpoints",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def look_at_endpoints(executor: str | None = None) -> str:
    """Look at what is served, and tell of certificates that somebody else put there.

    Args:
        executor: the agent or sensor that this is, for the endpoints which it alone reaches.

    Returns what was found, in a sentence.
    """
    found = await in_thread(
        looking.look_around, most=_MOST, within=_WITHIN, clock=time, executor=executor
    )
    log = get_run_logger()
    for location in found.drifted[:50]:
        log.warning("%s serves another certificate than the one installed", location)
    told = f"{counted(found.answered, 'endpoint')} answered, {found.silent} did not"
    if found.left:
        told += f", {found.left} are left for the next round"
    return f"{told}; {len(found.drifted)} began to serve another certificate than ours"


@task(
    name="Ask agents and sensors",
    task_run_name="Ask agents and sensors",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def ask_executors() -> str:
    """Let each agent and sensor look at the endpoints that it alone reaches.

    One that does not live is not asked, and one that has not answered yet not again.

    Returns who was asked, as the rest of a sentence; "" where nobody has to be.
    """
    names = await in_thread(observed.behind)
    if not names:
        return ""
    served = await in_thread(executors.serving, silent_after())
    asked, away = [], []
    async with get_client() as client:
        for name in names:
            pool = next((one for one in POOLS if (one, name) in served), None)
            if pool is None:
                away.append(name)
                continue
            await _ask(client, pool, name)
            asked.append(name)
    told = f"; asked {', '.join(asked)}" if asked else ""
    return f"{told}; away: {', '.join(away)}" if away else told


async def _ask(client: PrefectClient, pool: str, name: str) -> None:
    deployment = await client.read_deployment_by_name(f"executor-scan/{pool}")
    run = f"executor-scan {name}"
    if await _is_asked(client, deployment.id, run):
        return
    await client.create_flow_run_from_deployment(
        deployment.id,
        name=run,
        parameters={"executor": name},
        # Only the executor takes from this queue.
        work_queue_name=name,
    )


async def _is_asked(client: PrefectClient, deployment: UUID, run: str) -> bool:
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            name=FlowRunFilterName(any_=[run]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)),
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        limit=1,
    )
    return bool(found)
