"""From an event to its recipients: each once, none lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from blocks.notifiers.smtp import SmtpMail
from certrail.errors import InvalidRequest
from certrail.events import KINDS
from certrail.notify import drain
from certrail.store import notifications, outbox
from certrail.store.database import transaction
from tests.integration.notify.conftest import OPS, Desk
from tests.support.process import die_with_parent, wait_for

FAILED = "certrail.request.failed"
NAME = "zürich–東京.example.test:443"
ROOT = Path(__file__).resolve().parents[3]


def test_one_event_is_one_message_to_each(desk: Desk) -> None:
    """However often somebody looks."""
    desk.happen(FAILED, NAME, cause="die Tür ist zu", remedy="öffnen")

    assert desk.drain().sent == 2
    assert desk.drain().sent == 0

    (mail,) = desk.mail.to(OPS)
    assert NAME in mail.subject
    assert "die Tür ist zu" in mail.text
    assert "öffnen" in mail.html
    (hook,) = desk.hooks.received
    assert hook["events"][0]["location"] == NAME
    assert desk.hooks.ids == [hook["events"][0]["id"]]


def test_every_kind_of_event_arrives_once(desk: Desk) -> None:
    """Nothing that can happen is without words."""
    desk.rules(email=[OPS], channels=["hook"], events=["all", "test"])
    for kind in KINDS:
        desk.happen(kind.name, f"{kind.slug}.example.test:443")
        desk.drain()

    told = Counter(one["events"][0]["slug"] for one in desk.hooks.received)
    assert told == {kind.slug: 1 for kind in KINDS}
    for kind in KINDS:
        found = [m for m in desk.mail.to(OPS) if f"{kind.slug}.example.test" in m.subject]
        assert len(found) == 1, kind.slug


def test_an_event_of_a_transaction_that_was_rolled_back_is_not_told(desk: Desk) -> None:
    """What did not happen is no news."""
    with pytest.raises(ZeroDivisionError):
        _begin_and_break()

    assert desk.drain().routed == 0
    assert desk.mail.received == []


def _begin_and_break() -> None:
    with transaction() as connection:
        outbox.put(connection, FAILED, NAME)
        raise ZeroDivisionError


def test_what_may_be_told_once_is_told_once(desk: Desk) -> None:
    """A sweep that finds the same expiring certificate every minute tells of it one time."""
    for _ in range(3):
        desk.happen("certrail.certificate.expired", NAME, once="expired:x")
    desk.drain()

    assert len(desk.mail.to(OPS)) == 1


def test_many_at_once_become_one_message_to_people(desk: Desk) -> None:
    """Two hundred failures of one job are not two hundred e-mails; programs get each."""
    names = [f"host{number}.example.test:443" for number in range(60)]
    for name in names:
        desk.happen(FAILED, name)
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] 60 events")
    assert all(name in mail.text and name in mail.html for name in names)
    assert sorted(one["events"][0]["location"] for one in desk.hooks.received) == sorted(names)


def test_several_at_once_send_each_message_once(desk: Desk) -> None:
    """Two workers and a person's shell may all be sending."""
    desk.rules(channels=["hook"])
    for number in range(80):
        desk.happen(FAILED, f"host{number}.example.test:443")
    threads = [threading.Thread(target=desk.drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.drain()

    assert len(desk.hooks.ids) == len(set(desk.hooks.ids)) == 80


def test_a_mail_server_that_is_down_for_a_while_loses_nothing(desk: Desk) -> None:
    """Each message comes once when it is back, and the log says why it was late."""
    desk.mail.stop()
    for number in range(3):
        desk.happen(FAILED, f"host{number}.example.test:443")
    first = desk.drain()

    assert "mail" in first.troubles
    assert first.sent == 3  # the webhooks
    assert desk.send().sent == 0  # not due yet

    desk.pass_time(timedelta(minutes=5))
    assert desk.send().sent == 0
    waiting = [row for row in notifications.log() if row.channel == "mail"]
    assert {row.status for row in waiting} == {"pending"}
    assert any("refused" in (row.last_error or "").lower() for row in waiting)

    desk.mail.start()
    desk.pass_time(timedelta(hours=2))
    desk.send()

    mails = desk.mail.to(OPS)
    assert sorted(mail.subject.split()[3] for mail in mails) == [
        f"host{number}.example.test:443" for number in range(3)
    ]
    assert {row.status for row in notifications.log()} == {"sent"}


def test_a_refused_address_ends_and_the_others_are_told(desk: Desk) -> None:
    """One mistake in a list keeps nobody else from hearing."""
    desk.rules(email=["unknown@example.test", OPS])
    desk.happen(FAILED, NAME)
    done = desk.drain()

    assert (done.sent, done.failed) == (1, 1)
    assert len(desk.mail.to(OPS)) == 1
    (row,) = notifications.log(status="failed")
    assert row.recipient == "unknown@example.test"
    assert "no such mailbox" in (row.last_error or "")
    assert row.remedy


def test_a_wrong_password_is_waited_for(desk: Desk) -> None:
    """Somebody corrects it in the morning, and the night's messages are there."""
    good = desk.blocks["notifier-smtp/mail"]
    assert isinstance(good, SmtpMail)
    desk.blocks["notifier-smtp/mail"] = good.model_copy(
        update={"username": "x", "password": SecretStr("wrong-lab-password")}
    )
    desk.rules(email=[OPS])
    desk.happen(FAILED, NAME)
    assert desk.drain().postponed == 1
    desk.blocks["notifier-smtp/mail"] = good
    desk.pass_time(timedelta(hours=2))
    desk.send()

    assert len(desk.mail.to(OPS)) == 1
    assert not any("wrong-lab-password" in str(row) for row in notifications.log())


def test_quiet_hours_hold_back_all_but_what_is_critical(desk: Desk) -> None:
    """The night's failures are one message in the morning."""
    desk.rules(email=[OPS], quiet_hours={"start": "22:00", "end": "07:00", "timezone": "UTC"})
    night = datetime.combine(datetime.now(UTC).date(), time(3), UTC)
    for number in range(3):
        desk.happen(FAILED, f"host{number}.example.test:443")
    desk.happen("certrail.certificate.expired", NAME)
    desk.route(night)
    held = [row for row in notifications.log() if row.held_because]
    assert {row.due_at for row in held} == {night.replace(hour=7)}
    desk.pass_time(timedelta(0))
    with transaction() as connection:
        connection.execute(text("update notifications set due_at = due_at - interval '2 days'"))
    desk.send()

    assert sorted(mail.subject[:20] for mail in desk.mail.to(OPS)) == [
        "[Certrail] 3 events,",
        "[Certrail] Certifica",
    ]


def test_a_digest_collects(desk: Desk) -> None:
    """What can wait comes once a day, all of it, each event once."""
    desk.rules(
        email=[OPS],
        events=["automation-completed", "automation-failed"],
        digest={"events": ["automation-completed"], "at": "07:00"},
    )
    for number in range(4):
        desk.happen("certrail.request.completed", f"host{number}.example.test:443")
    desk.happen(FAILED, NAME)
    desk.drain()
    assert len(desk.mail.to(OPS)) == 1  # the failure
    desk.pass_time(timedelta(days=2))
    desk.send()

    _, digest = desk.mail.to(OPS)
    assert "4 events" in digest.subject
    assert "digest" in digest.text
    assert all(f"host{number}.example.test" in digest.text for number in range(4))


@pytest.mark.parametrize("count", [1, 12], ids=["one event", "many in one message"])
def test_a_sender_that_is_killed_is_followed_by_another(
    desk: Desk, database_url: str, tmp_path: Path, count: int
) -> None:
    """SIGKILL while the mail server has not yet said that it took the message."""
    desk.rules(email=[OPS])
    for number in range(count):
        desk.happen(FAILED, f"host{number}.example.test:443")
    desk.route()
    desk.mail.hold.set()
    log = tmp_path / "sender.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.notify.sender", str(desk.mail.port)],
            env={**os.environ, "CERTRAIL_DATABASE_URL": database_url, "CERTRAIL_SEND_SECONDS": "2"},
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            preexec_fn=die_with_parent,
        )
    wait_for(desk.mail.holding.is_set, f"a message: {log.read_text()}", within=60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    desk.mail.hold.clear()
    (first,) = {row.message_id for row in notifications.log()}

    # Meanwhile more happens: it must not get into the message that was tried.
    desk.happen(FAILED, "later.example.test:443")
    desk.route()
    wait_for(lambda: not _waiting(desk), "everything is sent", within=60)

    mails = desk.mail.to(OPS)
    told = Counter(
        name
        for mail in mails
        for name in [*(f"host{number}." for number in range(count)), "later."]
        if f" {name}example.test:443" in mail.text
    )
    assert set(told.values()) == {1}
    assert len(told) == count + 1
    assert f"<{first}@example.test>" in [mail.mail["Message-ID"] for mail in mails]


def _waiting(desk: Desk) -> bool:
    desk.send()
    return bool(notifications.log(status="pending"))


def test_words_about_a_request_say_what_to_do(desk: Desk) -> None:
    """What a person needs at three in the morning, for an event without a request too."""
    desk.happen(
        "certrail.executor.silent",
        "sensor zürich-1",
        resource="certrail.executor.zürich-1",
        detail="no word for 6 minutes; 4 requests wait for it",
    )
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    for part in (mail.text, mail.html):
        assert "certrail doctor" in part
        assert "4 requests wait for it" in part
        assert "Start it again" in part


def test_a_job_is_told_in_one_message_with_its_sums(desk: Desk) -> None:
    """One summary of thousands of endpoints, and what to type next."""
    about = {"resource": "certrail.job.spring", "job_name": "spring"}
    desk.happen("certrail.job.started", "spring", counts={"total": 8, "pending": 8}, **about)
    desk.happen(
        "certrail.job.failed",
        "spring",
        counts={"total": 8, "successful": 5, "failed": 3},
        message="stopped: 3 of 8 failed",
        **about,
    )
    desk.drain()

    (mail,) = desk.mail.to(OPS)
    assert mail.subject.startswith("[Certrail] Bulk automation job failed: spring")
    for part in (mail.text, mail.html):
        assert "stopped: 3 of 8 failed" in part
        assert all(sum_ in part for sum_ in ("total: 8", "successful: 5", "failed: 3"))
        assert "certrail job show spring" in part
        assert "certrail job retry spring" in part


def test_bad_rules_in_the_database_are_a_clear_error(desk: Desk) -> None:
    """An older version may have stored what this one refuses."""
    with transaction() as connection:
        notifications.keep_settings(connection, {"nonsense": True})
    desk.happen(FAILED, NAME)
    with pytest.raises(InvalidRequest, match="rules cannot be used"):
        drain.route(datetime.now(UTC))
    desk.rules(email=[OPS])
    desk.drain()
    assert len(desk.mail.to(OPS)) == 1
