"""Calls of Prefect's API that are done, and whose answer does not say so, or that arrive twice.

Here the worker reaches the server by a proxy only, so events, logs and what tells
it to cancel go through as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from certrail.cli import _starting
from certrail.store import requests
from tests.chaos.ground import moved
from tests.chaos.leaks import must_not_leak
from tests.chaos.records import audit_trail_is_whole, must_be_whole, nothing_is_held
from tests.chaos.test_killed_jobs import EACH, Case, Yard, the_yard
from tests.support.agreement import must_agree
from tests.support.faulty_proxy import Fault, Proxy, faulty_proxy
from tests.support.installation import found_here
from tests.support.process import wait_for
from tests.support.stack import Stack

FAULTS = (Fault.REFUSED_AFTER, Fault.DOUBLED)
# A job of its own for each fault, and requests by themselves at the endpoints of another case.
CASES = [Case(number, "") for number in range(2 * len(FAULTS))]
FAILS = Case(len(CASES), "", kind="failed")
# Those of a run's life that each case has to have met, whatever else there is.
MET = (
    "/create_flow_run",
    "/api/flow_runs/",
    "/set_state",
    "/api/events",
    "/api/task_runs/",
)
_READS = ("/filter", "/count", "/paginate", "/get_scheduled_flow_runs")
# Slots that are taken twice are free again when their lease is over, for which a case would wait.
_SLOTS = "/increment-with-lease"


@dataclass
class Spoiler:
    """Spoils the calls that change something.

    All of them are sent twice; with 502 it is each first, third, … call of an address, so
    that its repetition gets through.
    """

    fault: Fault
    happened: Counter[str] = field(default_factory=Counter)
    _seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, method: str, path: str) -> Fault:
        if method == "GET" or path.endswith((*_READS, _SLOTS)):
            return Fault.NONE
        self._seen[path] += 1
        if self.fault is Fault.REFUSED_AFTER and self._seen[path] % 2 == 0:
            return Fault.NONE
        self.happened[path] += 1
        return self.fault


@dataclass
class Scene:
    """An installation, and a worker of it that goes by a proxy; *ids* are all requests."""

    yard: Yard
    proxy: Proxy
    api_url: str
    ids: list[UUID] = field(default_factory=list)

    def request(self, case: Case) -> str:
        """Ask for a request of the first endpoint of *case*; returns its id."""
        location = self.yard.served.locations()[case.number * EACH]
        with temporary_settings({PREFECT_API_URL: self.api_url}):
            return str(_starting.start(location).id)

    def is_over(self, request_id: str, status: str = "automation-successful") -> bool:
        """Return whether a request has ended so, and nobody holds it."""
        with psycopg.connect(self.yard.stack.database_url) as connection:
            row = connection.execute(
                "select status, lease_owner from requests where id = %s", [request_id]
            ).fetchone()
        return row == (status, None)

    def through(self, case: Case, condition: Callable[[], bool], what: str) -> None:
        """Let a worker of the queue of *case* work until *condition* holds."""
        worker = self.yard.runner.worker(case.queue)
        try:
            wait_for(condition, what, within=120)
        finally:
            self.yard.runner.end(worker)


@pytest.fixture(scope="module")
def scene(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    server = urlsplit(installation.api_url).port or 0
    with found_here(installation) as found, faulty_proxy(server, keep=True) as proxy:
        api_url = moved(found["PREFECT_API_URL"], proxy.port)
        environment = {
            **found,
            "PREFECT_API_URL": api_url,
            "CERTRAIL_LEASE_SECONDS": "2",
            "CERTRAIL_SETTLE_SECONDS": "2",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        }
        folder = tmp_path_factory.mktemp("prefect")
        with the_yard(installation, folder, environment, [*CASES, FAILS], prefix="pt") as yard:
            yield (made := Scene(yard, proxy, api_url))
            nothing_is_held(installation, made.ids)
            audit_trail_is_whole(installation)
            must_not_leak(installation, made.ids)


@pytest.mark.parametrize("fault", FAULTS, ids=[one.name.lower() for one in FAULTS])
def test_a_job_and_a_request_get_through(scene: Scene, fault: Fault) -> None:
    """One run each at Prefect, one certificate, and both records say the same in the end."""
    yard = scene.yard
    case, alone = (CASES[2 * FAULTS.index(fault) + one] for one in range(2))
    began = time.time()
    scene.proxy.choose = spoiler = Spoiler(fault)

    job_id = yard.start(case)
    request = scene.request(alone)
    scene.through(case, lambda: yard.over(job_id) and yard.is_told(job_id), "the job ends")
    scene.through(alone, lambda: scene.is_over(request), "the request ends")
    scene.proxy.choose = lambda method, path: Fault.NONE

    with psycopg.connect(yard.stack.database_url) as connection:
        rows = connection.execute(
            "select id from requests where job_id = %s or id = %s", [job_id, request]
        )
        ids = [id_ for (id_,) in rows]
    scene.ids += ids
    assert len(ids) == EACH + 1
    numbers = [*range(case.number * EACH, (case.number + 1) * EACH), alone.number * EACH]
    names = [yard.served.names[number] for number in numbers]
    missed = [part for part in MET if not any(part in path for path in spoiler.happened)]
    assert missed == [], sorted(spoiler.happened)
    must_be_whole(yard.stack, ids, since=began)
    assert [yard.served.issued()[name] for name in names] == [1] * len(names)
    must_agree(yard.stack, locations=[f"{name}:443" for name in names])
    must_agree(yard.stack, job=f"pt-{case.queue}")


def test_a_retry_whose_answer_is_lost_is_one_retry(scene: Scene) -> None:
    """Prefect's client asks for it again when the run has been taken up already."""
    yard = scene.yard
    request = scene.request(FAILS)
    scene.ids.append(UUID(request))
    scene.through(FAILS, lambda: scene.is_over(request, "automation-failed"), "it fails")
    scene.proxy.choose = spoiler = Spoiler(Fault.REFUSED_AFTER)

    def is_told() -> bool:
        run = requests.get(UUID(request)).flow_run_id
        state = yard.api.get(f"/flow_runs/{run}")["state"]["type"]
        return bool(scene.is_over(request, "automation-failed") and state == "FAILED")

    with temporary_settings({PREFECT_API_URL: scene.api_url}), ThreadPoolExecutor(1) as pool:
        # Where Prefect is, is a setting of the context.
        asked = pool.submit(copy_context().run, _starting.retry, request)
        scene.through(FAILS, lambda: asked.done() and is_told(), "it fails again")
        asked.result()
    scene.proxy.choose = lambda method, path: Fault.NONE

    assert any("/set_state" in path for path in spoiler.happened)
    assert requests.get(UUID(request)).run_count == 2
    must_agree(yard.stack, locations=[yard.served.locations()[FAILS.number * EACH]])
