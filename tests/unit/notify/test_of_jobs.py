"""When people hear of what happens to the endpoints of a bulk job, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from uuid import UUID

import pytest

from certrail.events import Severity, kind_of
from certrail.maintenance import MaintenanceWindow
from certrail.notify import of_jobs, rules
from certrail.notify.of_jobs import Course
from certrail.notify.rules import Timing
from certrail.notify.settings import Digest, NotificationSettings
from certrail.store.outbox import Happened

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
BEGUN = datetime(2027, 1, 31, 11, 0, tzinfo=UTC)
JOB = UUID(int=7)
RUNS = Course(JOB, "spring", BEGUN, None, untold=False)
END = "certrail.job.failed-in-part"
ENDED = kind_of(END)
MAIL, HOOK = "notifier-smtp", "notifier-webhook"
ACCOUNT = NotificationSettings(email=("ops@example.test",))
QUIET = ACCOUNT.model_copy(
    update={"quiet_hours": MaintenanceWindow(start=time(11, 30), end=time(18), timezone="UTC")}
)
DAILY = ACCOUNT.model_copy(
    update={"digest": Digest(events=("automation-failed", "job-*"), at=time(8))}
)


def happened(event: str, occurred: datetime = BEGUN, **payload: object) -> Happened:
    return Happened(1, UUID(int=1), event, "", "www.test:443", None, payload, occurred, job_id=JOB)


def told_when(
    event: str, severity: Severity, slug: str, account: NotificationSettings, now: datetime
) -> Timing:
    """Return when an event of the job, or of an endpoint in it, is told while the job runs."""
    one = happened(event, job_id=str(JOB)) if event == END else happened(event)
    timed = partial(rules.timing, kind_of(event), severity, slug, account)
    return of_jobs.timing(one, RUNS, severity, slug, timed, now)


@pytest.mark.parametrize(
    ("event", "course", "expected"),
    [
        pytest.param("certrail.request.failed", RUNS, True, id="a failure"),
        pytest.param("certrail.certificate.installed", RUNS, True, id="a success"),
        pytest.param("certrail.request.approval-pending", RUNS, False, id="somebody is asked"),
        pytest.param("certrail.certificate.expired", RUNS, False, id="what was seen"),
        pytest.param("certrail.run.crashed", RUNS, False, id="an alarm"),
        pytest.param(
            "certrail.request.failed",
            replace(RUNS, ended_at=BEGUN + MINUTE, untold=True),
            True,
            id="the end is still to be told",
        ),
        pytest.param(
            "certrail.request.failed",
            replace(RUNS, ended_at=BEGUN + MINUTE),
            False,
            id="the end was told",
        ),
        pytest.param(
            "certrail.request.failed",
            replace(RUNS, ended_at=BEGUN - MINUTE, untold=True),
            False,
            id="after the end",
        ),
    ],
)
def test_what_waits_for_its_job(event: str, course: Course, expected: bool) -> None:
    """What nobody would tell of later must not wait."""
    assert of_jobs.waits(happened(event), course) is expected


@pytest.mark.parametrize(
    ("slug", "severity", "account", "now", "due"),
    [
        pytest.param(MAIL, Severity.ERROR, ACCOUNT, BEGUN, BEGUN + HOUR, id="at the beginning"),
        pytest.param(
            MAIL, Severity.ERROR, ACCOUNT, BEGUN + 59 * MINUTE, BEGUN + HOUR, id="in the hour"
        ),
        pytest.param(
            MAIL, Severity.ERROR, ACCOUNT, BEGUN + HOUR, BEGUN + 2 * HOUR, id="in the next hour"
        ),
        pytest.param(
            MAIL, Severity.ERROR, QUIET, BEGUN, BEGUN + 7 * HOUR, id="the hour ends in quiet ones"
        ),
    ],
)
def test_an_endpoint_waits_an_hour_at_the_most(
    slug: str, severity: Severity, account: NotificationSettings, now: datetime, due: datetime
) -> None:
    """All of one hour are told as one, however long the job goes on."""
    found = told_when("certrail.request.failed", severity, slug, account, now)

    assert (found.due_at, found.held_because) == (due, "bulk job spring")
    assert found.digest == told_when(END, severity, slug, account, now).digest


@pytest.mark.parametrize(
    ("slug", "severity", "account"),
    [
        pytest.param(HOOK, Severity.ERROR, ACCOUNT, id="a program"),
        pytest.param(MAIL, Severity.CRITICAL, ACCOUNT, id="critical"),
        pytest.param(MAIL, Severity.ERROR, DAILY, id="in the daily digest"),
    ],
)
def test_what_does_not_wait(slug: str, severity: Severity, account: NotificationSettings) -> None:
    """Programs count each; whoever wants it once a day gets it once a day."""
    for event in ("certrail.request.failed", END):
        assert "job" not in (told_when(event, severity, slug, account, BEGUN).digest or "")


@pytest.mark.parametrize(
    ("slug", "account", "now", "due", "digest"),
    [
        pytest.param(MAIL, ACCOUNT, BEGUN, BEGUN, f"approvals {JOB}", id="at once, as one"),
        pytest.param(HOOK, ACCOUNT, BEGUN, BEGUN, None, id="a program"),
        pytest.param(
            MAIL,
            QUIET,
            BEGUN + HOUR,
            BEGUN + 7 * HOUR,
            "quiet 2027-01-31T18:00:00+00:00",
            id="quiet",
        ),
    ],
)
def test_when_somebody_is_asked(
    slug: str, account: NotificationSettings, now: datetime, due: datetime, digest: str | None
) -> None:
    """No later than for a single request, and apart from the end of the job."""
    found = told_when("certrail.request.approval-pending", Severity.WARNING, slug, account, now)

    assert (found.due_at, found.digest) == (due, digest)


@pytest.mark.parametrize(
    ("event", "course", "expected"),
    [
        pytest.param("certrail.request.approval-pending", RUNS, True, id="of a job"),
        pytest.param("certrail.request.failed", RUNS, False, id="a failure"),
        pytest.param(
            "certrail.request.approval-pending",
            replace(RUNS, ended_at=BEGUN),
            False,
            id="retried by itself after the end",
        ),
    ],
)
def test_what_asks_for_a_job(event: str, course: Course, expected: bool) -> None:
    """A single retry after the end is no longer the job's."""
    assert of_jobs.asks(happened(event), course) is expected


