"""Set a Prefect server up: pools, limits, block types, deployments.

``python -m deployments.bootstrap``. It may run at any time: what exists and is
as described stays untouched, and what people changed in the UI (limits, paused
schedules) stays as they want it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import yaml
from prefect import __version__ as prefect_version
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
)
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyOptions, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from pydantic.fields import FieldInfo

from certrail.cli._server import POOL_TYPE, POOLS
from certrail.errors import CertrailError, InvalidRequest
from deployments import automations
from deployments.automations import Watched
from deployments.in_process import InProcessWorker

# Slots that all workers share; the flows take them by these names.
LIMITS: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Described:
    """One deployment as ``prefect.yaml`` describes it.

    Attributes:
        name: its name beside the flow's.
        entrypoint: the flow as ``package.module.attribute``.
        pool: work pool.
        raw: the whole entry.
    """

    name: str
    entrypoint: str
    pool: str
    raw: dict[str, Any] = field(repr=False)

    def load(self) -> Flow[..., Any]:
        """Import the flow plainly, so that a broken import is an error here and now."""
        module, _, attribute = self.entrypoint.rpartition(".")
        flow = getattr(importlib.import_module(module), attribute)
        if not isinstance(flow, Flow):
            raise InvalidRequest(f"{self.entrypoint} in prefect.yaml is not a flow")
        return flow


def described() -> tuple[Described, ...]:
    """Read ``prefect.yaml``, from the checkout or as it lies in the wheel.

    Raises:
        InvalidRequest: it is not there, or an entry lacks a needed field.
    """
    here = Path(__file__).resolve().parent
    for path in (here.parent / "prefect.yaml", here / "prefect.yaml"):
        if path.exists():
            break
    else:
        raise InvalidRequest(
            f"prefect.yaml is not beside {here}", remedy="Install the package again."
        )
    content = yaml.safe_load(path.read_text())
    try:
        return tuple(
            Described(
                name=entry["name"],
                entrypoint=entry["entrypoint"],
                pool=entry["work_pool"]["name"],
                raw=entry,
            )
            for entry in content["deployments"]
        )
    except (KeyError, TypeError) as exc:
        raise InvalidRequest(f"{path}: a deployment lacks {exc}") from exc


async def bootstrap() -> None:
    """Bring the server that Prefect's settings name to what this version needs."""
    await make_pools()
    async with get_client() as client:
        await asyncio.gather(*(_limit(client, name, slots) for name, slots in LIMITS.items()))
        present = {(d.name, d.entrypoint): d for d in await _deployed(client)}
        await asyncio.gather(
            *(
                _deploy(client, entry, present.get((entry.name, entry.entrypoint)))
                for entry in described()
            )
        )
        await automations.make(client, _watched(), await _deployed(client))
        await _block_types(client)


async def make_pools() -> None:
    """Make the work pools that do not exist yet."""
    async with get_client() as client:
        await asyncio.gather(*(_pool(client, name) for name in POOLS))


def _watched() -> list[Watched]:
    """Return the flows that run by an interval of minutes or hours."""
    found = []
    for entry in described():
        for schedule in entry.raw.get("schedules") or []:
            if "interval" in schedule and schedule.get("active", True):
                every = timedelta(seconds=schedule["interval"])
                found.append(Watched(entry.load().name, every))
    return found


async def drop_missed() -> None:
    """Delete all but the latest of the scheduled runs that nobody was there to begin.

    After an hour without a worker, sixty runs of a deployment that runs every
    minute would begin at once. Runs that people asked for are left alone.
    """
    async with get_client() as client:
        missed = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
        latest: set[UUID | None] = set()
        for run in missed:
            if run.auto_scheduled and run.deployment_id in latest:
                await client.delete_flow_run(run.id)
            elif run.auto_scheduled:
                latest.add(run.deployment_id)


async def _deployed(client: PrefectClient) -> list[DeploymentResponse]:
    # By name: beside ours there may be hundreds, one for each saved report among them.
    names = DeploymentFilterName(any_=sorted({entry.name for entry in described()}))
    return await client.read_deployments(deployment_filter=DeploymentFilter(name=names), limit=200)


async def _pool(client: PrefectClient, name: str) -> None:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        try:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type=POOL_TYPE,
                    base_job_template=InProcessWorker.get_default_base_job_template(),
                )
            )
        except ObjectAlreadyExists:
            return  # another worker was faster


async def _limit(client: PrefectClient, name: str, slots: int) -> None:
    try:
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=slots)
        )
    except ObjectAlreadyExists:
        return


