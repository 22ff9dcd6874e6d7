"""What every notifier promises. A new notifier adds a case, not a test."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import ValidationError

from blocks._base import NotifierBlock
from blocks.notifiers.smtp import SmtpMail
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    ConnectorError,
    InvalidRequest,
    Rejected,
    Throttled,
    Unreachable,
)
from certrail.events import Severity
from certrail.message import Message
from tests.contract.notifier_cases import CASES, GAPS, Case, World
from tests.support.mail_server import mail_server
from tests.support.process import free_port
from tests.support.scripted import http_reply, scripted

NAME = "Zürich – 東京 “x” <b>&amp; 😀"


def message(recipient: str, *, id_: str = "0b1c", subject: str = f"Failed: {NAME}") -> Message:
    return Message(
        id=id_,
        recipient=recipient,
        subject=subject,
        text=f"What: {NAME}\nA line that is longer than seventy-eight characters: {'x' * 1200}\n"
        f".\n.. dots at the beginning of lines\nFrom here",
        html="<p>What: <b>Zürich – 東京</b></p>",
        severity=Severity.ERROR,
        thread="request-1",
        events=({"id": id_, "event": "certrail.request.failed", "detail": NAME},),
    )


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def world(case: Case) -> Iterator[World]:
    with case.world() as world:
        yield world


def test_what_is_sent_arrives_once_and_whole(case: Case, world: World) -> None:
    """Names of people and places are not ASCII, and lines can be long."""
    with world.block.connect() as notifier:
        answer = notifier.send(message(world.recipient))

    assert answer
    (told,) = world.told()
    assert told.subject == f"Failed: {NAME}"
    assert NAME in told.text
    assert ("html" in case.lacks) or "東京" in told.html


@pytest.mark.needs("identity")
def test_the_id_is_the_same_at_each_attempt(case: Case, world: World) -> None:
    """A receiver can tell a repetition from another message."""
    with world.block.connect() as notifier:
        notifier.send(message(world.recipient, id_="one-7"))
        notifier.send(message(world.recipient, id_="one-7"))

    assert [told.id for told in world.told()] == ["one-7", "one-7"]


def test_a_check_sends_nothing(world: World) -> None:
    """`certrail connector check` may run every hour."""
    with world.block.connect() as notifier:
        assert notifier.check()

    assert world.told() == []


@pytest.mark.needs("credential")
def test_a_wrong_credential_is_called_that(case: Case, world: World) -> None:
    """Operators act on the error's type, so a refusal may not look like an outage."""
    with world.intruder.connect() as notifier, pytest.raises(AuthenticationFailed) as caught:
        notifier.send(message(world.recipient))

    assert not caught.value.retryable
    assert_silent_about(world, caught.value)


def test_a_lasting_refusal_is_not_tried_again(world: World) -> None:
    """An address that does not exist will not exist in an hour."""
    recipient = world.refuse(for_ever=True)
    with world.block.connect() as notifier, pytest.raises(Rejected) as caught:
        notifier.send(message(recipient))

    assert not caught.value.retryable
    assert caught.value.remedy
    assert world.told() == []


def test_a_passing_refusal_is_tried_again(world: World) -> None:
    """Greylisting and maintenance pass."""
    recipient = world.refuse(for_ever=False)
    with world.block.connect() as notifier, pytest.raises(ConnectorError) as caught:
        notifier.send(message(recipient))

    assert caught.value.retryable
    assert world.told() == []


def test_nobody_there_is_unreachable(world: World) -> None:
    """And can be tried again."""
    with world.at(free_port()).connect() as notifier, pytest.raises(Unreachable) as caught:
        notifier.send(message(world.recipient))

    assert_silent_about(world, caught.value)


def test_a_stalled_server_does_not_hold_us(world: World) -> None:
    """Others wait for their messages."""
    with (
        scripted(b"", stall=True) as server,
        world.at(server.port).connect() as notifier,
        pytest.raises(Unreachable) as caught,
    ):
        notifier.send(message(world.recipient))

    assert caught.value.retryable
    assert_silent_about(world, caught.value)


