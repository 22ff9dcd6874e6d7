"""A bulk job whose worker is killed at any row of the job's own progress: the next one goes on.

Each case is a job of its own on a worker of its own, caught by the row it is
about to write; all of them at the same time, since most of it is waiting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.chaos.leaks import must_not_leak
from tests.chaos.records import audit_trail_is_whole, must_be_whole, nothing_is_held
from tests.support import job_kills
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, estate
from tests.support.flow_runner import FlowRunner
from tests.support.installation import found_here
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack

# The writes of a clean run; the first test holds the list to be complete.
CLEAN = (
    "jobs: lease_owner, lease_until, run_count, taken_at",
    "jobs: started_at, status",
    "outbox certrail.job.started",
    "jobs: lease_until",
    "job_shards: wanted",
    "job_shards: task_run_id",
    "job_shards: flow_run_id",
    "job_shards: lease_owner, lease_until, run_count",
    "requests: flow_run_id",
    "job_shards: lease_until",
    "job_shards: lease_owner, lease_until, wanted",
    "jobs: ended_at, lease_owner, lease_until, status",
    "outbox certrail.job.completed",
)
# And what the rows of jobs that do not go through are.
STOPPED = ("jobs: stop_code, stop_message", "outbox certrail.job.failed")
PAUSED = ("jobs: lease_owner, lease_until, status", "outbox certrail.job.paused")
EACH = 2  # endpoints of each job


@dataclass(frozen=True)
class Case:
    """A job: of the endpoints ``number * EACH`` and on, killed before *write* (never if "")."""

    number: int
    write: str
    kind: str = "completed"

    @property
    def queue(self) -> str:
        """The queue of its runs, and the executor of its endpoints."""
        return f"kill{self.number}"


def cases(each: int = int(os.environ.get("CHAOS_TIMES", "1"))) -> list[Case]:
    """Return a clean run, and *each* jobs for every write; `make chaos` has several."""
    points = [
        *((write, "completed") for write in CLEAN),
        *((write, "failed") for write in STOPPED),
        *((write, "paused") for write in PAUSED),
    ] * each
    return [Case(0, ""), *(Case(n, *point) for n, point in enumerate(points, start=1))]


@dataclass
class Yard:
    """An installation with endpoints for all cases, and for one more clean run."""

    stack: Stack
    served: Estate
    runner: FlowRunner
    api: PrefectApi
    cases: list[Case]
    spare: Case
    began: float = field(default_factory=time.time)

    def start(self, case: Case) -> UUID:
        """Make the job and its run, which only a worker of its own queue takes."""
        from certrail.cli import _jobs
        from certrail.store import job_runs

        first = case.number * EACH
        wanted = _jobs.Wanted(f"{self.served.prefix}-{case.queue}", max_failures="0", concurrency=1)
        planned = _jobs.plan(wanted, locations=self.served.locations()[first : first + EACH])
        assert [one.plan.executor for one in planned.chosen] == [case.queue] * EACH
        job_id = self._stored(planned)
        deployment = self.api.get("/deployments/name/bulk-job/job")["id"]
        run = self.api.post(
            f"/deployments/{deployment}/create_flow_run",
            name=f"job {wanted.name}",
            parameters={"job_id": str(job_id)},
            tags=[f"job:{wanted.name}"],
            labels={"certrail.job": wanted.name},
            work_queue_name=case.queue,
            idempotency_key=str(job_id),
            state={"type": "SCHEDULED"},
        )
        job_runs.bind(job_id, UUID(run["id"]))
        return job_id

    def again(self, job_id: UUID) -> None:
        """What the repair of every minute does about a job whose worker died."""
        from certrail.store import jobs

        self.api.post(
            f"/flow_runs/{jobs.by_id(job_id).flow_run_id}/set_state",
            state={"type": "SCHEDULED", "name": "AwaitingRetry", "message": "killed"},
            force=True,
        )

    def over(self, job_id: UUID) -> bool:
        """Whether nobody runs the job any more, and it is over or rests."""
        from certrail.store import jobs

        job = jobs.by_id(job_id)
        return (job.status.is_over or job.status == "paused") and job.lease_owner is None

    def is_told(self, job_id: UUID) -> bool:
        """Whether Prefect knows that the job is over."""
        from certrail.store import jobs

        job = jobs.by_id(job_id)
        state = self.api.get(f"/flow_runs/{job.flow_run_id}")["state"]["type"]
        return bool(state == str(job.status).upper())

    def _stored(self, planned: object) -> UUID:
        from certrail.cli import _jobs
        from certrail.store import audit, new_jobs

        assert isinstance(planned, _jobs.Planned)
        draft = new_jobs.Draft(
            name=planned.wanted.name,
            action=None,
            concurrency=planned.wanted.concurrency,
            max_failures=planned.wanted.max_failures,
            canary=False,
            in_window=False,
            scheduled_at=None,
            actor=audit.local_actor(),
        )
        return new_jobs.create(draft, planned.chosen, planned.left_out, planned.layout.shards).id


@contextmanager
def the_yard(
    stack: Stack, folder: Path, environment: dict[str, str], of: list[Case], prefix: str = "kj"
) -> Iterator[Yard]:
    """Serve the endpoints of all cases, and watch the rows of jobs; *prefix* is of their names."""
    spare = Case(len(of), "")
    all_ = [*of, spare]
    with (
        estate(folder / "e", prefix, EACH * len(all_)) as served,
        FlowRunner(environment, folder / "runner.log") as runner,
    ):
        whole = served.configuration()
        for position, endpoint in enumerate(whole["endpoints"]):
            case = all_[position // EACH]
            endpoint["executor"] = case.queue
            if case.kind == "failed" and position % EACH == 0:
                endpoint["server"]["test"] = ["sh", "-c", "echo unknown directive >&2; exit 1"]
        applied = stack.cli("apply", "-f", str(served.write(whole)))
        assert applied.returncode == 0, applied.stderr
        job_kills.install(stack.database_url)
        api = PrefectApi(stack.api_url)
        try:
            yield Yard(stack, served, runner, api, of, spare)
        finally:
            api.close()
            job_kills.remove(stack.database_url)


@pytest.fixture(scope="module")
def yard(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with found_here(installation) as found:
        short = {
            **found,
            "CERTRAIL_LEASE_SECONDS": "2",
            "CERTRAIL_SETTLE_SECONDS": "2",
            "PREFECT_WORKER_QUERY_SECONDS": "0.2",
        }
        with the_yard(installation, tmp_path_factory.mktemp("jobs"), short, cases()) as made:
            yield made


# Dozens of workers begin and die; on a machine that is slow and shared that takes long.
@pytest.mark.timeout(2400)
def test_every_write_of_a_job_is_a_place_to_be_killed_at(yard: Yard) -> None:
    """One clean job tells which writes there are; in all others the worker dies before one."""
    kill_everywhere(yard)


def test_a_job_whose_end_was_not_told_to_prefect_is_settled(yard: Yard) -> None:
    """Its last row was written, and then the worker died: the repair tells it."""
    from certrail.store import job_shards, jobs

    job_id = yard.start(yard.spare)
    kill_at(yard, yard.spare, job_id)
    job = jobs.by_id(job_id)
    (shard,) = job_shards.shards(job.id, 1)
    for run in (job.flow_run_id, shard.flow_run_id):
        yard.api.post(f"/flow_runs/{run}/set_state", state={"type": "RUNNING"}, force=True)

    def settled() -> bool:
        yard.runner.reconcile()
        states = [
            yard.api.get(f"/flow_runs/{run}")["state"]["type"]
            for run in (job.flow_run_id, shard.flow_run_id)
        ]
        return states == ["COMPLETED", "CRASHED"]

    wait_for(settled, "Prefect is told", within=60)


def kill_everywhere(yard: Yard, at_once: int = 6) -> None:
    """Run all cases, *at_once* of them at a time, and check each."""
    ids = [yard.start(case) for case in yard.cases]
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda pair: kill_at(yard, *pair), zip(yard.cases, ids, strict=True)))
    assert job_kills.writes(yard.stack.database_url, ids[0]) == set(CLEAN)
    for case, job_id in zip(yard.cases, ids, strict=True):
        assert_settled(yard, case, job_id)
        if case.kind != "failed":
            with psycopg.connect(yard.stack.database_url) as connection:
                rows = connection.execute("select id from requests where job_id = %s", [job_id])
                must_be_whole(yard.stack, [id_ for (id_,) in rows], since=yard.began)
    names = yard.served.names[: len(yard.cases) * EACH]
    must_agree(yard.stack, locations=[f"{name}:443" for name in names])
    with psycopg.connect(yard.stack.database_url) as connection:
        of = "select id from requests where job_id = any(%s)"
        members = [id_ for (id_,) in connection.execute(of, [ids])]
    nothing_is_held(yard.stack, members)
    audit_trail_is_whole(yard.stack)
    must_not_leak(yard.stack, members)


def kill_at(yard: Yard, case: Case, job_id: UUID) -> None:
    """Kill the job's worker before the write of *case*, and let another one go on to the end."""
    url = yard.stack.database_url
    if case.kind == "paused":
        pause(job_id)
    if not case.write:
        job_kills.watch(url, job_id)
        worker = yard.runner.worker(case.queue)
    else:
        with job_kills.catching(url, job_id, case.write) as caught:
            worker = yard.runner.worker(case.queue)
            caught()
            yard.runner.kill(worker)
        yard.again(job_id)
        worker = yard.runner.worker(case.queue)
    try:
        where = f"the end of the job that was killed at {case.write!r}"
        wait_for(lambda: yard.over(job_id), where, within=120)
        if case.kind == "paused":
            done = yard.stack.cli("job", "resume", f"{yard.served.prefix}-{case.queue}")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: yard.over(job_id), where, within=120)
        wait_for(lambda: yard.is_told(job_id), where, within=120)
    finally:
        yard.runner.end(worker)


