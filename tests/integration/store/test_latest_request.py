"""The request that an endpoint shows: the active one, whatever else was made or tried."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select, text

from certrail.jobs.status import JobStatus
from certrail.store import (
    endpoint_activity,
    job_control,
    job_ends,
    migrations,
    request_ends,
    request_runs,
)
from certrail.store import inventory as rows
from certrail.store import requests as store
from certrail.store.database import transaction
from certrail.store.requests import Request
from certrail.store.schema import requests as table
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, job_of, of

HOUR = timedelta(hours=1)


@pytest.fixture
def inventory(inventory: Inventory) -> Inventory:
    """With the endpoints a.test and b.test."""
    for name in ("a", "b"):
        inventory.endpoint(f"{name}.test:443", profile="p", target="web")
    return inventory


def fail(request: Request) -> Request:
    request_runs.take(request.id, "w", HOUR)
    request_ends.finish(request.id, "w", Status.AUTOMATION_FAILED)
    return request


def begin(request: Request) -> Request:
    request_runs.take(request.id, "w", HOUR)
    return request


def shown(name: str) -> rows.Endpoint:
    (row,) = rows.find(rows.parse_filter(f"location={name}.test:443"))
    return row


def latest() -> dict[str, int]:
    """Count the requests that are the latest of their endpoint, by location."""
    with transaction() as connection:
        counted = connection.execute(
            text(
                "select e.location, count(*) filter (where r.is_latest) as latest from requests r"
                " join endpoints e on e.id = r.endpoint_id group by 1"
            )
        )
        return {row.location: row.latest for row in counted}


def test_one_that_a_job_leaves_out_keeps_its_request(inventory: Inventory) -> None:
    """Somebody was faster by a moment: what runs is shown, with its run and its status."""
    running = begin(inventory.request("a.test:443"))

    job = job_of("a.test", "b.test")

    row = shown("a")
    assert row.request_id == running.id
    assert row.automation_status is Status.IN_PROGRESS
    assert row.job_name is None
    assert shown("b").request_id == of(job, "b.test").id
    assert latest() == {"a.test:443": 1, "b.test:443": 1}


def test_an_older_request_that_runs_again_is_the_one_shown(inventory: Inventory) -> None:
    """By lists, by its location, and to a job: it does not take the endpoint a second time."""
    older = fail(inventory.request("a.test:443"))
    newer = begin(inventory.request("a.test:443"))
    request_ends.finish(newer.id, "w", Status.AUTOMATION_SUCCESSFUL)
    assert shown("a").request_id == newer.id

    request_ends.reopen(older.id, older.plan, "ann@host")

    assert shown("a").request_id == older.id
    assert shown("a").automation_status is Status.AUTOMATION_REQUESTED
    assert store.find("a.test:443").id == older.id
    activity = endpoint_activity.latest([older.endpoint_id])[older.endpoint_id]
    assert activity.is_active
    job_of("a.test", "b.test")
    assert shown("a").request_id == older.id
    fail(older)
    assert shown("a").automation_status is Status.AUTOMATION_FAILED
    after = inventory.request("a.test:443")
    assert shown("a").request_id == after.id
    assert latest() == {"a.test:443": 1, "b.test:443": 1}


def test_a_job_that_is_retried_is_shown_at_its_endpoints(inventory: Inventory) -> None:
    """Also where a request of somebody else came later and is over."""
    job = job_of("a.test", "b.test")
    ours = [fail(of(job, name)) for name in ("a.test", "b.test")]
    request_ends.ask_to_cancel(inventory.request("a.test:443").id, "ann@host")
    job_ends.finish(job.id, JobStatus.FAILED, "2 failed", actor="test")

    assert job_control.reopen(job, {one.id: one.plan for one in ours}, "ann@host") == 2

    assert {shown(name).job_name for name in ("a", "b")} == {"spring"}


def test_an_upgrade_mends_what_was_lost(inventory: Inventory) -> None:
    """An active request that nothing shows, and an endpoint without any that is its latest."""
    running = begin(inventory.request("a.test:443"))
    fail(inventory.request("b.test:443"))
    over = fail(inventory.request("b.test:443"))
    with transaction() as connection:
        connection.execute(text("drop trigger request_is_latest_again on requests"))
        connection.execute(text("drop function certrail_request_is_latest_again"))
        connection.execute(table.update().values(is_latest=False))
        connection.execute(text("update alembic_version set version_num = '0015'"))

    with transaction() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0016")

    assert shown("a").request_id == running.id
    assert shown("b").request_id == over.id
    with transaction() as connection:
        ids = connection.execute(select(table.c.id).where(table.c.is_latest)).scalars().all()
    assert set(ids) == {running.id, over.id}
