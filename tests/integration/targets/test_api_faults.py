"""What every target does when the other side is not there, stalls, babbles or throttles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from blocks.targets.a10 import A10Target, AxapiSession
from blocks.targets.bigip import BigIpTarget, Session
from blocks.targets.caddy import CaddyTarget
from blocks.targets.netscaler import NetScalerTarget, nitro_client
from certrail.connectors import InstallTarget
from certrail.errors import CertrailError, ConnectorError, Throttled, UnexpectedReply, Unreachable
from certrail.remote import http
from tests.support import a10_api, bigip_api, netscaler_api
from tests.support.a10_api import A10
from tests.support.bigip_api import BigIp
from tests.support.device import Device
from tests.support.netscaler_api import NetScaler
from tests.support.process import free_port
from tests.support.scripted import http_reply, scripted

PASSWORD = "correct-horse-battery"
SHORT = timedelta(seconds=0.4)
Open = Callable[[str], AbstractContextManager[InstallTarget]]


@contextmanager
def caddy(url: str) -> Iterator[InstallTarget]:
    """Open Caddy's admin API."""
    with http.client(url, timeout=SHORT) as client:
        yield CaddyTarget(client, "target")


@contextmanager
def bigip(url: str) -> Iterator[InstallTarget]:
    """Open iControl REST."""
    with http.client(url, timeout=SHORT) as client:
        yield BigIpTarget(Session(client, "target", "certrail", PASSWORD))


@contextmanager
def netscaler(url: str) -> Iterator[InstallTarget]:
    """Open NITRO."""
    with nitro_client(url, "certrail", PASSWORD, timeout=SHORT) as client:
        yield NetScalerTarget(client, "target")


@contextmanager
def a10(url: str) -> Iterator[InstallTarget]:
    """Open aXAPI."""
    with http.client(url, timeout=SHORT) as client:
        yield A10Target(AxapiSession(client, "target", "certrail", PASSWORD))


TARGETS = [caddy, bigip, netscaler, a10]
CUT = http_reply(200, {"Content-Length": "500"}, b"{")
HTML = b"<html><body>It works!</body></html>"
LATER = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
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
def test_faults(target: Open, reply: bytes, stall: bool, error: type[ConnectorError]) -> None:
    """Whatever is at the address, the answer is one of ours, in time, and tells no secret."""
    with (
        scripted(reply, stall=stall) as server,
        target(f"http://127.0.0.1:{server.port}") as one,
        pytest.raises(error) as caught,
    ):
        one.check()

    assert caught.value.remedy
    assert PASSWORD not in f"{caught.value} {caught.value.remedy}"
    if isinstance(caught.value, Throttled):
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= timedelta(seconds=7)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_nothing_listens(target: Open) -> None:
    """Unreachable, and worth a retry."""
    with target(f"http://127.0.0.1:{free_port()}") as one, pytest.raises(Unreachable) as caught:
        one.check()

    assert caught.value.retryable


@contextmanager
def open_bigip(device: Device, password: str, ca: str) -> Iterator[InstallTarget]:
    """Open the fake as it is meant to be."""
    with http.client(device.url, ca_bundle=ca) as client:
        yield BigIpTarget(Session(client, "target", bigip_api.USER, password))


@contextmanager
def open_netscaler(device: Device, password: str, ca: str) -> Iterator[InstallTarget]:
    """Open the fake as it is meant to be."""
    with nitro_client(device.url, netscaler_api.USER, password, ca_bundle=ca) as client:
        yield NetScalerTarget(client, "target")


@contextmanager
def open_a10(device: Device, password: str, ca: str) -> Iterator[InstallTarget]:
    """Open the fake as it is meant to be."""
    with http.client(device.url, ca_bundle=ca) as client:
        yield A10Target(AxapiSession(client, "target", a10_api.USER, password))


DEVICES = [
    pytest.param(BigIp, open_bigip, bigip_api.PASSWORD, id="bigip"),
    pytest.param(NetScaler, open_netscaler, netscaler_api.PASSWORD, id="netscaler"),
    pytest.param(A10, open_a10, a10_api.PASSWORD, id="a10"),
]
OpenDevice = Callable[[Device, str, str], AbstractContextManager[InstallTarget]]


@pytest.mark.parametrize(("kind", "opened", "password"), DEVICES)
def test_the_right_password(kind: type[Device], opened: OpenDevice, password: str) -> None:
    """One line for people."""
    with kind().running() as device, opened(device, password, device.roots) as one:
        line = one.check()

    assert line
    assert password not in line


@pytest.mark.parametrize(("kind", "opened", "password"), DEVICES)
def test_a_wrong_password(kind: type[Device], opened: OpenDevice, password: str) -> None:
    """Not worth a retry: accounts get locked."""
    with (
        kind().running() as device,
        opened(device, "hunter2-hunter2", device.roots) as one,
        pytest.raises(CertrailError) as caught,
    ):
        one.check()

    assert type(caught.value).__name__ == "AuthenticationFailed"
    assert not caught.value.retryable
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("kind", "opened", "password"), DEVICES)
def test_an_unknown_certificate(kind: type[Device], opened: OpenDevice, password: str) -> None:
    """The password never goes to a device that cannot prove who it is."""
    with (
        kind().running() as device,
        opened(device, password, "") as one,
        pytest.raises(Unreachable) as caught,
    ):
        one.check()

    assert "ca_bundle" in caught.value.remedy
    assert device.calls == []
