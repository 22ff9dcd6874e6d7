"""Keys that are made where they stay, with the real openssl of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.model import Bundle, KeyAlgorithm, SubjectSpec
from certrail.remote.local import LocalHost
from certrail.servers.key_file import KeyFile
from certrail.servers.registry import must_keep_keys
from certrail.servers.versions import Form, Versions
from certrail.x509.csr import read_csr
from tests.support.nginx import TestCa

CA = TestCa()
HOST = LocalHost("here")
LONG = "a" * 60 + ".example.test"


@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.RSA_2048]
)
def test_the_csr_is_what_was_asked_for(tmp_path: Path, algorithm: KeyAlgorithm) -> None:
    """The CA reads names and key from nothing else."""
    names = ("www.example.test", "*.example.test", "192.0.2.7", "2001:db8::1")

    csr = Versions(HOST, str(tmp_path)).make_csr(SubjectSpec(names, algorithm), "r-1")

    found = read_csr(csr)
    assert set(names) == set(found.names)
    assert found.common_name == "www.example.test"
    assert found.algorithm is algorithm
    assert found.signature_valid


def test_names_too_long_for_a_common_name(tmp_path: Path) -> None:
    """The alternative names are critical then (RFC 5280 section 4.2.1.6)."""
    csr = Versions(HOST, str(tmp_path)).make_csr(SubjectSpec((LONG,)), "r-1")

    assert read_csr(csr).common_name == ""
    extension = csr.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert extension.critical


def test_the_same_reference_has_the_same_key(tmp_path: Path) -> None:
    """A run that was killed after it must not make another; what it left half done goes."""
    versions = Versions(HOST, str(tmp_path), key_file=KeyFile(0o640))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "r-1.pem.new").write_text("-----BEGIN")

    first = versions.make_csr(SubjectSpec(("a.test",)), "r-1")
    again = versions.make_csr(SubjectSpec(("a.test", "b.test")), "r-1")
    other = versions.make_csr(SubjectSpec(("a.test",)), "r-2")

    assert first.public_key_der() == again.public_key_der() != other.public_key_der()
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["r-1.pem", "r-2.pem"]
    assert (tmp_path / "keys" / "r-1.pem").stat().st_mode & 0o7777 == 0o640


def test_versions_link_to_their_keys_and_take_them_along(tmp_path: Path) -> None:
    """A key goes with the last version that uses it, and not before."""
    versions = Versions(HOST, str(tmp_path / "a.test"))
    used = []
    for number in range(4):
        csr = versions.make_csr(SubjectSpec(("a.test",)), f"r-{number}")
        used.append(versions.stage(Bundle(CA.signed(csr, "a.test"), None)))
        versions.switch(versions.target(used[-1]))
        versions.remember(used[-1])
    waiting = versions.make_csr(SubjectSpec(("a.test",)), "r-9")

    versions.must_be_whole(used[-1])
    assert used[:2] == versions.prune(1)

    keys = tmp_path / "a.test" / "keys"
    assert sorted(path.name for path in keys.iterdir()) == ["r-2.pem", "r-3.pem", "r-9.pem"]
    assert Path(versions.live_key).resolve() == keys / "r-3.pem"
    assert versions.stage(Bundle(CA.signed(waiting, "a.test"), None))


def test_a_certificate_without_key_there_is_refused(tmp_path: Path) -> None:
    """It was made on another machine, or somebody removed it; nothing stays behind."""
    versions = Versions(HOST, str(tmp_path / "a.test"))
    chain = CA.bundle("a.test").chain

    with pytest.raises(KeyUnavailable, match="is not in"):
        versions.stage(Bundle(chain, None))

    assert not (tmp_path / "a.test").exists()
    with pytest.raises(InvalidRequest, match="from one file"):
        Versions(HOST, str(tmp_path), form=Form.CHAIN_FIRST).make_csr(SubjectSpec(("a.test",)), "r")
    with pytest.raises(InvalidRequest, match="not a reference"):
        versions.make_csr(SubjectSpec(("a.test",)), "../x")


@pytest.mark.parametrize(
    ("server", "stays"),
    [
        ({"kind": "nginx"}, True),
        ({"kind": "apache"}, True),
        ({"kind": "dovecot"}, True),
        ({"kind": "command"}, True),
        ({"kind": "command", "combined": True}, False),
        ({"kind": "haproxy"}, False),
        ({"kind": "postfix"}, False),
    ],
)
def test_where_keys_can_stay(server: dict[str, object], stays: bool) -> None:
    """What is one file is read back to see what is served, key and all."""
    if stays:
        must_keep_keys(server)
        return
    with pytest.raises(InvalidRequest, match="cannot stay on the host") as caught:
        must_keep_keys(server)
    assert "store" in caught.value.remedy
