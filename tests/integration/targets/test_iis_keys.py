"""Keys that the machine of an IIS makes itself (on an imitation of its documented commands)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography import x509
from pydantic import SecretStr, ValidationError

from blocks.targets.iis import Iis, KeyOnIisTarget
from blocks.targets.iis.certreq import inf
from certrail.errors import InvalidRequest, Rejected, Unreachable
from certrail.model import Bundle, Csr, KeyAlgorithm, Site, SubjectSpec
from tests.support import certreq
from tests.support.device import SITE
from tests.support.iis_api import BINDING, TEMP, IisServer
from tests.support.winrm_service import PASSWORD, USER

PLACE = Site(BINDING)
EC = SubjectSpec((SITE, f"*.{SITE}"), KeyAlgorithm.ECDSA_P256)


@pytest.fixture
def device() -> Iterator[IisServer]:
    """A machine with IIS."""
    with IisServer().running() as one:
        yield one


@contextmanager
def own_key(device: IisServer) -> Iterator[KeyOnIisTarget]:
    """Open the block as a worker would."""
    block = Iis(
        url=device.url,
        auth="basic",
        username=USER,
        password=SecretStr(PASSWORD),
        ca_bundle=device.roots,
        store="My",
        key_on_device=True,
    )
    with block.connect() as opened:
        assert isinstance(opened, KeyOnIisTarget)
        yield opened


def answered(device: IisServer, csr: Csr) -> Bundle:
    """Return the certificate that the CA makes of a request."""
    return Bundle(device.ca.signed(csr, *EC.names), None)


def test_its_own_key_is_made_once_and_never_leaves(device: IisServer) -> None:
    """A step that ran twice gets the same request; what is replaced goes with its key."""
    with own_key(device) as one:
        first, again = one.generate_csr(PLACE, EC), one.generate_csr(PLACE, EC)
        staged = one.stage(PLACE, answered(device, first), None)
        one.activate(staged)
        one.discard(staged)
        second = one.generate_csr(PLACE, EC)
        one.activate(renewed := one.stage(PLACE, answered(device, second), None))
        one.discard(renewed)

    assert (first, device.made) == (again, 2)
    assert second.public_key_der() != first.public_key_der()
    assert device.served() == renewed.fingerprint
    ours = [each for each in device.stores["My"].values() if each.friendly_name != "www 2025"]
    assert [each.thumbprint for each in ours] == [renewed.data["new"]["thumbprint"]]
    assert not ours[0].exportable
    assert (device.stores["REQUEST"], device.files) == ({}, {})
    commands = {step.name for steps in device.pipelines for step in steps}
    assert not [name for name in commands if "Pfx" in name]


@pytest.mark.parametrize(
    ("algorithm", "size"), [(KeyAlgorithm.RSA_2048, 2048), (KeyAlgorithm.ECDSA_P384, 384)]
)
def test_what_the_request_says(device: IisServer, algorithm: KeyAlgorithm, size: int) -> None:
    """Names, kind of key and use as ordered; nothing of the machine and the account."""
    names = ("x" * 63 + "." + SITE, SITE)
    with own_key(device) as one:
        csr = one.generate_csr(PLACE, SubjectSpec(names, algorithm)).parsed

    asked = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert asked.get_values_for_type(x509.DNSName) == list(names)
    assert csr.subject.rfc4514_string() == f"CN={SITE}"
    assert getattr(csr.public_key(), "key_size", 0) == size
    assert list(csr.attributes) == [
        each for each in csr.attributes if each.oid.dotted_string == "1.2.840.113549.1.9.14"
    ]


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (SubjectSpec((SITE, "192.0.2.1")), "IP addresses"),
        (SubjectSpec((SITE,), attributes={"O": "Example"}), "more in its subject"),
        (SubjectSpec(("x" * 63 + "." + SITE,)), "at most 64 characters"),
    ],
)
def test_a_request_that_it_cannot_write(device: IisServer, subject: SubjectSpec, told: str) -> None:
    """Refused before the machine makes anything."""
    before = device.snapshot()
    with own_key(device) as one, pytest.raises(InvalidRequest, match=told) as caught:
        one.generate_csr(PLACE, subject)

    assert caught.value.remedy
    assert before == device.snapshot()


def test_what_was_given_up_goes(device: IisServer) -> None:
    """A request for other names, and a certificate that never got live: no key lies around."""
    other = SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P256)
    with own_key(device) as one:
        one.generate_csr(PLACE, EC)
        csr = one.generate_csr(PLACE, other)
        assert len(device.stores["REQUEST"]) == 1
        staged = one.stage(PLACE, Bundle(device.ca.signed(csr, SITE), None), None)
        one.discard(staged)
        assert staged.data["new"]["thumbprint"] in device.stores["My"]
        one.generate_csr(PLACE, EC)

    assert staged.data["new"]["thumbprint"] not in device.stores["My"]
    assert len(device.stores["My"]) == 1
    assert len(device.stores["REQUEST"]) == 1


def test_a_retry_installs_what_was_taken_back(device: IisServer) -> None:
    """The key is nowhere else: an installation that failed is done again without an order."""
    with own_key(device) as one:
        bundle = answered(device, one.generate_csr(PLACE, EC))
        staged = one.stage(PLACE, bundle, None)
        one.activate(staged)
        one.restore(staged)
        one.discard(staged)
        assert device.served() == device.old.chain.fingerprint
        one.activate(one.stage(PLACE, bundle, None))

    assert device.served() == bundle.chain.fingerprint


@pytest.mark.parametrize("call", [1, 2])
def test_an_answer_that_was_lost(device: IisServer, call: int) -> None:
    """What certreq did is found again: one key, one certificate."""
    with own_key(device) as one:
        if call == 1:
            device.fault("POST", "#Command certreq.exe", cut=True, after=True)
            with pytest.raises(Unreachable):
                one.generate_csr(PLACE, EC)
        bundle = answered(device, one.generate_csr(PLACE, EC))
        if call == 2:
            device.fault("POST", "#Command certreq.exe", cut=True, after=True)
            with pytest.raises(Unreachable):
                one.stage(PLACE, bundle, None)
        one.activate(one.stage(PLACE, bundle, None))

    assert device.served() == bundle.chain.fingerprint
    assert device.made == 1
    assert (device.stores["REQUEST"], device.files) == ({}, {})


def test_a_certificate_for_a_key_that_is_gone(device: IisServer) -> None:
    """Somebody cleaned up meanwhile: said before anything is uploaded."""
    with own_key(device) as one:
        bundle = answered(device, one.generate_csr(PLACE, EC))
        device.stores["REQUEST"].clear()
        before = device.snapshot()
        with pytest.raises(InvalidRequest, match="no longer has the key") as caught:
            one.stage(PLACE, bundle, None)
        with pytest.raises(InvalidRequest, match="has another one"):
            one.stage(PLACE, device.ca.bundle(SITE), None)
        assert before == device.snapshot()
        assert one.generate_csr(PLACE, EC).public_key_der() != bundle.chain.public_key_der()

    assert "reissue" in caught.value.remedy


def test_a_root_that_windows_does_not_trust(device: IisServer) -> None:
    """It joins no such certificate with a key; once the root is there, the same one is taken."""
    roots = dict(device.stores["Root"])
    device.stores["Root"].clear()
    with own_key(device) as one:
        bundle = answered(device, one.generate_csr(PLACE, EC))
        with pytest.raises(Rejected, match="not trusted") as caught:
            one.stage(PLACE, bundle, None)
        device.stores["Root"] |= roots
        one.activate(one.stage(PLACE, bundle, None))

    assert "Trusted Root" in caught.value.remedy
    assert caught.value.code == "0x800B0109"
    assert device.served() == bundle.chain.fingerprint


def test_what_certreq_refuses(device: IisServer) -> None:
    """The imitation is as strict as the reference: unknown keys, no subject, nothing that waits."""
    good = inf("certrail_x", [SITE], KeyAlgorithm.ECDSA_P256)
    assert certreq.new(good).friendly_name == "certrail_x"
    for bad in (
        good.replace("Silent = TRUE", "Silent = TRUE\r\nSilence = TRUE"),
        good.replace(f'Subject = "CN={SITE}"\r\n', ""),
        good.replace("DNS=", "IP Address="),
    ):
        with pytest.raises(certreq.Refused):
            certreq.new(bad)
    with own_key(device) as one:
        leaf = device.ca.bundle(SITE).chain.leaf
        with pytest.raises(Rejected, match="Cannot find") as caught:
            one._certreq.accept("certrail_x", leaf)
        one._certreq.sweep("certrail_x")
        device.files[f"{TEMP}\\certrail_y.req"] = b"half"
        assert one._certreq.waiting("certrail_y") is None

    assert caught.value.code == "0x80092004"


def test_settings_that_cannot_be() -> None:
    """Told when they are written down, not when they are used."""
    with pytest.raises(ValidationError, match="store: My"):
        Iis(url="https://web1.example.test", key_on_device=True)
    with pytest.raises(ValidationError, match="never exportable"):
        Iis(url="https://web1.example.test", key_on_device=True, store="My", exportable=True)
