"""What Prefect shows of a request that is retried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.testing.utilities import prefect_test_harness

from certrail.cli import _prefect, _starting
from certrail.jobs.status import JobStatus
from certrail.store import job_control, job_ends, requests
from certrail.store.requests import Request
from certrail.tracker import Status
from flows.web_server_request import request_web_server_certificate
from tests.integration.store.conftest import Inventory, job_of, of

LOCATION = "www.test:443"


@pytest.fixture(scope="module")
def prefect() -> Iterator[SyncPrefectClient]:
    """Prefect's API with the deployment that carries requests."""
    with (
        prefect_test_harness(server_startup_timeout=120),
        get_client(sync_client=True) as client,
    ):
        flow = client.create_flow(request_web_server_certificate)
        client.create_deployment(flow, "request", tags=["automation"])
        yield client


@pytest.fixture(autouse=True)
def inventory(database_url: str) -> Inventory:
    """An endpoint whose certificates anybody may approve."""
    there = Inventory()
    for name, slug in (("ca", "ca-acme"), ("ns", "dns-rfc2136"), ("web", "host-ssh")):
        there.connector(name, slug)
    there.profile("p", validation={"method": "dns-01", "dns": "ns"}, approval={"by": "anyone"})
    there.endpoint(LOCATION, profile="p", target="web")
    return there


def run_of(client: SyncPrefectClient, request: Request) -> FlowRun:
    run_id = requests.get(request.id).flow_run_id
    assert run_id is not None
    return client.read_flow_run(run_id)


def kind(run: FlowRun) -> str:
    assert run.state is not None
    return run.state.type.value


def test_a_retry_waits_for_approval_in_prefect_too(prefect: SyncPrefectClient) -> None:
    """Its run is paused, so that nothing of it begins before somebody has agreed."""
    request = _starting.order(LOCATION, actor="ann@ops")
    requests.bind_run(request.id, _prefect.start_run(request))
    _starting.cancel(LOCATION)
    assert kind(run_of(prefect, request)) == "CANCELLED"

    assert _starting.retry(LOCATION).status is Status.APPROVAL_PENDING
    assert kind(run_of(prefect, request)) == "PAUSED"

    _starting.approve(LOCATION, "")
    assert kind(run_of(prefect, request)) == "SCHEDULED"


def test_a_member_that_is_retried_alone_is_found_by_its_job(prefect: SyncPrefectClient) -> None:
    """It never began in the job, so that its run in Prefect is made afterwards."""
    job = job_of("www.test")
    job_control.ask_to_cancel(job, "ann@ops")
    job_ends.finish(job.id, JobStatus.CANCELLED, "cancelled", actor="test")
    assert of(job, "www.test").flow_run_id is None

    request = _starting.retry(LOCATION)

    run = run_of(prefect, request)
    assert set(run.tags) == {"automation", "job:spring"}
    assert kind(run) == "PAUSED"