async def _deploy(
    client: PrefectClient, entry: Described, present: DeploymentResponse | None
) -> UUID:
    flow = entry.load()
    schema = form_schema(flow)
    version = _fingerprint(entry, schema)
    if present is not None and present.version == version:
        return present.id
    flow_id = await client.create_flow_from_name(flow.name)
    return await client.create_deployment(
        flow_id=flow_id,
        name=entry.name,
        version=version,
        entrypoint=entry.entrypoint,
        work_pool_name=entry.pool,
        work_queue_name=entry.raw["work_pool"].get("work_queue_name"),
        description=entry.raw.get("description") or flow.description,
        parameters=entry.raw.get("parameters") or {},
        tags=entry.raw.get("tags") or [],
        schedules=[_schedule(raw) for raw in entry.raw.get("schedules") or []],
        concurrency_limit=_most_at_once(entry.raw.get("concurrency_limit")),
        concurrency_options=_collision(entry.raw.get("concurrency_limit")),
        parameter_openapi_schema=schema,
        # The parameters of other runs are checked once, by whoever starts them.
        enforce_parameter_schema=entry.raw.get("enforce_parameter_schema", False),
        path=None,
        pull_steps=[],
    )


def _most_at_once(raw: int | dict[str, Any] | None) -> int | None:
    """Return the limit, written as a number or with what happens beyond it."""
    return raw.get("limit") if isinstance(raw, dict) else raw


def _collision(raw: int | dict[str, Any] | None) -> ConcurrencyOptions | None:
    if not isinstance(raw, dict) or "collision_strategy" not in raw:
        return None
    return ConcurrencyOptions.model_validate({"collision_strategy": raw["collision_strategy"]})


def form_schema(flow: Flow[..., Any]) -> dict[str, Any]:
    """Return the schema of a flow's parameters, which Prefect's pages make a form of.

    Prefect takes texts from docstrings only; title and description of an
    annotated parameter are put in here. Nothing but the parameters may be given.
    """
    schema: dict[str, Any] = parameter_schema(flow).model_dump_for_openapi()
    hints = get_type_hints(flow.fn, include_extras=True)
    for name, described_ in schema["properties"].items():
        # "or null" makes two fields of one; leaving it empty says the same.
        kinds = [kind for kind in described_.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del described_["anyOf"]
            described_ |= kinds[0]
            described_.pop("default", None)
        for note in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(note, FieldInfo):
                described_ |= {
                    key: text
                    for key, text in (("title", note.title), ("description", note.description))
                    if text
                }
    schema["additionalProperties"] = False
    return schema


def _schedule(raw: dict[str, Any]) -> DeploymentScheduleCreate:
    timing: CronSchedule | IntervalSchedule | RRuleSchedule
    if "cron" in raw:
        timing = CronSchedule(cron=raw["cron"], timezone=raw.get("timezone"))
    elif "rrule" in raw:
        timing = RRuleSchedule(rrule=raw["rrule"], timezone=raw.get("timezone"))
    elif "interval" in raw:
        # Without an anchor Prefect takes now, and deployed again is another schedule.
        timing = IntervalSchedule.model_validate(
            {key: raw[key] for key in ("interval", "anchor_date", "timezone") if key in raw}
        )
    else:
        raise InvalidRequest(f"prefect.yaml: a schedule is neither cron, interval nor rrule: {raw}")
    return DeploymentScheduleCreate(
        schedule=timing,
        active=raw.get("active", True),
        parameters=raw.get("parameters") or {},
        slug=raw.get("slug"),
    )


async def _block_types(client: PrefectClient) -> None:
    # Importing is registering for this process; the server needs telling too.
    import blocks  # noqa: F401
    from blocks._base import ConnectorBlock

    known = {
        (schema.checksum, schema.block_type.slug)
        for schema in await client.read_block_schemas()
        if schema.block_type is not None
    }
    for block in sorted(ConnectorBlock.vendors(), key=lambda b: b.get_block_type_slug()):
        if (block._calculate_schema_checksum(), block.get_block_type_slug()) not in known:
            await block.register_type_and_schema(client=client)


def _fingerprint(entry: Described, schema: dict[str, Any]) -> str:
    """Return a version that changes when the description or the flow's parameters do."""
    text = json.dumps([entry.raw, schema, prefect_version], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main() -> int:
    """Run once. Returns the exit code."""
    try:
        asyncio.run(bootstrap())
    except CertrailError as exc:
        sys.stderr.write(f"{exc}\n{exc.remedy}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