def test_a_cut_connection_is_unreachable(world: World) -> None:
    """The other side restarts."""
    with (
        scripted(b"") as server,
        world.at(server.port).connect() as notifier,
        pytest.raises(Unreachable) as caught,
    ):
        notifier.send(message(world.recipient))

    assert caught.value.retryable


@pytest.mark.needs("throttling")
def test_throttling_carries_the_wait(case: Case, world: World) -> None:
    """In seconds or as a date: the message waits as long, and others go before it."""
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    for wait, least in (("7", timedelta(seconds=7)), (later, timedelta(minutes=20))):
        with (
            scripted(http_reply(429, {"Retry-After": wait})) as server,
            world.at(server.port).connect() as notifier,
            pytest.raises(Throttled) as caught,
        ):
            notifier.send(message(world.recipient))

        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= least


def test_another_kind_of_server_is_a_clear_error(case: Case, world: World) -> None:
    """A wrong port is a common mistake; it must not look like success."""
    with (
        scripted(case.nonsense) as server,
        world.at(server.port).connect() as notifier,
        pytest.raises(ConnectorError) as caught,
    ):
        notifier.send(message(world.recipient))

    assert caught.value.remedy


def test_line_breaks_in_a_subject_make_no_header(world: World) -> None:
    """A location or a remote's words may hold anything."""
    with world.block.connect() as notifier:
        notifier.send(message(world.recipient, subject="x\r\nBcc: victim@example.test\r\n\r\nhi"))

    (told,) = world.told()
    assert "Bcc" in told.subject


def test_secrets_are_in_no_log(case: Case, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Neither ours nor the library's."""
    caplog.set_level(logging.DEBUG)
    with world.block.connect() as notifier:
        notifier.check()
        notifier.send(message(world.recipient))
    assert not any(secret in caplog.text for secret in world.secrets)
    assert not any(secret in repr(world.block) for secret in world.secrets)


def test_unknown_settings_are_refused(case: Case, world: World) -> None:
    """A typo must not be silent."""
    with pytest.raises(ValidationError, match="unknown field"):
        type(world.block)(**world.block.model_dump(), hots="x")


def test_every_notifier_is_under_contract() -> None:
    """A block without a case would be a connector nobody tests."""
    assert NotifierBlock.vendors() == {case.block for case in CASES}
    assert all(case.lacks <= GAPS for case in CASES)


def test_mail_never_goes_out_in_the_clear_when_starttls_was_asked_for() -> None:
    """Somebody between could remove the offer."""
    with mail_server("none") as server:
        block = SmtpMail(host="127.0.0.1", port=server.port, sender="certrail@example.test")
        with block.connect() as notifier, pytest.raises(Rejected, match="STARTTLS"):
            notifier.send(message("ops@example.test"))
        assert server.received == []


def test_a_certificate_of_somebody_else_is_refused() -> None:
    """TLS without verification protects from nobody."""
    with mail_server("tls") as server:
        block = SmtpMail(
            host="127.0.0.1", port=server.port, security="tls", sender="certrail@example.test"
        )
        with block.connect() as notifier, pytest.raises(Unreachable, match="not trusted"):
            notifier.send(message("ops@example.test"))


def test_a_password_is_never_sent_over_a_network_in_the_clear() -> None:
    """Only this machine itself may be spoken to without encryption."""
    block = SmtpMail(
        host="mail.example.test",
        security="none",
        username="me",
        password="secret",
        sender="certrail@example.test",
    )
    with pytest.raises(InvalidRequest, match="in the clear"), block.connect():
        pass


def test_international_addresses_are_written_to() -> None:
    """RFC 6531, where the server offers it."""
    with mail_server("none") as server:
        block = SmtpMail(
            host="127.0.0.1", port=server.port, security="none", sender="certrail@example.test"
        )
        with block.connect() as notifier:
            notifier.send(message("müller@example.test"))
        assert server.to("müller@example.test")


def assert_silent_about(world: World, error: CertrailError) -> None:
    told = "".join(traceback.format_exception(error)) + error.remedy
    assert not any(secret in told for secret in world.secrets)
