"""A job's requests and the others of their endpoints: none is hidden, none goes on twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from certrail.cli import _endpoint_detail, _job_progress
from certrail.errors import Conflict, InvalidRequest
from certrail.jobs import threshold
from certrail.jobs.status import JobStatus
from certrail.steps import renewal
from certrail.store import (
    endpoint_detail,
    inventory_query,
    job_control,
    job_ends,
    job_results,
    job_runs,
    job_view,
    jobs,
    plans,
    renewal_decisions,
    request_ends,
    request_runs,
    requests,
)
from certrail.store import inventory as rows
from certrail.store.database import transaction
from certrail.store.jobs import Job
from certrail.store.requests import Request
from certrail.store.schema import job_members, job_shards
from certrail.store.schema import jobs as job_table
from certrail.store.schema import requests as table
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, issue, job_of, of

HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


def now() -> datetime:
    return datetime.now(UTC)


def serving(inventory: Inventory, name: str, days: float = 10) -> None:
    """Add an endpoint whose certificate was valid for 30 days and ends in *days*."""
    inventory.endpoint(f"{name}:443", profile="p", target="web")
    inventory.certificate(f"{name}:443", issue(name, days=days))


def fail(request: Request) -> None:
    request_runs.take(request.id, "w", HOUR)
    request_ends.finish(request.id, "w", Status.AUTOMATION_FAILED)


def stopped(job: Job) -> bool:
    """Whether the job begins no more endpoints, as its run decides it."""
    return threshold.stop(job.threshold, job_results.waves(job)) is not None


def turn(at: datetime | None = None) -> Sequence[UUID]:
    """Let the sweep pass; returns what it scheduled."""
    return renewal.turn(at or now(), horizon=WEEK).scheduled


def listed(text: str) -> list[str]:
    return [one.location for one in rows.find(rows.parse_filter(text))]


def pause(name: str) -> dict[str, str]:
    found: dict[str, str] = (endpoint_detail.get(f"{name}:443").renewal or {}).get("pause") or {}
    return found


@pytest.mark.parametrize("days", [10, 24], ids=["due", "due in some days"])
def test_what_failed_in_a_job_stays_there_to_be_retried(inventory: Inventory, days: int) -> None:
    """A newer renewal, planned or begun, would take it out of the job's list and its retry."""
    serving(inventory, "failed.test", days)
    job = job_of("failed.test")
    fail(of(job, "failed.test"))
    job_ends.finish(job.id, JobStatus.FAILED, "1 failed", actor="test")

    assert [turn(), turn()] == [[], []]

    assert [one.location for one in job_control.to_retry(job.id)] == ["failed.test:443"]
    assert listed("job=spring and status=automation-failed") == ["failed.test:443"]


def test_a_forgotten_failure_lets_no_certificate_expire(inventory: Inventory) -> None:
    """After its pause the renewal policy goes on, with a request of its own and longer pauses."""
    serving(inventory, "forgotten.test")
    job = job_of("forgotten.test")
    fail(of(job, "forgotten.test"))

    assert turn() == []
    assert turn(now() + HOUR / 2) == []
    (made,) = turn(now() + HOUR + timedelta(minutes=5))

    assert requests.get(made).reason.code == "renewal-due"
    assert of(job, "forgotten.test").status is Status.AUTOMATION_FAILED
    fail(requests.get(made))
    assert turn() == []
    again = endpoint_detail.get("forgotten.test:443").row.next_renewal_at
    assert again is not None
    assert abs(again - now() - 2 * HOUR) < HOUR / 20


def test_near_the_end_a_failure_is_no_reason_to_wait_long(inventory: Inventory) -> None:
    """The same sixth of the time that is left as after a failed renewal."""
    serving(inventory, "near.test", days=0.05)
    fail(inventory.request("near.test:443", previous_certificate_id=None))
    inventory.set_request(
        requests.find("near.test:443"),
        previous_certificate_id=plans.for_location("near.test:443").certificate_id,
    )

    assert turn() == []

    again = endpoint_detail.get("near.test:443").row.next_renewal_at
    assert again is not None
    assert abs(again - now() - timedelta(days=0.05) / 6) < HOUR / 20


def test_what_a_job_left_undone_is_not_renewed_at_once(inventory: Inventory) -> None:
    """Whoever cancels, or whose canary failed, wants to look first; an hour is kept free."""
    serving(inventory, "due.test")
    serving(inventory, "planned.test", days=24)
    assert len(turn()) == 2
    job = job_of("due.test", "planned.test")
    job_control.ask_to_cancel(job, "ann@host")
    job_ends.finish(job.id, JobStatus.CANCELLED, "cancelled", actor="test")

    assert [turn(), turn()] == [[], []]

    rest = job_control.to_retry(job.id, rest=True)
    assert {one.location for one in rest} == {"due.test:443", "planned.test:443"}
    assert pause("due.test")["code"] == "after-cancellation"
    assert pause("planned.test") == {}
    (made,) = turn(now() + HOUR + timedelta(minutes=5))
    assert requests.get(made).location == "due.test:443"


