"""A part of a bulk job that one worker takes: its endpoints' requests, all in one process."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import State, flow
from prefect.flows import Flow

from certrail.model import Workflow
from flows.appliance_request import request_appliance_certificate
from flows.delivery_request import request_certificate_delivery
from flows.web_server_request import request_web_server_certificate
from tasks.bulk_shard import run_shard

_FLOWS: dict[Workflow, Flow[..., Any]] = {
    Workflow.WEB_SERVER: request_web_server_certificate,
    Workflow.APPLIANCE: request_appliance_certificate,
    Workflow.DELIVERY: request_certificate_delivery,
}


@flow(name="bulk-shard", validate_parameters=False, persist_result=False)
async def bulk_shard(job_id: str, number: int, places: int | None = None) -> State[Any]:
    """Run what is left of the shard.

    Args:
        job_id: the job.
        number: of the shard.
        places: of no effect; runs that an earlier version made have it.
    """
    return await run_shard(UUID(job_id), number, _FLOWS)
