"""The CA in a folder: what it writes, whom it lets in, what it signs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from blocks.ca.local import LocalAuthority
from certrail.ca.local import LocalCa
from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    StorageFull,
    UnexpectedReply,
)
from certrail.keys.generate import generate
from certrail.model import (
    Chain,
    Csr,
    KeyAlgorithm,
    OrderKey,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    SubjectSpec,
    subject_names,
)
from certrail.x509.csr import build_csr
from tests.support.process import die_with_parent

NAME = "www.example.test"


def block(folder: Path, **settings: Any) -> LocalAuthority:
    return LocalAuthority(ca_dir=str(folder / "ca"), **settings)


def csr_for(*names: str, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> Csr:
    return build_csr(SubjectSpec(names), generate(algorithm))


def spec(*names: str, key: str = "ref-1", profile: str = "") -> OrderSpec:
    return OrderSpec(OrderKey(key), names or (NAME,), profile=profile)


def issue(ca: LocalCa, *names: str, key: str = "ref-1", profile: str = "") -> Chain:
    order = ca.open_order(spec(*names, key=key, profile=profile))
    found = ca.collect(ca.finalize(order, csr_for(*(names or (NAME,)))))
    assert isinstance(found, Chain)
    return found


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


def test_private_keys_are_for_the_owner_alone(tmp_path: Path) -> None:
    """Whoever reads intermediate.key is the CA."""
    old = os.umask(0)
    try:
        with block(tmp_path).connect() as ca:
            issue(ca)
    finally:
        os.umask(old)

    authority = tmp_path / "ca" / "authority"
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    for path in authority.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in authority.iterdir()) == [
        "intermediate.key",
        "intermediate.pem",
        "root.key",
        "root.pem",
    ]
    assert not list((tmp_path / "ca").rglob(".*")), "leftovers"


def test_a_password_encrypts_the_keys(tmp_path: Path) -> None:
    """A backup of the folder is then no CA."""
    with block(tmp_path, key_password="hunter2").connect() as ca:
        issue(ca)

    for path in (tmp_path / "ca" / "authority").glob("*.key"):
        assert b"ENCRYPTED" in path.read_bytes()
    with block(tmp_path).connect() as ca, pytest.raises(AuthenticationFailed, match="no password"):
        ca.check()


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    """Strict checks of another implementation find what ours would overlook."""
    with block(tmp_path, permitted_names=["example.test", "10.0.0.0/8"]).connect() as ca:
        chain = issue(ca, NAME, "*.example.test", "10.1.2.3")
        root = ca.trust_anchor()
    for name, text in (("leaf", chain.pems[0]), ("sub", chain.pems[1]), ("root", root)):
        (tmp_path / f"{name}.pem").write_text(text)
    argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]
    argv += ["-verify_hostname", "any.example.test"]
    argv += ["-CAfile", "root.pem", "-untrusted", "sub.pem", "leaf.pem"]

    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_leaf_has_what_a_server_needs_and_no_more(tmp_path: Path) -> None:
    """RFC 5280: usages, identifiers, no CA, names as ordered, from now on."""
    with block(tmp_path, crl_url="http://crl.example.test/ca.crl").connect() as ca:
        chain = issue(ca)
        anchor = x509.load_pem_x509_certificate(ca.trust_anchor().encode())
    leaf, issuer = chain.certificates

    assert not extension(leaf, x509.BasicConstraints).value.ca
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = extension(leaf, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_encipherment
    assert extension(leaf, x509.SubjectKeyIdentifier).value.digest
    below = extension(leaf, x509.AuthorityKeyIdentifier).value.key_identifier
    assert below == extension(issuer, x509.SubjectKeyIdentifier).value.digest
    (point,) = extension(leaf, x509.CRLDistributionPoints).value
    assert point.full_name[0].value == "http://crl.example.test/ca.crl"
    assert extension(issuer, x509.BasicConstraints).value.path_length == 0
    assert leaf.serial_number.bit_length() > 64
    assert leaf.not_valid_before_utc >= issuer.not_valid_before_utc
    assert issuer.not_valid_after_utc < anchor.not_valid_after_utc


def test_rsa_keys_may_encrypt(tmp_path: Path) -> None:
    """RSA key exchange of TLS 1.2 needs keyEncipherment; ECDSA must not have it."""
    with block(tmp_path, client_auth=True).connect() as ca:
        order = ca.finalize(ca.open_order(spec()), csr_for(NAME, algorithm=KeyAlgorithm.RSA_2048))
        chain = ca.collect(order)
    assert isinstance(chain, Chain)

    assert extension(chain.leaf, x509.KeyUsage).value.key_encipherment
    assert ExtendedKeyUsageOID.CLIENT_AUTH in extension(chain.leaf, x509.ExtendedKeyUsage).value


@pytest.mark.parametrize(
    ("settings", "profile", "days"),
    [
        ({}, "", 90),
        ({"lifetime_days": 30}, "", 30),
        ({"profiles": {"short": 7}}, "short", 7),
        ({"lifetime_days": 90, "max_validity_days": 47}, "", 47),
        ({"profiles": {"long": 400}, "max_validity_days": 200}, "long", 200),
        ({"intermediate_lifetime_days": 10}, "", 10),
        ({"root_lifetime_days": 5}, "", 5),
    ],
    ids=str,
)
def test_the_shortest_limit_decides_the_validity(
    tmp_path: Path, settings: dict[str, Any], profile: str, days: int
) -> None:
    """A leaf that outlives its CA breaks before its renewal is due."""
    with block(tmp_path, **settings).connect() as ca:
        chain = issue(ca, profile=profile)

    left = chain.leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=days, minutes=-2) < left <= timedelta(days=days)
    assert chain.leaf.not_valid_after_utc <= chain.certificates[1].not_valid_after_utc


def test_an_unknown_profile_names_those_there_are(tmp_path: Path) -> None:
    """A typo in a profile is found before anything is ordered."""
    with (
        block(tmp_path, profiles={"short": 7}).connect() as ca,
        pytest.raises(InvalidRequest, match="short"),
    ):
        ca.open_order(spec(profile="shrot"))


@pytest.mark.parametrize(
    ("permitted", "name", "allowed"),
    [
        (["example.test"], "example.test", True),
        (["example.test"], "a.b.example.test", True),
        (["example.test"], "*.example.test", True),
        (["example.test"], "badexample.test", False),
        (["example.test"], "10.0.0.1", False),
        ([".Example.test"], "a.example.test", True),
        (["10.0.0.0/8"], "10.200.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "example.test", False),
        (["fd00::/8"], "fd12::1", True),
        ([], "anything.test", True),
    ],
)
def test_only_permitted_names_are_issued(
    tmp_path: Path, permitted: list[str], name: str, allowed: bool
) -> None:
    """An inside CA must not be able to imitate the rest of the world."""
    with block(tmp_path, permitted_names=permitted).connect() as ca:
        if allowed:
            assert subject_names(issue(ca, name).leaf) == (name,)
            return
        with pytest.raises(Rejected) as caught:
            ca.open_order(spec(name))

    assert caught.value.code == "rejectedIdentifier"
    assert name in str(caught.value)


def test_limits_of_the_making_stay(tmp_path: Path) -> None:
    """Name constraints are in the certificate: what clients would refuse is not issued."""
    with block(tmp_path, permitted_names=["example.test"]).connect() as ca:
        issue(ca)
    with block(tmp_path).connect() as ca, pytest.raises(Rejected, match="limited to"):
        ca.open_order(spec("www.other.test", key="ref-2"))


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    """Certificates of that size break handshakes."""
    with block(tmp_path).connect() as ca, pytest.raises(Rejected) as caught:
        ca.open_order(spec(*(f"n{n}.example.test" for n in range(101))))

    assert caught.value.code == "tooManyNames"


def test_weak_and_strange_keys_are_refused(tmp_path: Path) -> None:
    """The CSR may come from a device that makes what it likes."""
    with block(tmp_path).connect() as ca:
        order = ca.open_order(spec())
        for key in (
            rsa.generate_private_key(65537, 1024),
            ec.generate_private_key(ec.SECP192R1()),
            ed25519.Ed25519PrivateKey.generate(),
        ):
            digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
            built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
            pem = built.sign(key, digest).public_bytes(serialization.Encoding.PEM)
            with pytest.raises(Rejected) as caught:
                ca.finalize(order, Csr(pem.decode()))
            assert caught.value.code == "badPublicKey"
        with pytest.raises(Rejected) as caught:
            ca.finalize(order, Csr("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"))
        assert caught.value.code == "badCSR"
        assert ca.reopen(order).status is OrderStatus.READY


def test_a_csr_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    """The signature proves that whoever asks has the key."""
    good = csr_for(NAME).parsed.public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1]))
    pem = forged.public_bytes(serialization.Encoding.PEM).decode()
    with block(tmp_path).connect() as ca, pytest.raises(Rejected) as caught:
        ca.finalize(ca.open_order(spec()), Csr(pem))

    assert caught.value.code == "badCSR"


def test_only_the_key_of_the_csr_counts(tmp_path: Path) -> None:
    """Names and subject come from the order; a device may write what it likes."""
    with block(tmp_path).connect() as ca:
        order = ca.finalize(ca.open_order(spec()), csr_for("evil.other.test"))
        chain = ca.collect(order)
    assert isinstance(chain, Chain)

    assert subject_names(chain.leaf) == (NAME,)
    assert "evil" not in chain.leaf.subject.rfc4514_string()


def test_another_key_for_the_same_order_is_a_conflict(tmp_path: Path) -> None:
    """One order, one certificate: the first key has it."""
    with block(tmp_path).connect() as ca:
        order = ca.open_order(spec())
        ca.finalize(order, csr_for(NAME))

        with pytest.raises(Conflict, match="another key"):
            ca.finalize(order, csr_for(NAME))


def test_a_reference_is_for_one_set_of_names(tmp_path: Path) -> None:
    """A mixed-up reference would give somebody a certificate for other names."""
    with block(tmp_path).connect() as ca:
        first = ca.open_order(spec())
        assert ca.open_order(spec()).remote_id == first.remote_id
        with pytest.raises(Conflict):
            ca.open_order(spec("other.example.test"))


def test_processes_that_start_at_once_make_one_ca(tmp_path: Path) -> None:
    """Several workers begin together; two roots would mean half of the clients fail."""
    program = (
        "import sys\n"
        "from datetime import timedelta\n"
        "from pathlib import Path\n"
        "from certrail.ca.authority import Design\n"
        "from certrail.ca.local import LocalCa, Rules\n"
        "from certrail.model import Csr, OrderKey, OrderSpec\n"
        "day = timedelta(days=1)\n"
        "design, rules = Design('Test', 9 * day, 8 * day), Rules(day)\n"
        "ca = LocalCa(sys.argv[1], design=design, rules=rules, label='ca')\n"
        "order = ca.open_order(OrderSpec(OrderKey('shared'), ('www.example.test',)))\n"
        "print(ca.collect(ca.finalize(order, Csr(sys.stdin.read()))).text)\n"
    )
    asked = tmp_path / "shared.csr"
    asked.write_text(csr_for(NAME).pem)
    argv = [sys.executable, "-c", program, str(tmp_path / "ca")]
    with ExitStack() as files:
        started = [
            subprocess.Popen(
                argv,
                stdin=files.enter_context(asked.open()),
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=die_with_parent,
            )
            for _ in range(3)
        ]
        outputs = {process.communicate(timeout=60)[0] for process in started}

    assert {process.returncode for process in started} == {0}
    assert len(outputs) == 1, "three leaves or three intermediates for one order"


def test_threads_issue_in_parallel(tmp_path: Path) -> None:
    """A bulk job uses one CA from many threads."""
    with block(tmp_path).connect() as ca, ThreadPoolExecutor(8) as pool:
        chains = list(pool.map(lambda n: issue(ca, key=f"ref-{n % 20}"), range(20)))

    assert len({chain.fingerprint for chain in chains}) == 20
    assert len({chain.leaf.serial_number for chain in chains}) == 20


def test_the_crl_says_what_is_revoked_and_why(tmp_path: Path) -> None:
    """Clients read the list, not our files."""
    with block(tmp_path).connect() as ca:
        chain = issue(ca)
        first = x509.load_pem_x509_crl(ca.crl())
        ca.revoke(chain, RevocationReason.KEY_COMPROMISE)
        ca.revoke(chain, RevocationReason.SUPERSEDED)
        second = x509.load_pem_x509_crl(ca.crl())

    issuer = chain.certificates[1]
    assert second.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    assert len(first) == 0
    (entry,) = second
    assert entry.serial_number == chain.leaf.serial_number
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    numbers = [
        each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for each in (first, second)
    ]
    assert numbers == [1, 2]


def test_a_strangers_certificate_is_not_revoked(tmp_path: Path) -> None:
    """Its serial number may belong to one of ours by chance, and the wrong one would fall."""
    (tmp_path / "other").mkdir()
    with block(tmp_path / "other").connect() as other:
        chain = issue(other)
    with block(tmp_path).connect() as ca:
        issue(ca)
        with pytest.raises(NotFound, match="not of this CA"):
            ca.revoke(chain, RevocationReason.SUPERSEDED)


def test_an_intermediate_of_ones_own_can_be_used(tmp_path: Path) -> None:
    """The root's key need not be on the worker."""
    with block(tmp_path).connect() as ca:
        issue(ca)
    (tmp_path / "ca" / "authority" / "root.key").unlink()

    with block(tmp_path).connect() as ca:
        assert len(issue(ca, key="ref-2").pems) == 2


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda a: (a / "intermediate.key").unlink(), NotFound),
        (lambda a: (a / "intermediate.pem").write_text("no certificate"), InvalidRequest),
        (lambda a: (a / "intermediate.key").write_text("no key"), InvalidRequest),
        (lambda a: (a / "root.key").rename(a / "intermediate.key"), InvalidRequest),
    ],
    ids=["missing", "certificate", "key", "mixed up"],
)
def test_damage_is_named_with_the_file(tmp_path: Path, damage: Any, error: type[Exception]) -> None:
    """A new CA made quietly in its place would be worse than an error."""
    with block(tmp_path).connect() as ca:
        issue(ca)
    damage(tmp_path / "ca" / "authority")

    with block(tmp_path).connect() as ca, pytest.raises(error, match="intermediate") as caught:
        ca.check()

    assert "PRIVATE KEY" not in str(caught.value)


