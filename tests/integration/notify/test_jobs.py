"""People hear of a bulk job once; a failure in it is never kept from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import text

from certrail.errors import ActivationRefused, CertrailError, ProbeFailed
from certrail.jobs.status import JobStatus
from certrail.store import (
    job_control,
    job_ends,
    notifications,
    outbox,
    request_ends,
    request_runs,
    steps,
)
from certrail.store import job_runs as runs
from certrail.store.database import transaction
from certrail.store.jobs import Job, by_id
from certrail.store.new_jobs import LeftOut
from certrail.tracker import Status
from tests.integration.notify.conftest import OPS, Desk
from tests.integration.store.conftest import Inventory, job_of, of

HOUR = timedelta(hours=1)
TEAM = "team@example.test"
FULL = ActivationRefused("the disk is full", remedy="Make room.")


@dataclass
class Spring:
    """A job `spring` of six endpoints, two of them of the profile `team`; it has begun."""

    job: Job

    def end(self, *names: str, error: CertrailError | None = None) -> None:
        """Let requests end, well or with *error* in their fourth step."""
        for name in names:
            request = of(self.job, name)
            request_runs.take(request.id, "w", HOUR)
            steps.begin(request.id, 4, 1, None)
            if error is not None:
                steps.fail(request.id, 4, error, final=True)
            status = Status.AUTOMATION_FAILED if error else Status.AUTOMATION_SUCCESSFUL
            request_ends.finish(request.id, "w", status)

    def finish(self, status: JobStatus = JobStatus.COMPLETED) -> None:
        """End the job."""
        job_ends.finish(self.job.id, status, f"{status}, some failed", actor="test")


def estate() -> Inventory:
    """Return an inventory with the connectors and the profile that its endpoints need."""
    inventory = Inventory()
    for name, slug in (("ca", "ca-acme"), ("ns", "dns-rfc2136"), ("web", "host-ssh")):
        inventory.connector(name, slug)
    inventory.profile("p", validation={"method": "dns-01", "dns": "ns"})
    return inventory


@pytest.fixture
def spring(desk: Desk) -> Spring:
    inventory = estate()
    inventory.profile(
        "team",
        validation={"method": "dns-01", "dns": "ns"},
        notifications={"email": [TEAM], "events": ["automation-failed"]},
    )
    names = [f"{name}.test" for name in "abcdef"]
    for name in names:
        profile = "team" if name in ("a.test", "b.test") else "p"
        inventory.endpoint(f"{name}:443", profile=profile, target="web")
    job = job_of(*names, left_out=[LeftOut("g.test:443", "no-profile", "it has no profile")])
    runs.take(job.id, "w", HOUR)
    runs.begin(job.id)
    return Spring(by_id(job.id))


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (JobStatus.COMPLETED, "failed in part"),
        (JobStatus.FAILED, "failed"),
        (JobStatus.CANCELLED, "failed in part"),
    ],
)
def test_a_job_is_one_message_at_its_end(
    desk: Desk, spring: Spring, status: JobStatus, title: str
) -> None:
    """Not one for each failure as they come; with what a person needs at three in the morning."""
    for name in ("c.test", "d.test"):
        spring.end(name, error=FULL)
        desk.drain()
    assert desk.mail.to(OPS) == []
    assert [one["events"][0]["location"] for one in desk.hooks.received] == [
        "c.test:443",
        "d.test:443",
    ]
    spring.end("a.test", "b.test", "e.test")
    spring.end("f.test", error=ProbeFailed("the old one is served", remedy="Look at it."))
    spring.finish(status)
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject == (
        f"[Certrail] Bulk automation job {title}: spring, 3 of 7 endpoints failed"
    )
    for part in (mail.text, mail.html):
        assert f"{status}, some failed" in part
        assert "total: 7, successful: 3, failed: 3, left out: 1" in part
        assert "Certificate installed: the disk is full (c.test:443)" in part
        assert "Make room." in part
        assert "the old one is served (f.test:443)" in part
        assert "c.test:443, d.test:443, f.test:443" in part
        assert "certrail job show spring" in part
        assert "certrail job retry spring" in part
        assert "certrail endpoint list --view failed --job spring" in part
    rows = notifications.log(recipient=OPS)
    assert {row.status for row in rows} == {"sent"}
    assert {row.message_id for row in rows} == {rows[0].message_id}
    assert {"c.test:443", "d.test:443", "f.test:443"} < {row.location for row in rows}
    assert desk.drain().sent == 0


def test_the_end_waits_for_a_failure_that_is_being_handed_to_prefect(
    desk: Desk, spring: Spring
) -> None:
    """Else that one would be a second message."""
    spring.end("c.test", error=FULL)
    with transaction() as emitting:
        emitting.execute(text("select id from outbox where routed_at is null for update"))
        spring.end("d.test", error=FULL)
        spring.finish()
        desk.drain()
        assert desk.mail.to(OPS) == []
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert "2 of 7 endpoints failed" in mail.subject
    assert {row.status for row in notifications.log(recipient=OPS)} == {"sent"}


def test_a_job_without_a_failure_wakes_nobody(desk: Desk, spring: Spring) -> None:
    """Unless they ask for it: then it is one message too."""
    spring.end("a.test", "b.test", "c.test", "d.test", "e.test", "f.test")
    spring.finish()
    desk.drain()
    assert desk.mail.received == []

    desk.rules(email=[OPS], events=["automation-completed", "job-completed"])
    with transaction() as connection:
        connection.execute(text("update outbox set routed_at = null"))
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject == "[Certrail] Bulk automation job completed: spring"
    assert "total: 7, successful: 6, failed: 0, left out: 1" in mail.text


def test_a_job_that_goes_on_keeps_no_failure_for_longer_than_an_hour(
    desk: Desk, spring: Spring
) -> None:
    """Jobs wait for windows and for people, and workers die; the end tells of all of it again."""
    spring.end("c.test", "d.test", error=FULL)
    desk.drain()
    desk.pass_time(HOUR)
    desk.send()

    (early,) = desk.mail.to(OPS)
    assert early.subject.startswith("[Certrail] 2 events")
    assert "bulk job spring" in early.text
    assert "c.test:443" in early.text
    assert "d.test:443" in early.text

    spring.end("e.test", error=FULL)
    spring.finish(JobStatus.FAILED)
    desk.drain()
    _, late = desk.mail.to(OPS)
    assert "c.test:443, d.test:443, e.test:443" in late.text


def test_a_pause_tells_what_failed_until_then(desk: Desk, spring: Spring) -> None:
    """Whoever is asked to resume or cancel has to know."""
    spring.end("c.test", error=FULL)
    desk.drain()
    job_control.ask_to_pause(spring.job, "ann@host")
    assert job_control.paused(spring.job.id, "w")
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] Bulk automation job paused: spring, 1 of 7")
    assert "the disk is full" in mail.text


def test_whoever_is_told_of_some_endpoints_only_gets_those_as_one(
    desk: Desk, spring: Spring
) -> None:
    """The team of a profile does not hear of the job, and misses nothing of its own."""
    spring.end("a.test", "b.test", "c.test", error=FULL)
    desk.drain()
    assert desk.mail.received == []
    spring.finish(JobStatus.FAILED)
    desk.drain()

    (mail,) = desk.mail.to(TEAM)
    assert mail.subject.startswith("[Certrail] 2 events")
    assert "a.test:443" in mail.text
    assert "b.test:443" in mail.text
    assert "c.test:443" not in mail.text
    assert len(desk.mail.to(OPS)) == 1


def test_rules_without_the_event_of_the_job_lose_nothing(desk: Desk, spring: Spring) -> None:
    """Lists of events that were written before there was one for it."""
    desk.rules(email=[OPS], events=["automation-failed", "job-failed"])
    spring.end("c.test", "d.test", error=FULL)
    desk.drain()
    spring.finish()
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] 2 events")
    assert "c.test:443" in mail.text
    assert "d.test:443" in mail.text


def test_a_job_that_ends_in_quiet_hours_is_one_message_in_the_morning(
    desk: Desk, spring: Spring
) -> None:
    """What waited for it before they began included."""
    desk.rules(email=[OPS], quiet_hours={"start": "22:00", "end": "07:00", "timezone": "UTC"})
    night = datetime.combine(datetime.now(UTC).date() - timedelta(days=2), time(3), UTC)
    with transaction() as connection:
        begun = {"begun": night.replace(hour=21, minute=30) - timedelta(days=1)}
        connection.execute(text("update jobs set started_at = :begun"), begun)
    spring.end("c.test", error=FULL)
    desk.route(begun["begun"])
    spring.end("d.test", error=FULL)
    spring.finish()
    desk.route(night)
    due = {row.due_at for row in notifications.log(recipient=OPS)}
    assert due == {night.replace(hour=7)}
    desk.send()

    (mail,) = desk.mail.to(OPS)
    assert "failed in part: spring, 2 of 7" in mail.subject


def test_what_failed_after_a_pause_is_told_beside_it(desk: Desk, spring: Spring) -> None:
    """In quiet hours both wait until the morning; the pause was before, with other sums."""
    desk.rules(email=[OPS], quiet_hours={"start": "22:00", "end": "07:00", "timezone": "UTC"})
    night = datetime.combine(datetime.now(UTC).date() - timedelta(days=2), time(3), UTC)
    with transaction() as connection:
        connection.execute(text("update jobs set started_at = :begun"), {"begun": night - HOUR})
    spring.end("c.test", error=FULL)
    job_control.ask_to_pause(spring.job, "ann@host")
    assert job_control.paused(spring.job.id, "w")
    desk.route(night)
    job_control.resume(by_id(spring.job.id), "ann@host")
    spring.end("d.test", error=FULL)
    desk.route(night + HOUR)
    desk.send()

    paused, later = desk.mail.to(OPS)
    assert paused.subject.startswith("[Certrail] Bulk automation job paused: spring, 1 of 7")
    assert "d.test:443" in later.text


def test_however_many_failed_it_is_one_message(desk: Desk, spring: Spring) -> None:
    """More than otherwise go into one."""
    spring.end("c.test", error=FULL)
    failed = of(spring.job, "c.test")
    with transaction() as connection:
        for number in range(250):
            outbox.put(
                connection, "certrail.request.failed", f"h{number}.test:443", request_id=failed.id
            )
    desk.rules(email=[OPS])
    desk.route()
    assert desk.send().sent == 0
    spring.finish()
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert "failed in part: spring" in mail.subject
    assert notifications.log(status="pending", limit=None) == []


def test_a_retry_of_one_endpoint_after_the_end_is_told_at_once(desk: Desk, spring: Spring) -> None:
    """Nothing of the job would tell of it."""
    spring.end("c.test", error=FULL)
    spring.finish(JobStatus.FAILED)
    desk.drain()
    again = of(spring.job, "c.test")
    request_ends.reopen(again.id, again.plan, "ann@host")
    spring.end("c.test", error=FULL)
    desk.drain()

    _, mail = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] Automation failed: c.test:443")


def test_whoever_approves_is_asked_for_all_endpoints_of_a_job_by_one_message(desk: Desk) -> None:
    """At once, with the command for each; it is not swallowed by the end of a job that waits."""
    inventory = estate()
    inventory.profile(
        "asked", validation={"method": "dns-01", "dns": "ns"}, approval={"by": "second-person"}
    )
    asked = [f"{name}.test" for name in "uvwxyz"]
    for name in (*asked, "free.test"):
        profile = "p" if name == "free.test" else "asked"
        inventory.endpoint(f"{name}:443", profile=profile, target="web")
    job = job_of(*asked, "free.test")

    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] 6 events, the gravest: Approval pending")
    assert "bulk job spring" in mail.text
    for name in asked:
        assert f"{name}:443" in mail.text
        assert f"certrail request approve {str(of(job, name).id)[:8]}" in mail.text
    assert "free.test" not in mail.text
    assert sorted(one["events"][0]["location"] for one in desk.hooks.received) == [
        f"{name}:443" for name in asked
    ]
    assert desk.drain().sent == 0


@pytest.mark.parametrize("count", [1, 4])
def test_few_approvals_are_one_message_too(desk: Desk, count: int) -> None:
    """Otherwise so many events are told one by one."""
    inventory = estate()
    inventory.profile(
        "asked", validation={"method": "dns-01", "dns": "ns"}, approval={"by": "second-person"}
    )
    names = [f"m{number}.test" for number in range(count)]
    for name in names:
        inventory.endpoint(f"{name}:443", profile="asked", target="web")
    job = job_of(*names)

    desk.drain()

    (mail,) = desk.mail.to(OPS)
    for name in names:
        assert f"certrail request deny {str(of(job, name).id)[:8]}" in mail.text
