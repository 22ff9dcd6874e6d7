"""Any order of calls on requests and jobs leaves the records as a simple model says.

Hypothesis chooses who calls what, with leases that run out at any moment; the
model is a few lines of Python, the store is the real one.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, insert, select, update

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.errors import CertrailError, Conflict, InvalidRequest, JournalConflict, Unreachable
from certrail.jobs.shares import Need
from certrail.jobs.status import JobStatus
from certrail.jobs.waves import Lane, Place, Route, Shard
from certrail.model import Action, KeyAlgorithm, Workflow
from certrail.store import (
    job_control,
    job_ends,
    job_results,
    job_runs,
    job_shards,
    jobs,
    new_jobs,
    new_requests,
    orders,
    request_ends,
    request_runs,
    requests,
    step_begins,
    steps,
)
from certrail.store.database import transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from certrail.store.schema import job_shards as shard_table
from certrail.store.schema import jobs as job_table
from certrail.store.schema import orders as order_table
from certrail.store.schema import requests as request_table
from certrail.tracker import ACTIVE, FAILED, SUCCESSFUL, Status, StepStatus

LEASE = timedelta(minutes=5)
# When a lease ends that counts no more; of those that end late the clock was set back since.
OVER = st.sampled_from([timedelta(seconds=-1), timedelta(hours=3)])
OWNERS = st.sampled_from(["a", "b", "c"])
ENDS = st.sampled_from([*SUCCESSFUL[:1], *FAILED[:1], Status.CANCELLED])
FINISHED = (StepStatus.COMPLETED, StepStatus.SKIPPED)
STEPS = st.integers(1, 5)
# The same ones each time; `make chaos` asks for more, and for others.
TIMES = int(os.environ.get("CHAOS_TIMES", "1"))
BOUNDED = settings(
    max_examples=15 * TIMES,
    stateful_step_count=30,
    derandomize=TIMES == 1,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
_numbers = itertools.count()


def plan_for(location: str) -> Plan:
    return Plan(
        location=location,
        names=(location.partition(":")[0],),
        addresses=(),
        sni=None,
        workflow=Workflow.WEB_SERVER,
        profile="public-web",
        ca=ConnectorRef(name="ca", slug="ca-acme"),
    )


def new_endpoint() -> tuple[UUID, str]:
    location = f"m{next(_numbers)}.test:443"
    with transaction() as connection:
        made: UUID = connection.execute(
            insert(endpoints).values(location=location).returning(endpoints.c.id)
        ).scalar_one()
    return made, location


@dataclass
class Expected:
    """What the model says of one request."""

    endpoint: UUID
    location: str
    status: Status = Status.AUTOMATION_REQUESTED
    owner: str | None = None
    expired: bool = False
    places: int = 0
    cancel: bool = False
    runs: int = 0
    steps: dict[int, StepStatus] = field(
        default_factory=lambda: dict.fromkeys(range(1, 6), StepStatus.PENDING)
    )
    live: bool = False
    dead: int = 0

    @property
    def is_free(self) -> bool:
        return self.owner is None or self.expired

    def end(self, status: Status) -> None:
        self.status, self.owner, self.expired = status, None, False
        if status not in SUCCESSFUL:
            left = StepStatus.CANCELLED if status is Status.CANCELLED else StepStatus.PENDING
            for number, step in self.steps.items():
                if step in (StepStatus.PENDING, StepStatus.RUNNING):
                    self.steps[number] = left


class Requests(RuleBasedStateMachine):
    """Requests of two endpoints under the calls of three workers and an operator."""

    made: Bundle[UUID] = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.places = [new_endpoint() for _ in range(2)]
        self.model: dict[UUID, Expected] = {}

    @rule(target=made, which=st.integers(0, 1))
    def start(self, which: int) -> UUID | MultipleResults[UUID]:
        endpoint, location = self.places[which]
        busy = any(one.endpoint == endpoint and one.status in ACTIVE for one in self.model.values())
        try:
            request = new_requests.create(
                endpoint,
                action=Action.ENROLL,
                plan=plan_for(location),
                reason=Reason("requested", "by a test"),
                actor="tester",
            )
        except Conflict:
            assert busy
            return multiple()
        assert not busy
        self.model[request.id] = Expected(endpoint, location)
        return request.id

    @rule(which=made, owner=OWNERS)
    def take(self, which: UUID, owner: str) -> None:
        one = self.model[which]
        try:
            request_runs.take(which, owner, LEASE)
        except JournalConflict:
            assert not one.is_free
            assert one.owner != owner
        except InvalidRequest:
            assert one.cancel or one.status not in ACTIVE
        else:
            assert one.is_free or one.owner == owner
            assert one.status in ACTIVE
            assert not one.cancel
            one.status, one.owner, one.expired = Status.IN_PROGRESS, owner, False
            one.runs += 1

    @rule(which=made, ends=OVER)
    def lease_runs_out(self, which: UUID, ends: timedelta) -> None:
        one = self.model[which]
        if one.owner is not None:
            one.expired = True
            with transaction() as connection:
                connection.execute(
                    update(request_table)
                    .where(request_table.c.id == which)
                    .values(lease_until=func.now() + ends)
                )

    @rule(which=made, owner=OWNERS)
    def renew(self, which: UUID, owner: str) -> None:
        one = self.model[which]
        told = request_runs.renew_leases(owner, [which], LEASE)
        assert told == ({which} if one.owner == owner and one.cancel else set())
        if one.owner == owner:
            one.expired = False

    @rule(which=made, owner=OWNERS)
    def hand_back(self, which: UUID, owner: str) -> None:
        one = self.model[which]
        request_runs.release(which, owner)
        if one.owner == owner:
            one.owner, one.expired = None, False

    @rule(which=made, owner=OWNERS)
    def wait_for_a_window(self, which: UUID, owner: str) -> None:
        one = self.model[which]
        may = one.owner == owner and one.status is Status.IN_PROGRESS
        try:
            request_runs.wait(which, owner, datetime.now(UTC) + LEASE, "the window opens", 4)
        except JournalConflict:
            assert not may
        else:
            assert may
            one.status, one.owner, one.expired = Status.AUTOMATION_SCHEDULED, None, False

    @rule(which=made, owner=st.one_of(OWNERS, st.just("")), status=ENDS)
    def finish(self, which: UUID, owner: str, status: Status) -> None:
        one = self.model[which]
        request_ends.finish(which, owner, status)
        if one.status in ACTIVE and one.owner == (owner or None):
            one.end(status)

    @rule(which=made)
    def cancel(self, which: UUID) -> None:
        one = self.model[which]
        try:
            request_ends.ask_to_cancel(which, "tester")
        except InvalidRequest:
            assert one.status not in ACTIVE
        else:
            assert one.status in ACTIVE
            one.cancel = True
            if one.is_free:
                one.end(Status.CANCELLED)

    @rule(which=made)
    def retry(self, which: UUID) -> None:
        one = self.model[which]
        busy = any(
            other.endpoint == one.endpoint and other.status in ACTIVE
            for key, other in self.model.items()
            if key != which
        )
        over = one.status in (*FAILED, Status.CANCELLED)
        try:
            request_ends.reopen(which, plan_for(one.location), "tester")
        except InvalidRequest:
            assert not over
        except Conflict:
            assert over
            assert busy
        else:
            assert over
            assert not busy
            one.status, one.cancel = Status.AUTOMATION_REQUESTED, False
            for number, step in one.steps.items():
                if step in (StepStatus.FAILED, StepStatus.CANCELLED):
                    one.steps[number] = StepStatus.PENDING

    @rule(which=made, owner=OWNERS, number=STEPS)
    def begin_step(self, which: UUID, owner: str, number: int) -> None:
        one = self.model[which]
        found = step_begins.begin_step(which, number, owner, None)
        may = one.owner == owner and not one.cancel and one.steps[number] not in FINISHED
        assert found.begun is may
        assert found.status is one.steps[number]
        if may:
            one.steps[number] = StepStatus.RUNNING

    # A run that lost its lease still writes how its try ended.
    @rule(which=made, number=STEPS, status=st.sampled_from([*FINISHED, StepStatus.CANCELLED]))
    def end_step(self, which: UUID, number: int, status: StepStatus) -> None:
        one = self.model[which]
        steps.end(which, number, status, "so it ended")
        if status in FINISHED or one.steps[number] not in FINISHED:
            one.steps[number] = status

    @rule(which=made, number=STEPS, final=st.booleans())
    def fail_step(self, which: UUID, number: int, final: bool) -> None:
        one = self.model[which]
        steps.fail(which, number, Unreachable("the CA does not answer"), final=final)
        if one.steps[number] not in FINISHED:
            one.steps[number] = StepStatus.FAILED if final else StepStatus.RUNNING

    @rule(which=made)
    def open_order(self, which: UUID) -> None:
        one = self.model[which]
        record = orders.begin(which, "ca", ("a.test",), KeyAlgorithm.ECDSA_P256)
        assert record.key == f"{which}-{one.dead + 1}"
        one.live = True

    @rule(which=made)
    def give_order_up(self, which: UUID) -> None:
        one = self.model[which]
        orders.bury(which, "invalid")
        one.dead += one.live
        one.live = False

    @invariant()
    def records_are_as_expected(self) -> None:
        if not self.model:
            return
        shown = steps.of_requests(list(self.model))
        expired = ~request_table.c.lease_until.between(func.now(), func.now() + LEASE)
        with transaction() as connection:
            rows = {
                row.id: row
                for row in connection.execute(
                    select(request_table, func.coalesce(expired, False).label("expired")).where(
                        request_table.c.id.in_(self.model)
                    )
                )
            }
            live = dict(
                connection.execute(
                    select(order_table.c.request_id, func.count())
                    .where(~order_table.c.is_dead, order_table.c.request_id.in_(self.model))
                    .group_by(order_table.c.request_id)
                )
                .tuples()
                .all()
            )
        active = [one.endpoint for one in self.model.values() if one.status in ACTIVE]
        assert len(active) == len(set(active))
        for which, one in self.model.items():
            row = rows[which]
            assert row.status == one.status
            assert (row.lease_owner, row.expired) == (one.owner, one.expired)
            assert (row.cancel_requested, row.run_count) == (one.cancel, one.runs)
            assert {step.number: step.status for step in shown[which]} == one.steps
            for step in shown[which]:
                if step.status is StepStatus.FAILED:
                    assert step.cause
                    assert step.remedy
                    assert step.retryable is not None
            assert live.get(which, 0) == one.live
            if one.status not in ACTIVE:
                assert row.lease_owner is None


@dataclass
class Held:
    """Who has the lease of a job or a shard."""

    owner: str | None = None
    expired: bool = False
    places: int = 0

    def free_for(self, owner: str) -> bool:
        return self.owner in (None, owner) or self.expired


class Jobs(RuleBasedStateMachine):
    """One job of three endpoints in two shards, under two workers and an operator."""

    def __init__(self) -> None:
        super().__init__()
        places = [new_endpoint() for _ in range(3)]
        draft = new_jobs.Draft(
            name=f"job-{next(_numbers)}",
            action=Action.ENROLL,
            concurrency=2,
            max_failures=None,
            canary=False,
            in_window=False,
            scheduled_at=None,
            actor="tester",
        )
        chosen = [
            new_jobs.Chosen(
                endpoint_id=endpoint,
                action=Action.ENROLL,
                plan=plan_for(location),
                place=Place(position=number, wave=1, shard=1 if number < 3 else 2),
                previous_certificate_id=None,
                certificate_id=None,
            )
            for number, (endpoint, location) in enumerate(places, start=1)
        ]
        parts = [Shard(n, 1, Route("agents"), Lane.MAIN, size) for n, size in ((1, 2), (2, 1))]
        self.job = new_jobs.create(draft, chosen, [], parts)
        self.members = [one.id for shard in (1, 2) for one in self.of_shard(shard)]
        self.status = JobStatus.SCHEDULED
        self.pause = self.cancel = self.stopped = False
        self.lease = Held()
        self.shards = {1: Held(), 2: Held()}
        self.requests = {
            member: Expected(endpoint, location)
            for member, (endpoint, location) in zip(self.members, places, strict=True)
        }

    def of_shard(self, shard: int) -> list[requests.Request]:
        return job_shards.open_requests(self.job.id, shard)

    @property
    def is_open(self) -> bool:
        return not self.status.is_over

    def present(self) -> jobs.Job:
        return jobs.by_id(self.job.id)

    def dropped(self) -> None:
        for one in self.requests.values():
            if one.status in ACTIVE and one.is_free:
                one.end(Status.CANCELLED)

    def wishes(self) -> job_runs.Wishes:
        return job_runs.Wishes(
            pause=self.pause, end=self.status.is_over or self.cancel or self.stopped
        )

    @rule(owner=OWNERS)
    def take(self, owner: str) -> None:
        may = self.lease.free_for(owner)
        try:
            job_runs.take(self.job.id, owner, LEASE)
        except JournalConflict:
            assert not may
        else:
            assert may
            self.lease = Held(owner)

    @rule()
    def begin(self) -> None:
        job_runs.begin(self.job.id)
        if self.status in (JobStatus.SCHEDULED, JobStatus.PAUSED):
            self.status = JobStatus.RUNNING

    @rule(owner=OWNERS)
    def renew(self, owner: str) -> None:
        try:
            told = job_runs.renew(self.job.id, owner, LEASE)
        except JournalConflict:
            assert self.lease.owner != owner
        else:
            assert self.lease.owner == owner
            assert told == self.wishes()
            self.lease.expired = False

    @rule(owner=OWNERS)
    def hand_back(self, owner: str) -> None:
        job_runs.release(self.job.id, owner)
        if self.lease.owner == owner:
            self.lease = Held()

    @rule(owner=OWNERS, shard=st.integers(1, 2))
    def take_shard(self, owner: str, shard: int) -> None:
        may = self.shards[shard].free_for(owner)
        try:
            job_shards.take_shard(self.job.id, shard, owner, LEASE)
        except JournalConflict:
            assert not may
        else:
            assert may
            self.shards[shard] = Held(owner)

    @rule(
        owner=OWNERS,
        shard=st.integers(1, 2),
        used=st.integers(0, 2),
        more=st.integers(0, 2),
        is_first=st.booleans(),
    )
    def renew_shard(
        self,
        owner: str,
        shard: int,
        used: int,
        more: int,
        is_first: bool,
    ) -> None:
        held = self.shards[shard]
        # What ran when the lease ran out has ended.
        used = 0 if held.expired else min(used, held.places)
        need = Need(used, min(2, used + more), 2, is_first)
        try:
            told = job_shards.renew_shard(self.job.id, shard, owner, LEASE, self.members, need)
        except JournalConflict:
            assert held.owner != owner
        else:
            assert held.owner == owner
            assert told.wishes == self.wishes()
            assert told.cancelled == {key for key, one in self.requests.items() if one.cancel}
            assert told.share is not None
            assert used <= told.share.places <= max(used, need.wanted)
            held.expired, held.places = False, told.share.places

    @rule(owner=OWNERS, shard=st.integers(1, 2))
    def renew_shard_alone(self, owner: str, shard: int) -> None:
        held = self.shards[shard]
        if held.owner == owner and not held.expired:
            told = job_shards.renew_shard(self.job.id, shard, owner, LEASE, self.members)
            assert told.share is None

    @rule(owner=OWNERS, shard=st.integers(1, 2))
    def hand_shard_back(self, owner: str, shard: int) -> None:
        job_shards.release_shard(self.job.id, shard, owner)
        if self.shards[shard].owner == owner:
            self.shards[shard] = Held()

    @rule(what=st.integers(0, 2), ends=OVER)
    def lease_runs_out(self, what: int, ends: timedelta) -> None:
        held = self.shards.get(what, self.lease)
        if held.owner is None:
            return
        held.expired = True
        table = shard_table if what else job_table
        mine = shard_table.c.job_id == self.job.id if what else job_table.c.id == self.job.id
        past = {"lease_until": func.now() + ends}
        with transaction() as connection:
            query = update(table).where(mine).values(past)
            connection.execute(query.where(shard_table.c.number == what) if what else query)

    @rule(which=st.integers(0, 2), owner=OWNERS)
    def run_one(self, which: int, owner: str) -> None:
        one = self.requests[self.members[which]]
        try:
            request_runs.take(self.members[which], owner, LEASE)
        except CertrailError:
            assert one.cancel or one.status not in ACTIVE or one.owner not in (None, owner)
        else:
            one.status, one.owner = Status.IN_PROGRESS, owner
            one.runs += 1

    @rule(which=st.integers(0, 2), owner=OWNERS, status=ENDS)
    def end_one(self, which: int, owner: str, status: Status) -> None:
        one = self.requests[self.members[which]]
        request_ends.finish(self.members[which], owner, status)
        if one.status in ACTIVE and one.owner == owner:
            one.end(status)

    @rule()
    def ask_to_pause(self) -> None:
        self.asked(
            lambda: job_control.ask_to_pause(self.present(), "tester"),
            self.is_open and not self.pause,
        )
        self.pause = self.pause or self.is_open

    @rule(owner=OWNERS)
    def paused(self, owner: str) -> None:
        may = self.lease.owner == owner and self.pause and self.is_open
        assert job_control.paused(self.job.id, owner) is may
        if may:
            self.status, self.lease = JobStatus.PAUSED, Held()

    @rule()
    def resume(self) -> None:
        may = self.is_open and self.pause
        self.asked(lambda: job_control.resume(self.present(), "tester"), may)
        if may:
            self.pause = False
            if self.status is JobStatus.PAUSED:
                self.status = JobStatus.RUNNING

    @rule()
    def ask_to_cancel(self) -> None:
        may = self.is_open
        self.asked(lambda: job_control.ask_to_cancel(self.present(), "tester"), may)
        if may:
            self.cancel, self.pause = True, False
            self.dropped()
            for one in self.requests.values():
                one.cancel = one.cancel or one.status in ACTIVE

    @rule()
    def stop(self) -> None:
        job_ends.stop(self.job.id, "threshold", "too many failed", actor="tester")
        self.stopped = True

    @rule(status=st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]))
    def finish(self, status: JobStatus) -> None:
        if any(one.status in ACTIVE for one in self.requests.values()):
            return  # the flow ends a job only when nothing of it is left
        job_ends.finish(self.job.id, status, "so it ended", actor="tester")
        if self.is_open:
            self.status, self.lease = status, Held()
            self.dead_shards_are_nobodys()

    @rule()
    def repair_shards(self) -> None:
        job_ends.free_shards()
        if not self.is_open:
            self.dead_shards_are_nobodys()

    def dead_shards_are_nobodys(self) -> None:
        for number, held in self.shards.items():
            if held.expired:
                self.shards[number] = Held()

    @precondition(lambda self: self.stopped)
    @rule()
    def drop(self) -> None:
        job_ends.drop(self.job.id)
        self.dropped()

    @rule()
    def retry(self) -> None:
        failed = {key: one for key, one in self.requests.items() if one.status in FAILED}
        found = {one.id for one in job_control.to_retry(self.job.id)}
        assert found == set(failed)
        plans = {key: plan_for(one.location) for key, one in failed.items()}
        may = not self.is_open and bool(failed)
        self.asked(lambda: job_control.reopen(self.present(), plans, "tester"), may)
        if may:
            self.status = JobStatus.RUNNING
            self.pause = self.cancel = self.stopped = False
            for one in failed.values():
                one.status, one.cancel = Status.AUTOMATION_REQUESTED, False

    def asked(self, call: object, may: bool) -> None:
        assert callable(call)
        if may:
            call()
        else:
            with pytest.raises(InvalidRequest):
                call()

    @invariant()
    def records_are_as_expected(self) -> None:
        job = self.present()
        assert job.status is self.status
        assert (job.pause_requested, job.cancel_requested) == (self.pause, self.cancel)
        assert (job.stop_code is not None) is self.stopped
        assert job.lease_owner == self.lease.owner
        assert job.is_held is (self.lease.owner is not None and not self.lease.expired)
        for shard in job_shards.shards(self.job.id, 1):
            held = self.shards[shard.number]
            assert shard.lease_owner == held.owner
            assert shard.is_held is (held.owner is not None and not held.expired)
            assert shard.places == held.places
            assert not shard.is_only
        alive = [one for one in self.shards.values() if one.owner and not one.expired]
        assert sum(one.places for one in alive) <= job.concurrency
        counted = job_results.counts([self.job.id])[self.job.id]
        states = [one.status for one in self.requests.values()]
        assert counted.total == 3
        assert counted.left == sum(status in ACTIVE for status in states)
        assert counted.successful == sum(status in SUCCESSFUL for status in states)
        assert counted.failed == sum(status in FAILED for status in states)
        assert counted.cancelled == states.count(Status.CANCELLED)
        if job.status.is_over:
            assert counted.left == 0


def test_requests_steps_orders_and_leases(database_url: str) -> None:
    """Whatever workers and people do in whatever order."""
    run_state_machine_as_test(Requests, settings=BOUNDED)


def test_jobs_and_their_shards(database_url: str) -> None:
    """Pause, resume, cancel, stop, retry, with leases that run out between."""
    run_state_machine_as_test(Jobs, settings=BOUNDED)
