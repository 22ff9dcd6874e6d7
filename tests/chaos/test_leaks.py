"""The search for leaked keys finds each form of a key, and nothing else."""

from __future__ import annotations

import base64
import json
import os
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.chaos.leaks import marks_of, must_not_have, temporary_files

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
MAKE: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


def made(algorithm: str) -> bytes:
    """Return a fresh key, as the inventory keeps it."""
    key = MAKE[algorithm]()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


PEMS = {one: made(one) for one in MAKE}
MARKS = {one: marks_of(pem) for one, pem in PEMS.items()}


def key_of(pem: bytes) -> Key:
    """Return the key of a PEM text."""
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def written(form: PrivateFormat, encoding: Encoding) -> Callable[[Key], bytes]:
    """Return what writes a key like this."""
    return lambda key: key.private_bytes(encoding, form, NoEncryption())


def secret(key: Key) -> bytes:
    """Return the secret number of a key."""
    numbers = key.private_numbers()
    if isinstance(numbers, ec.EllipticCurvePrivateNumbers):
        return numbers.private_value.to_bytes((key.key_size + 7) // 8, "big")
    return numbers.d.to_bytes(key.key_size // 8, "big")


FORMS: dict[str, Callable[[Key], bytes]] = {
    "PKCS8 PEM": written(PrivateFormat.PKCS8, Encoding.PEM),
    "PKCS8 DER": written(PrivateFormat.PKCS8, Encoding.DER),
    "SEC1 or PKCS1 PEM": written(PrivateFormat.TraditionalOpenSSL, Encoding.PEM),
    "SEC1 or PKCS1 DER": written(PrivateFormat.TraditionalOpenSSL, Encoding.DER),
    "bytes": secret,
}
AROUND: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: content,
    "hexadecimal": lambda content: content.hex().encode(),
    "HEXADECIMAL": lambda content: content.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64, second place": lambda content: base64.b64encode(b"x" + content + b"yz"),
    "base64, third place": lambda content: base64.b64encode(b"xy" + content + b"z"),
    "base64 for URLs": base64.urlsafe_b64encode,
}


@pytest.mark.parametrize("algorithm", MAKE)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_key_is_found(form: str, around: str, algorithm: str) -> None:
    pem = PEMS[algorithm]
    leaked = AROUND[around](FORMS[form](key_of(pem)))
    places = [("before", b"nothing"), ("here", b"... " + leaked + b" ..."), ("after", b"nothing")]

    with pytest.raises(AssertionError, match="a private key is in here"):
        must_not_have(places, MARKS[algorithm])


@pytest.mark.parametrize("algorithm", MAKE)
@pytest.mark.parametrize("form", [form for form in FORMS if form.endswith("PEM")])
def test_a_key_in_a_line_of_json_is_found(form: str, algorithm: str) -> None:
    line = json.dumps({"key": FORMS[form](key_of(PEMS[algorithm])).decode()}).encode()

    with pytest.raises(AssertionError, match="a private key is in an artifact"):
        must_not_have([("an artifact", line)], MARKS[algorithm])


@pytest.mark.parametrize("algorithm", MAKE)
def test_its_number_is_found(algorithm: str) -> None:
    pem = PEMS[algorithm]
    number = str(int.from_bytes(secret(key_of(pem)), "big")).encode()

    with pytest.raises(AssertionError, match="a private key is in a trace"):
        must_not_have([("a trace", b"d=" + number + b",")], MARKS[algorithm])


@pytest.mark.parametrize("algorithm", MAKE)
def test_what_is_no_secret_of_the_key_is_not_found(algorithm: str) -> None:
    """Its certificate, its public key, its fixed parts, and all forms of another key."""
    pem = PEMS[algorithm]
    key, other = key_of(pem), key_of(made(algorithm))
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public)
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256())
    kept = [certificate.public_bytes(form) for form in (Encoding.PEM, Encoding.DER)]
    kept += [
        public.public_bytes(form, serialization.PublicFormat.SubjectPublicKeyInfo)
        for form in (Encoding.PEM, Encoding.DER)
    ]
    kept += [form(other) for form in FORMS.values()]
    places = [(f"{n}", around(one)) for n, one in enumerate(kept) for around in AROUND.values()]

    assert must_not_have(places, MARKS[algorithm]) == sum(len(content) for _, content in places)


@pytest.mark.parametrize("algorithm", MAKE)
def test_a_key_is_found_in_base64_that_is_broken_into_lines(algorithm: str) -> None:
    """As mails, and `base64` in a shell, write what is longer than a line."""
    pem = PEMS[algorithm]
    lines = "\n".join(textwrap.wrap(base64.b64encode(pem).decode(), 76)).encode()

    with pytest.raises(AssertionError, match="a private key is in a mail"):
        must_not_have([("a mail", lines)], MARKS[algorithm])


def test_a_mark_is_too_long_to_be_anywhere_by_chance() -> None:
    """Twelve characters of base64 are 72 bits, if they come of a piece of base64 of a key."""
    for marks in MARKS.values():
        assert min(len(mark) for mark in marks) >= 12


def test_many_places_are_all_looked_at() -> None:
    """They are searched together; the one that is meant is still named."""
    pem = PEMS["P-256"]
    places = [(f"place {n}", b"x" * 150_000) for n in range(20)]
    places[13] = ("place 13", b"x" * 150_000 + pem)

    with pytest.raises(AssertionError, match="a private key is in place 13"):
        must_not_have(places, marks_of(pem))


def test_new_files_of_ours_are_looked_at_whatever_their_names(tmp_path: Path) -> None:
    """What was there before the tests began is of others, but for what is called after us."""
    for name in ("tmpabc", "certrail-old", "old"):
        (tmp_path / name).write_text(name)
    for name in ("certrail-old", "old"):
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "old")

    found = [content.decode() for _, content in temporary_files(tmp_path)]

    assert found == ["certrail-old", "tmpabc"]
