"""What IIS can do to an installation, on an imitation of its machine."""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from psrpcore.types import PSSecureString
from pydantic import SecretStr, ValidationError

from blocks.targets import iis
from blocks.targets.iis import Iis, IisTarget, remoting
from blocks.targets.iis.bindings import find
from blocks.targets.iis.remoting import cmdlet
from certrail.connectors import InstallTarget
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Unreachable,
)
from certrail.model import Fingerprint, Site
from certrail.x509.export import Format
from tests.support import winrm_service
from tests.support.device import SITE
from tests.support.iis_api import BINDING, TEMP, WEB_SITE, IisServer, Stored, WebBinding
from tests.support.scripted import http_reply, scripted
from tests.support.winrm_service import PASSWORD, USER

PLACE = Site(BINDING)
# Four thousand million characters in four lines.
BOMB = "<!DOCTYPE s [" + "".join(
    f"<!ENTITY e{n} '{f'&e{n - 1};' * 100 if n else 'x' * 100}'>" for n in range(5)
)
SHOP = "shop.example.test"


@pytest.fixture
def device() -> Iterator[IisServer]:
    """A machine with IIS."""
    with IisServer().running() as one:
        yield one


@contextmanager
def opened(device: IisServer, **more: Any) -> Iterator[IisTarget]:
    """Open it as another process would."""
    with remoting(
        device.url, USER, PASSWORD, auth="basic", ca_bundle=device.roots, label="web1"
    ) as session:
        yield IisTarget(session, **more)


def block(device: IisServer, **more: Any) -> Iis:
    """Return the settings as they are stored."""
    return Iis(
        url=device.url,
        auth="basic",
        username=USER,
        password=SecretStr(PASSWORD),
        ca_bundle=device.roots,
        **more,
    )


