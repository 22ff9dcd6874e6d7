"""Who hears of an event, and when."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from certrail.configuration.profile import Notifications
from certrail.errors import InvalidRequest
from certrail.events import KINDS, Severity, check_pattern, kind_of, matches
from certrail.maintenance import MaintenanceWindow
from certrail.notify import rules
from certrail.notify.compose import compose
from certrail.notify.rules import Target
from certrail.notify.sample import EVENT
from certrail.notify.settings import Digest, NotificationSettings

FAILED = kind_of("certrail.request.failed")
DONE = kind_of("certrail.request.completed")
EXPIRED = kind_of("certrail.certificate.expired")
ACCOUNT = NotificationSettings(email=("ops@example.test",), channels=("pager",))
OPS = Target("mail", "ops@example.test")
TEAM = Target("mail", "team@example.test")
PAGER = Target("pager")


def profile(**fields: object) -> Notifications:
    return Notifications.model_validate(fields)


@pytest.mark.parametrize(
    ("kind", "own", "expected"),
    [
        pytest.param(FAILED, None, {OPS, PAGER}, id="no profile"),
        pytest.param(FAILED, profile(), {OPS, PAGER}, id="a profile that says nothing"),
        pytest.param(DONE, None, set(), id="success is not worth a message"),
        pytest.param(
            FAILED, profile(email=["team@example.test"]), {OPS, PAGER, TEAM}, id="added to"
        ),
        pytest.param(
            FAILED, profile(mode="replace", email=["team@example.test"]), {TEAM}, id="replaced"
        ),
        pytest.param(FAILED, profile(mode="replace"), set(), id="replaced by nobody"),
        pytest.param(
            DONE,
            profile(email=["team@example.test"], events=["automation-completed"]),
            {TEAM},
            id="an event that only the profile wants",
        ),
        pytest.param(
            FAILED,
            profile(email=["team@example.test"], events=["automation-completed"]),
            {OPS, PAGER},
            id="an event that only the account wants",
        ),
        pytest.param(
            DONE, profile(events=["automation-completed"]), {OPS, PAGER}, id="further events"
        ),
        pytest.param(
            FAILED, profile(email=["ops@example.test"]), {OPS, PAGER}, id="nobody is told twice"
        ),
        pytest.param(FAILED, profile(channels=["pager"]), {OPS, PAGER}, id="nor a channel"),
        pytest.param(EXPIRED, profile(events=["automation-*"]), {OPS, PAGER}, id="pattern"),
    ],
)
def test_who_hears_of_it(kind: object, own: Notifications | None, expected: set[Target]) -> None:
    found = rules.targets(kind, ACCOUNT, own, "mail")  # type: ignore[arg-type]

    assert set(found) == expected
    assert len(found) == len(expected)


def test_without_a_carrier_nobody_is_written_to() -> None:
    """Addresses need a connector; others are told all the same."""
    assert rules.targets(FAILED, ACCOUNT, None, None) == (PAGER,)


@pytest.mark.parametrize(
    ("mail", "channels", "expected"),
    [
        (None, {"a": "notifier-smtp", "b": "notifier-webhook"}, "a"),
        (None, {"a": "notifier-smtp", "b": "notifier-smtp"}, None),
        ("b", {"a": "notifier-smtp", "b": "notifier-smtp"}, "b"),
        (None, {}, None),
    ],
)
def test_what_carries_mail(mail: str | None, channels: dict[str, str], expected: str) -> None:
    assert rules.mail_channel(ACCOUNT.model_copy(update={"mail": mail}), channels) == expected


NIGHT = MaintenanceWindow(start=time(22), end=time(7), timezone="Europe/Berlin")
HELD = ACCOUNT.model_copy(
    update={
        "quiet_hours": NIGHT,
        "digest": Digest(events=("automation-completed",), at=time(8), timezone="Europe/Berlin"),
    }
)
THREE_AM = datetime(2027, 1, 31, 2, 0, tzinfo=UTC)
NOON = datetime(2027, 1, 31, 11, 0, tzinfo=UTC)
MORNING = datetime(2027, 1, 31, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("severity", "slug", "now", "due"),
    [
        pytest.param(Severity.ERROR, "notifier-smtp", THREE_AM, MORNING, id="night"),
        pytest.param(Severity.ERROR, "notifier-smtp", MORNING, MORNING, id="the end is over"),
        pytest.param(Severity.ERROR, "notifier-smtp", NOON, NOON, id="day"),
        pytest.param(Severity.CRITICAL, "notifier-smtp", THREE_AM, THREE_AM, id="critical"),
        pytest.param(Severity.ERROR, "notifier-webhook", THREE_AM, THREE_AM, id="programs"),
    ],
)
def test_quiet_hours(severity: Severity, slug: str, now: datetime, due: datetime) -> None:
    found = rules.timing(FAILED, severity, slug, HELD, now)

    assert found.due_at == due
    assert bool(found.digest) == bool(found.held_because) == (due != now)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (datetime(2027, 3, 27, 6, 59, tzinfo=UTC), datetime(2027, 3, 27, 7, 0, tzinfo=UTC)),
        (datetime(2027, 3, 27, 7, 0, tzinfo=UTC), datetime(2027, 3, 28, 6, 0, tzinfo=UTC)),
        (datetime(2028, 2, 28, 7, 0, tzinfo=UTC), datetime(2028, 2, 29, 7, 0, tzinfo=UTC)),
        (datetime(2028, 2, 29, 7, 0, tzinfo=UTC), datetime(2028, 3, 1, 7, 0, tzinfo=UTC)),
    ],
)
def test_a_digest_is_sent_by_the_wall_clock(now: datetime, due: datetime) -> None:
    """Eight o'clock stays eight o'clock when the clocks change."""
    found = rules.timing(DONE, Severity.INFO, "notifier-smtp", HELD, now)

    assert (found.due_at, found.held_because) == (due, "digest")


def test_pauses_grow_to_an_hour_and_to_five_minutes_for_what_is_critical() -> None:
    """A server that is down for a while is not hammered; what is critical is not late."""
    minute = timedelta(minutes=1)
    waits = [rules.pause(n, Severity.ERROR) for n in range(1, 9)]
    assert waits == [n * minute for n in (1, 2, 4, 8, 16, 32, 60, 60)]
    assert rules.pause(50, Severity.CRITICAL) == 5 * minute


def test_every_event_can_be_named_and_none_twice() -> None:
    """Names are what people write into files."""
    assert len({kind.slug for kind in KINDS}) == len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert check_pattern(kind.slug) == kind.slug
        assert matches((kind.slug,), kind)
        assert matches(("all",), kind) == (kind.slug != "test")
    with pytest.raises(InvalidRequest) as caught:
        check_pattern("automation-faild")
    assert "automation-failed" in caught.value.remedy


def test_settings_refuse_what_means_nothing() -> None:
    """A typo in an event or an address must not be silent."""
    cases: tuple[dict[str, object], ...] = (
        {"events": ["automation-faild"]},
        {"email": ["nobody"]},
        {"email": ["a@b.test\r\nBcc: c@d.test"]},
        {"expiring_days": [0]},
        {"templates": {"automation-failed": {"text": "{{ locatoin }}"}}},
        {"templates": {"no-such-event": {"text": "x"}}},
        {"digest": {"events": ["all"], "at": "08:00", "timezone": "Europe/Nowhere"}},
        {"emails": []},
    )
    for wrong in cases:
        with pytest.raises(ValueError, match=r"\w"):
            NotificationSettings.model_validate(wrong)


def test_a_message_of_several_begins_with_the_gravest() -> None:
    """Whoever is woken by it reads the first lines."""
    told = [
        {**EVENT, "severity": severity, "title": title, "location": location}
        for severity, title, location in (
            ("info", "Automation successful", "a.test"),
            ("critical", "Certificate expired", "b.test"),
            ("info", "Automation successful", "c.test"),
        )
    ]

    message = compose(told, NotificationSettings(), message_id="m", recipient="a@b.test")

    lines = [line for line in message.text.splitlines() if line]
    assert lines[:3] == ["3 events", "1 x Certificate expired", "2 x Automation successful"]
    assert message.text.index("b.test") < message.text.index("a.test")
    assert [one["location"] for one in message.events] == ["a.test", "b.test", "c.test"]