def pause(job_id: UUID) -> None:
    """As ``certrail job pause``."""
    from certrail.store import job_control, jobs

    job_control.ask_to_pause(jobs.by_id(job_id), "test")


def assert_settled(yard: Yard, case: Case, job_id: UUID) -> None:
    """Nothing of the job is left undone, and nothing was done twice."""
    with psycopg.connect(yard.stack.database_url) as connection:

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query, [job_id]).fetchall()

        status, owner = rows("select status, lease_owner from jobs where id = %s")[0]
        members = rows(
            "select r.status, r.lease_owner from job_members m join requests r"
            " on r.id = m.request_id where m.job_id = %s order by m.position"
        )
        held = rows(
            "select number from job_shards where job_id = %s and lease_owner is not null"
            " and lease_until > now()"
        )
        told = rows(
            "select event, count(*) from outbox where request_id is null"
            " and payload ->> 'job_id' = %s::text group by event"
        )
        of_members = rows(
            "select o.event, count(*) from outbox o join requests r on r.id = o.request_id"
            " where r.job_id = %s and o.event in"
            " ('certrail.request.completed', 'certrail.request.failed') group by o.event"
        )
        orders = rows(
            "select count(*) from orders o join requests r on r.id = o.request_id"
            " where r.job_id = %s"
        )
        run = rows("select flow_run_id from jobs where id = %s")[0][0]
    where = f"killed at {case.write}"
    fails = case.kind == "failed"
    assert (status, owner) == ("failed" if fails else "completed", None), where
    expected = ["automation-failed", "cancelled"] if fails else ["automation-successful"] * EACH
    assert members == [(one, None) for one in expected], where
    assert held == [], where
    events = {"certrail.job.started": 1, f"certrail.job.{status}": 1}
    events |= {"certrail.job.paused": 1} if case.kind == "paused" else {}
    assert dict(told) == events, where  # type: ignore[arg-type]
    ended = ("certrail.request.failed", 1) if fails else ("certrail.request.completed", EACH)
    assert of_members == [ended], where
    assert orders == [(1 if fails else EACH,)], where
    first = case.number * EACH
    for position, name in enumerate(yard.served.names[first : first + EACH]):
        assert yard.served.issued().get(name, 0) == (0 if fails and position else 1), where
    state = yard.api.get(f"/flow_runs/{run}")["state"]
    assert state["type"] == str(status).upper(), f"{where}: {state['message']}"