def test_an_end_in_quiet_hours_is_told_when_they_end() -> None:
    """And what waited for it with it, whether its own event is one of the daily ones or not."""
    night = BEGUN + 2 * HOUR
    morning = BEGUN + 7 * HOUR
    found = told_when(END, Severity.ERROR, MAIL, QUIET, night)

    assert (found.due_at, found.held_because) == (morning, "quiet hours")
    assert of_jobs.let_go(ENDED, Severity.ERROR, QUIET, night) == morning
    assert of_jobs.let_go(ENDED, Severity.ERROR, DAILY, night) == night


def test_a_job_that_failed_in_part_is_not_told_as_completed() -> None:
    """Its end has two events, for those who want only the one or the other."""
    mine, other = str(JOB), str(UUID(int=8))
    events = [
        happened("certrail.job.completed", job_id=other),
        happened("certrail.job.completed", job_id=mine),
        happened("certrail.job.failed-in-part", job_id=mine),
    ]

    assert of_jobs.told(events) == [events[0], events[2]]
    assert of_jobs.told(events[:2]) == events[:2]


def test_a_good_end_after_a_retry_is_told_beside_the_bad_one_before() -> None:
    """In quiet hours both wait until the morning."""
    first = [
        happened("certrail.job.completed", job_id=str(JOB)),
        happened("certrail.job.failed-in-part", job_id=str(JOB)),
    ]
    again = replace(first[0], occurred=first[0].occurred + HOUR)

    assert of_jobs.told([*first, again]) == [first[1], again]


def test_the_words_count_and_name_what_failed() -> None:
    """Left out are words for people; the names come to an end."""
    counts = {"total": 1000, "pending": 0, "successful": 965, "failed": 30, "skipped": 5}
    cause = {
        "count": 30,
        "different": 3,
        "step": "Certificate issued",
        "cause": "no",
        "remedy": "Pay.",
        "example": "a:443",
    }
    payload = {"counts": counts, "failures": [cause], "failed_endpoints": ["a:443", "b:443"]}

    assert of_jobs.facts(payload) == [
        ("Endpoints", "total: 1000, successful: 965, failed: 30, left out: 5"),
        ("30 failed", "Certificate issued: no (a:443), and 2 other messages of this kind"),
        ("Remedy", "Pay."),
        ("Failed", "a:443, b:443, and 28 more"),
    ]
    assert of_jobs.share(payload) == "30 of 1000 endpoints failed"
    assert of_jobs.share({"counts": {"total": 1, "failed": 1}}) == "1 of 1 endpoint failed"
    assert of_jobs.share({}) == ""