def seen(device: IisServer, name: str) -> Fingerprint:
    """Return what a client that asks for *name* gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", device.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return Fingerprint(hashlib.sha256(der).hexdigest())


def add_site(device: IisServer, site: str, information: str, flags: int, *names: str) -> WebBinding:
    """Add a web site with a certificate of its own, or of the address where that has one."""
    bundle = device.ca.bundle(*names)
    assert bundle.key is not None
    der = bundle.chain.leaf.public_bytes(Encoding.DER)
    stored = Stored(der, bundle.key.reveal(), "theirs")
    device.stores["My"][stored.thumbprint] = stored
    one = WebBinding(site, information, flags)
    device.bindings.append(one)
    device.http_sys.setdefault(one.place, (stored.thumbprint, "My"))
    return one


def installed(device: IisServer, target: InstallTarget, site: Site = PLACE) -> Any:
    """Install a fresh certificate and end the request."""
    staged = target.stage(site, device.ca.bundle(SITE), None)
    target.activate(staged)
    target.discard(staged)
    return staged


def test_the_block_opens_it_and_leaves_no_session(device: IisServer) -> None:
    """An account may have few of them."""
    with block(device).connect() as one:
        assert one.check() == "IIS Version 10.0, 1 https binding"
        assert one.lock_name == "iis localhost"
        assert len(device.shells) == 1

    assert device.shells == {}


def test_nothing_is_a_script_and_no_secret_is_a_text(device: IisServer) -> None:
    """What PowerShell logs are names of commands and values of parameters."""
    with opened(device) as one:
        staged = installed(device, one)

    stored = device.stores["WebHosting"][staged.data["new"]["thumbprint"]]
    assert not stored.exportable
    assert stored.friendly_name == staged.data["name"]
    assert stored.key is not None
    values = [(n, v) for steps in device.pipelines for s in steps for n, v in s.parameters]
    passwords = [value for name, value in values if name == "Password"]
    assert [type(one) for one in passwords] == [PSSecureString]
    password = str(passwords[0].decrypt())
    assert len(password) > 40
    assert not [value for _, value in values if password in repr(value)]
    assert not [value for _, value in values if isinstance(value, bytes) and b"PRIVATE" in value]
    assert device.files == {}


def test_options_of_the_import(device: IisServer) -> None:
    """Another store, a key that can be taken out, and what Server 2016 reads."""
    more = {"store": "My", "exportable": True, "form": Format.PKCS12_LEGACY}
    with opened(device, **more) as one:
        staged = installed(device, one)

    assert device.stores["My"][staged.data["new"]["thumbprint"]].exportable
    assert device.stores["WebHosting"] == {}
    assert device.served() == staged.fingerprint


def test_missing_intermediates_are_added(device: IisServer) -> None:
    """Windows sends the chain that it can build, and knows no other."""
    device.stores["CA"].clear()
    with opened(device) as one:
        staged = installed(device, one)

    assert device.served() == staged.fingerprint
    assert device.live()[0].count("BEGIN CERTIFICATE") == 2
    assert device.files == {}


def test_who_is_no_administrator(device: IisServer) -> None:
    """The remedy names the group, and what takes the right from local accounts."""
    device.right = "remote management"
    with opened(device) as one, pytest.raises(PermissionRefused) as caught:
        one.check()

    assert "Administrators" in caught.value.remedy
    assert "LocalAccountTokenFilterPolicy" in caught.value.remedy


def test_who_may_not_even_log_on(device: IisServer) -> None:
    """WinRM refuses by a fault of its own."""
    device.right = "nothing"
    with opened(device) as one, pytest.raises(PermissionRefused, match="Access is denied"):
        one.check()


def test_a_machine_without_the_module(device: IisServer) -> None:
    """IIS is there, its commands are not; or there is no IIS."""
    device.features.clear()
    with opened(device) as one, pytest.raises(NotFound) as caught:
        one.check()

    assert "Web-Scripting-Tools" in caught.value.remedy


def test_too_many_sessions(device: IisServer) -> None:
    """Others left theirs open: worth a retry."""
    device.shells = {str(n): winrm_service.Shell("theirs") for n in range(winrm_service.MAX_SHELLS)}
    with opened(device) as one, pytest.raises(Busy) as caught:
        one.check()

    assert "MaxShellsPerUser" in caught.value.remedy


def test_a_command_or_parameter_that_is_not_there(device: IisServer) -> None:
    """As on an older machine."""
    with remoting(
        device.url, USER, PASSWORD, auth="basic", ca_bundle=device.roots, label="web1"
    ) as session:
        with pytest.raises(NotFound) as missing:
            session.run(cmdlet("Get-Nothing"))
        with pytest.raises(Rejected, match="matches parameter name 'Nothing'"):
            session.run(cmdlet("Get-Item", Nothing="x"))
        with pytest.raises(Rejected, match="Cannot bind parameter 'LiteralPath'"):
            session.run(cmdlet("Get-Item", LiteralPath=True))

    assert missing.value.code == "CommandNotFoundException"


def test_each_name_keeps_its_certificate(device: IisServer) -> None:
    """Server Name Indication: one binding is changed, the one beside it is not."""
    add_site(device, "Shop", f"*:443:{SHOP}", 1, SHOP)
    before = seen(device, SHOP)
    with opened(device) as one:
        staged = installed(device, one)
        sites = {site.id: site for site in one.sites()}

    assert seen(device, SITE) == staged.fingerprint
    assert seen(device, SHOP) == before == sites[f"Shop/*:443:{SHOP}"].fingerprint
    assert sites[BINDING].listens == ("*:443",)


def test_a_certificate_that_leaves_out_who_shares_it(device: IisServer) -> None:
    """Without Server Name Indication an address has one certificate for all."""
    device.bindings.clear()
    device.http_sys.clear()
    add_site(device, WEB_SITE, f"*:443:{SITE}", 0, SITE, SHOP)
    add_site(device, "Shop", f"*:443:{SHOP}", 0, SITE, SHOP)
    before = device.snapshot()
    with opened(device) as one:
        with pytest.raises(InvalidRequest, match="Shop") as caught:
            one.stage(PLACE, device.ca.bundle(SITE), None)
        assert before == device.snapshot()
        both = one.stage(PLACE, device.ca.bundle(SITE, SHOP), None)
        one.activate(both)

    assert "Server Name Indication" in caught.value.remedy
    assert "and with it Shop" in both.summary
    assert seen(device, SHOP) == both.fingerprint


def test_the_central_store_is_left_alone(device: IisServer) -> None:
    """Its certificates are files on a share."""
    device.bindings[0].flags = 3
    with opened(device) as one, pytest.raises(InvalidRequest) as caught:
        one.stage(PLACE, device.ca.bundle(SITE), None)

    assert "pkcs12" in caught.value.remedy


def test_how_a_site_is_named(device: IisServer) -> None:
    """Its own name where it has one binding; what is there is listed."""
    with opened(device) as one:
        assert one.serving(Site(WEB_SITE.lower())) == device.old.chain.fingerprint
        with pytest.raises(NotFound) as missing:
            one.serving(Site("typo"))
        add_site(device, WEB_SITE, f"*:8443:{SITE}", 1, SITE)
        with pytest.raises(InvalidRequest) as several:
            one.serving(Site(WEB_SITE))

    assert BINDING in missing.value.remedy
    assert "New-WebBinding" in missing.value.remedy
    assert "8443" in several.value.remedy


def test_a_binding_that_never_had_a_certificate(device: IisServer) -> None:
    """Taken back, it has none again."""
    device.http_sys.clear()
    with opened(device) as one:
        staged = one.stage(PLACE, device.ca.bundle(SITE), None)
        one.activate(staged)
        assert device.served() == staged.fingerprint

        one.restore(staged)
        one.discard(staged)

        assert one.serving(PLACE) is None
    assert device.http_sys == {}
    assert device.stores["WebHosting"] == {}


def test_ours_go_and_those_of_others_stay(device: IisServer) -> None:
    """Keys that nobody serves must not lie around; what is not ours is not ours to remove."""
    with opened(device) as one:
        for _ in range(3):
            staged = installed(device, one)

    assert list(device.stores["WebHosting"]) == [staged.data["new"]["thumbprint"]]
    assert len(device.stores["My"]) == 1


def test_one_that_something_else_serves_stays(device: IisServer) -> None:
    """Such as a gateway beside IIS, which only HTTP.sys knows of."""
    with opened(device) as one:
        first = installed(device, one)
        device.http_sys[("0.0.0.0!9443", "")] = (first.data["new"]["thumbprint"], "WebHosting")
        installed(device, one)

    assert first.data["new"]["thumbprint"] in device.stores["WebHosting"]


def test_an_import_that_was_cut_leaves_no_file(device: IisServer) -> None:
    """The key lies there encrypted, and must not stay even so."""
    bundle = device.ca.bundle(SITE)
    with opened(device) as one:
        device.fault("POST", "#Command Import-PfxCertificate", cut=True)
        with pytest.raises(Unreachable):
            one.stage(PLACE, bundle, None)
        assert device.files == {}

        device.fault("POST", "#Command Import-PfxCertificate", cut=True)
        device.fault("POST", "#Command Remove-Item", cut=True)
        with pytest.raises(Unreachable):
            one.stage(PLACE, bundle, None)
        assert [path.startswith(TEMP) for path in device.files] == [True]
        one.activate(one.stage(PLACE, bundle, None))

    assert device.files == {}
    assert device.served() == bundle.chain.fingerprint


def test_a_change_that_was_not_made_is_noticed(device: IisServer) -> None:
    """The method returns, and the binding is what it was."""
    with opened(device) as one:
        staged = one.stage(PLACE, device.ca.bundle(SITE), None)
        device.ignores_changes = True
        with pytest.raises(ActivationRefused):
            one.activate(staged)


def test_changed_in_the_moment_of_the_switch(device: IisServer) -> None:
    """The pipeline itself looks for the certificate that we saw."""
    with opened(device) as one:
        staged = one.stage(PLACE, device.ca.bundle(SITE), None)
        outdated = find(one._bindings(), BINDING, "web1")
        theirs = add_site(device, "Shop", f"*:443:{SHOP}", 1, SHOP)
        device.http_sys[device.bindings[0].place] = device.http_sys[theirs.place]
        one._point_at(outdated, staged.data["new"])
        with pytest.raises(Conflict):
            one.activate(staged)
        with pytest.raises(Conflict):
            one.restore(staged)

    assert seen(device, SITE) == seen(device, SHOP)


def test_settings_that_cannot_be(device: IisServer) -> None:
    """Told when they are written down, not when they are used."""
    with pytest.raises(ValidationError, match="needs username and password"):
        Iis(url="https://web1.example.test", auth="basic")
    with pytest.raises(ValidationError, match="needs client_certificate"):
        Iis(url="https://web1.example.test", auth="certificate")
    plain = Iis(url="http://web1.example.test:5985", username="u", password=SecretStr("p"))
    with pytest.raises(InvalidRequest, match="https"), plain.connect():
        pass
    odd = Iis(url="https://:5986", username="u", password=SecretStr("p"))
    with pytest.raises(InvalidRequest), odd.connect():
        pass


def test_without_the_library(device: IisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with an extra, which the remedy names."""
    monkeypatch.setitem(sys.modules, "blocks.targets.iis._pypsrp", None)
    monkeypatch.delattr(iis, "_pypsrp", raising=False)
    with pytest.raises(InvalidRequest) as caught, block(device).connect():
        pass

    assert "certrail[iis]" in caught.value.remedy


@pytest.mark.parametrize(
    ("body", "drip", "said"),
    [
        (f"{BOMB}]><s>&e4;</s>", None, "is not that of WinRM"),
        ("x" * (9 * 2**20), None, "longer than"),
        ("<s>" + "x" * 10_000, 0.01, "in time"),
    ],
    ids=["entities", "without end", "drop by drop"],
)
def test_a_reply_that_would_never_end_is_cut(body: str, drip: float | None, said: str) -> None:
    """Whatever claims to be WinRM: neither memory nor time runs out."""
    reply = http_reply(200, {"Content-Type": "application/soap+xml;charset=UTF-8"}, body)

    with (
        scripted(reply, drip=drip, stall=True) as server,
        remoting(
            f"http://127.0.0.1:{server.port}",
            USER,
            PASSWORD,
            auth="basic",
            label="web1",
            timeout=timedelta(seconds=2),
            grace=timedelta(0),
        ) as session,
        pytest.raises(ConnectorError, match=said),
    ):
        session.run(cmdlet("Get-Item"))