def test_a_renewal_that_was_cancelled_by_hand_is_planned_again(inventory: Inventory) -> None:
    """A request of a person took the place of a renewal; without it, that one is needed again."""
    serving(inventory, "single.test")
    before = plans.for_location("single.test:443").certificate_id
    asked = inventory.request("single.test:443", previous_certificate_id=before)
    request_ends.ask_to_cancel(asked.id, "ann@host")

    (made,) = turn()

    begins = requests.get(made).scheduled_at
    assert begins is not None
    assert abs(begins - now() - HOUR) < HOUR / 20


def test_switched_on_again_nothing_waits(inventory: Inventory) -> None:
    """`certrail endpoint auto-renew LOCATION on` says that it may begin."""
    serving(inventory, "released.test")
    before = plans.for_location("released.test:443").certificate_id
    asked = inventory.request("released.test:443", previous_certificate_id=before)
    request_ends.ask_to_cancel(asked.id, "ann@host")

    renewal_decisions.hold("released.test:443", True, "ann@host")
    (made,) = turn()

    begins = requests.get(made).scheduled_at
    assert begins is not None
    assert abs(begins - now()) < HOUR / 20


def test_the_pause_is_told_with_its_cause(
    inventory: Inventory, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the page of the endpoint and in lists, until it is over."""
    serving(inventory, "told.test")
    fail(of(job_of("told.test"), "told.test"))

    turn()

    found = pause("told.test")
    assert found["code"] == "after-failure"
    assert found["message"].startswith(
        "the request before it (bulk job spring, asked by ann@host) failed on 20"
    )
    (row,) = rows.find(rows.parse_filter("location=told.test:443"))
    assert row.renewal_pause == found["message"]
    assert row.next_renewal_at is not None
    assert found["until"] == row.next_renewal_at.isoformat()
    _endpoint_detail.show(endpoint_detail.get("told.test:443"), None)
    assert f"held back          {found['message']}" in capsys.readouterr().out
    told = dict(endpoint_detail.get("told.test:443").renewal or {})
    over = {**told, "pause": {**found, "until": (now() - HOUR).isoformat()}}
    inventory.set("told.test:443", renewal=over)
    (row,) = rows.find(rows.parse_filter("location=told.test:443"))
    assert row.renewal_pause is None
    assert "renewal_pause" in inventory_query.UNSORTED


def test_a_request_made_at_that_moment_keeps_a_job_from_going_on(inventory: Inventory) -> None:
    """Told with what to do; the job stays as it was, and a retry leaves that endpoint out."""
    serving(inventory, "first.test")
    serving(inventory, "second.test")
    job = job_of("first.test", "second.test")
    for name in ("first.test", "second.test"):
        fail(of(job, name))
    job_ends.finish(job.id, JobStatus.FAILED, "2 failed", actor="test")
    again = {one.id: one.plan for one in job_control.to_retry(job.id)}
    other = inventory.request("second.test:443")

    with pytest.raises(Conflict, match=r"second\.test:443 has an active request") as raised:
        job_control.reopen(job, again, "ann@host")

    assert "certrail job retry spring" in raised.value.remedy
    assert jobs.by_id(job.id).status is JobStatus.FAILED
    assert of(job, "first.test").status is Status.AUTOMATION_FAILED
    assert requests.get(other.id).status is Status.AUTOMATION_REQUESTED
    rest = {one.id: one.plan for one in job_control.to_retry(job.id)}
    assert job_control.reopen(job, rest, "ann@host") == 1
    assert of(job, "first.test").status is Status.AUTOMATION_REQUESTED


def test_an_older_request_that_runs_again_is_left_alone(inventory: Inventory) -> None:
    """A person retries what failed before the job: the job's retry does not stumble over it."""
    serving(inventory, "older.test")
    older = inventory.request("older.test:443")
    fail(older)
    job = job_of("older.test")
    fail(of(job, "older.test"))
    job_ends.finish(job.id, JobStatus.FAILED, "1 failed", actor="test")
    request_ends.reopen(older.id, older.plan, "ann@host")

    assert job_control.to_retry(job.id) == []
    with pytest.raises(InvalidRequest, match="no endpoint of the job spring failed"):
        job_control.reopen(job, {}, "ann@host")


@pytest.mark.parametrize(
    ("canary", "limit"), [(True, None), (False, "0"), (True, "10%")], ids=["canary", "0", "10%"]
)
def test_a_failure_that_was_repaired_does_not_stop_the_rest(
    inventory: Inventory, canary: bool, limit: str | None
) -> None:
    """One failed and was renewed by hand; a failure in this turn stops the job all the same."""
    for name in ("failed.test", "first.test", "second.test"):
        serving(inventory, name)
    job = job_of("failed.test", "first.test", "second.test", canary=canary, max_failures=limit)
    fail(of(job, "failed.test"))
    assert stopped(job)
    job_ends.drop(job.id)
    job_ends.finish(job.id, JobStatus.FAILED, "1 failed", actor="test")
    other = inventory.request("failed.test:443")
    request_runs.take(other.id, "w", HOUR)
    request_ends.finish(other.id, "w", Status.AUTOMATION_SUCCESSFUL)

    again = {one.id: one.plan for one in job_control.to_retry(job.id, rest=True)}
    assert job_control.reopen(job, again, "ann@host", rest=True) == 2

    assert not stopped(job)
    fail(of(job, "first.test"))
    assert stopped(job)
    (wave,) = job_results.waves(job)
    assert wave.counts.failed == 2


def test_a_retry_without_failures_names_the_rest(inventory: Inventory) -> None:
    """A job that was cancelled before anything failed; after `--rest` there is nothing more."""
    serving(inventory, "undone.test")
    job = job_of("undone.test")
    job_control.ask_to_cancel(job, "ann@host")
    job_ends.finish(job.id, JobStatus.CANCELLED, "cancelled", actor="test")

    with pytest.raises(InvalidRequest, match="no endpoint of the job spring failed") as raised:
        job_control.reopen(job, {}, "ann@host")
    assert "`certrail job retry spring --rest`" in raised.value.remedy

    with pytest.raises(InvalidRequest, match="no endpoint of the job spring failed") as raised:
        job_control.reopen(job, {}, "ann@host", rest=True)
    assert "--rest" not in raised.value.remedy


def test_two_jobs_of_the_same_name(inventory: Inventory) -> None:
    """Both were started at the same moment: the second one leaves nothing behind."""
    serving(inventory, "mine.test")
    serving(inventory, "yours.test", days=24)
    (planned,) = (one for one in turn() if requests.get(one).location == "yours.test:443")
    job = job_of("mine.test")

    with pytest.raises(Conflict, match="there is a job spring already") as raised:
        job_of("yours.test")

    assert "certrail job show spring" in raised.value.remedy
    with transaction() as connection:
        names = connection.execute(select(job_table.c.name)).scalars().all()
        of_jobs = (
            connection.execute(select(table.c.id).where(table.c.job_id.is_not(None)))
            .scalars()
            .all()
        )
        members = connection.execute(select(job_members.c.job_id)).scalars().all()
        shards = connection.execute(select(func.count()).select_from(job_shards)).scalar()
    assert names == ["spring"]
    assert of_jobs == [of(job, "mine.test").id]
    assert members == [job.id]
    assert shards == 1
    assert requests.get(planned).status is Status.AUTOMATION_SCHEDULED
    assert requests.find("yours.test:443").id == planned


def test_the_expected_finish_goes_by_the_present_turn(inventory: Inventory) -> None:
    """A job that is retried after three days is not over in another three."""
    for name in ("a.test", "b.test", "c.test", "d.test"):
        serving(inventory, name)
    job = job_of("a.test", "b.test", "c.test", "d.test")
    with transaction() as connection:
        connection.execute(
            update(job_table).values(
                status=JobStatus.RUNNING, started_at=func.now() - timedelta(days=3)
            )
        )
        connection.execute(
            update(table)
            .where(table.c.id.in_([of(job, "a.test").id, of(job, "b.test").id]))
            .values(status=Status.AUTOMATION_SUCCESSFUL, ended_at=func.now() - timedelta(days=3))
        )

    job_runs.take(job.id, "w", HOUR)
    before = job_view.view(jobs.by_id(job.id), ui_url="")
    inventory.set_request(
        of(job, "c.test"), status=Status.AUTOMATION_SUCCESSFUL, ended_at=func.now()
    )
    after = job_view.view(jobs.by_id(job.id), ui_url="")

    assert _job_progress.expected_end(before, now()) is None
    ends = _job_progress.expected_end(after, now())
    assert ends is not None
    assert ends - now() < HOUR


def test_jobs_whose_names_differ_by_case_are_two(inventory: Inventory) -> None:
    """Who retries the failed ones of one job does not mean those of the other."""
    serving(inventory, "a.test")
    serving(inventory, "b.test")
    job_of("a.test", called="spring")
    job_of("b.test", called="Spring")

    assert listed("job=spring") == ["a.test:443"]
    assert listed("job=Spring") == ["b.test:443"]
    assert listed("job!=spring") == ["b.test:443"]
    assert listed("job~SPRING") == ["a.test:443", "b.test:443"]


def test_a_list_of_jobs_says_nothing_that_was_not_looked_up(inventory: Inventory) -> None:
    """Five failures and no cause of any would be a contradiction."""
    serving(inventory, "a.test")
    job = job_of("a.test")
    fail(of(job, "a.test"))

    whole = job_view.view(job, ui_url="").to_json()
    (summary,) = (one.to_json() for one in job_view.summaries([job], ui_url=""))

    assert set(whole) - set(summary) == {
        "waves", "failures_by_cause", "failures", "waits_for", "held_up_by",
    }  # fmt: skip
    assert summary == {key: whole[key] for key in summary}
    assert summary["counts"]["failed"] == 1
