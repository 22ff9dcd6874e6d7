"""What every target does when the other side is not there, stalls, babbles or throttles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from blocks._base import TargetBlock
from certrail.errors import CertrailError, ConnectorError, Throttled, UnexpectedReply, Unreachable
from tests.support.process import free_port
from tests.support.scripted import http_reply, scripted
from tests.support.targets import DEVICES, TARGETS, WRONG, Target

# Not HTTP: HAProxy's socket and Redis's protocol, whose faults are in tests of their own.
OTHER_PROTOCOLS = {"target-haproxy", "target-redis"}
CUT = http_reply(200, {"Content-Length": "500"}, b"{")
HTML = b"<html><body>It works!</body></html>"
LATER = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(
    ("reply", "stall", "error"),
    [
        pytest.param(b"", False, Unreachable, id="closed"),
        pytest.param(
            http_reply(200, {"Content-Length": "500"}, b"{"), False, Unreachable, id="cut"
        ),
        pytest.param(b"", True, Unreachable, id="stall"),
        pytest.param(http_reply(429, {"Retry-After": "7"}), False, Throttled, id="429 seconds"),
        pytest.param(http_reply(429, {"Retry-After": LATER}), False, Throttled, id="429 date"),
        pytest.param(http_reply(502, {}, HTML), False, Unreachable, id="proxy"),
        pytest.param(http_reply(200, {}, HTML), False, UnexpectedReply, id="web site"),
        pytest.param(http_reply(200, {}, b"[]"), False, UnexpectedReply, id="other JSON"),
        pytest.param(http_reply(200, {}, b'"x"'), False, UnexpectedReply, id="text"),
        pytest.param(
            http_reply(301, {"Location": "https://elsewhere.test/"}),
            False,
            UnexpectedReply,
            id="redirect",
        ),
    ],
)
def test_faults(target: Target, reply: bytes, stall: bool, error: type[ConnectorError]) -> None:
    """Whatever is at the address, the answer is one of ours, in time, and tells no secret."""
    with (
        scripted(reply, stall=stall) as server,
        target.at(f"http://127.0.0.1:{server.port}") as one,
        pytest.raises(error) as caught,
    ):
        one.check()

    assert caught.value.remedy
    assert WRONG not in f"{caught.value} {caught.value.remedy}"
    if isinstance(caught.value, Throttled):
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= timedelta(seconds=7)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_nothing_listens(target: Target) -> None:
    """Unreachable, and worth a retry."""
    with target.at(f"http://127.0.0.1:{free_port()}") as one, pytest.raises(Unreachable) as caught:
        one.check()

    assert caught.value.retryable


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_the_right_password(target: Target) -> None:
    """One line for people."""
    assert target.device
    with target.device().running() as device, target.opener(device)() as (one, _):
        line = one.check()

    assert line
    assert line.isprintable()


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_a_wrong_password(target: Target) -> None:
    """Not worth a retry: accounts get locked."""
    assert target.device
    assert target.to
    with (
        target.device().running() as device,
        target.to(device, WRONG, device.roots) as one,
        pytest.raises(CertrailError) as caught,
    ):
        one.check()

    assert type(caught.value).__name__ == "AuthenticationFailed"
    assert not caught.value.retryable
    assert WRONG not in str(caught.value)


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_an_unknown_certificate(target: Target) -> None:
    """The password never goes to a device that cannot prove who it is."""
    assert target.device
    assert target.to
    with (
        target.device().running() as device,
        target.to(device, None, "") as one,
        pytest.raises(Unreachable) as caught,
    ):
        one.check()

    assert "ca_bundle" in caught.value.remedy
    assert device.calls == []


def test_every_install_target_has_its_faults() -> None:
    """A target that is left out here would be one whose faults nobody tries."""
    slugs = {block.get_block_type_slug() for block in TargetBlock.vendors()}
    assert slugs == {target.slug for target in TARGETS} | OTHER_PROTOCOLS