def test_a_damaged_order_is_named(tmp_path: Path) -> None:
    """Half a file after a power cut must not end in a traceback."""
    with block(tmp_path).connect() as ca:
        order = ca.open_order(spec())
        next((tmp_path / "ca" / "orders").rglob("*.json")).write_text('{"key"')
        with pytest.raises(UnexpectedReply, match="not JSON"):
            ca.reopen(order)


@pytest.mark.parametrize("number", ["", "../../etc/passwd", "a/b", "0" * 40])
def test_a_forged_order_number_leads_nowhere(tmp_path: Path, number: str) -> None:
    """Order numbers come back from a database; they never leave the folder."""
    with block(tmp_path).connect() as ca:
        order = ca.open_order(spec())
        with pytest.raises(NotFound):
            ca.reopen(replace(order, remote_id=number))


def test_a_full_disk_is_called_that() -> None:
    """Nothing is issued that could not be kept."""
    with (
        LocalAuthority(ca_dir="/dev/full/ca").connect() as ca,
        pytest.raises((StorageFull, NotFound)),
    ):
        ca.open_order(spec())


def test_a_folder_that_cannot_be_written_is_called_that(tmp_path: Path) -> None:
    """The worker's account may not be the one that made the folder."""
    with (
        LocalAuthority(ca_dir="/proc/certrail-ca").connect() as ca,
        pytest.raises((PermissionRefused, NotFound)) as caught,
    ):
        ca.open_order(spec())

    assert "/proc/certrail-ca" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"permitted_names": ["*.example.test"]}, "wildcard"),
        ({"permitted_names": ["exa mple"]}, "not a DNS name"),
        ({"profiles": {"zero": 0}}, "at least one day"),
        ({"lifetime_days": 0}, "greater than or equal"),
    ],
    ids=str,
)
def test_settings_are_checked(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """A mistake shows when it is made, not at the next renewal."""
    with pytest.raises(ValidationError, match=message):
        block(tmp_path, **settings)


def test_the_folder_is_an_absolute_path() -> None:
    """A relative one would be another CA for each way of starting the worker."""
    with (
        pytest.raises(InvalidRequest, match="absolute"),
        LocalAuthority(ca_dir="relative/ca").connect(),
    ):
        pass
