"""Every form of export, read back by us, by OpenSSL and by Java's keytool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from certrail.errors import AuthenticationFailed, CertrailError, InvalidRequest, UnexpectedReply
from certrail.model import Bundle, Chain
from certrail.private_key import PrivateKeyPem
from certrail.x509.export import Format, Part, export, load
from tests.support.bundles import new_bundle
from tests.support.process import binary

PASSWORD = "päss wörd €uro"
PLAIN = "correct horse"
CONTAINERS = [form for form in Format if form.has_password]


@pytest.mark.parametrize("with_rsa", [False, True], ids=["ec", "rsa"])
@pytest.mark.parametrize("form", Format)
def test_what_is_written_is_read_back(form: Format, with_rsa: bool) -> None:
    """Delivery is only believed once it was read back."""
    bundle = new_bundle(with_rsa=with_rsa)

    found = load(export(bundle, form, password=PASSWORD), form, password=PASSWORD)

    chain = bundle.chain.pems[:1] if form is Format.DER else bundle.chain.pems
    assert found.chain.pems == chain
    assert _spki(found) == _spki(bundle)


@pytest.mark.parametrize("form", Format)
def test_a_leaf_without_intermediates_is_written(form: Format) -> None:
    """Private CAs issue directly below a root."""
    bundle = new_bundle(intermediates=False)

    found = load(export(bundle, form, password=PASSWORD), form, password=PASSWORD)

    assert found.chain == bundle.chain


@pytest.mark.parametrize("form", CONTAINERS)
def test_another_password_is_called_that(form: Format) -> None:
    """A rotated password must not look like a damaged file."""
    parts = export(new_bundle(), form, password=PASSWORD)

    with pytest.raises(AuthenticationFailed) as caught:
        load(parts, form, password="another one")

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("form", CONTAINERS)
@pytest.mark.parametrize("password", ["", "short"])
def test_a_container_needs_a_real_password(form: Format, password: str) -> None:
    """Java refuses shorter ones when the server starts, which is too late."""
    with pytest.raises(InvalidRequest, match="at least 6 characters"):
        export(new_bundle(), form, password=password)


@pytest.mark.parametrize("form", CONTAINERS)
@pytest.mark.parametrize("alias", ["a\nb", "x" * 101, " padded ", "\U0001f511"], ids=ascii)
def test_an_alias_that_cannot_be_written_is_refused(form: Format, alias: str) -> None:
    """An alias that comes back changed cannot be found by the server."""
    with pytest.raises(InvalidRequest, match="alias"):
        export(new_bundle(), form, password=PASSWORD, alias=alias)


@pytest.mark.parametrize("form", [form for form in Format if len(form.parts) == 1])
def test_a_form_with_a_key_needs_the_key(form: Format) -> None:
    """A target that made its own key gets a certificate only."""
    with pytest.raises(InvalidRequest, match="without one"):
        export(Bundle(new_bundle().chain, None), form, password=PASSWORD)


@pytest.mark.parametrize("form", [Format.PEM, Format.DER])
def test_separate_files_do_without_a_key(form: Format) -> None:
    """Where the key is elsewhere, certificate and chain are of use alone."""
    bundle = Bundle(new_bundle().chain, None)

    parts = export(bundle, form)

    assert Part.KEY not in parts
    assert load(parts, form).key is None


@pytest.mark.parametrize("form", Format)
def test_damage_is_noticed_whatever_it_is(form: Format) -> None:
    """What is half written or of another kind must never pass for a certificate."""
    good = export(new_bundle(), form, password=PASSWORD)
    for part in form.parts:
        if not good[part]:
            continue
        for bad in (b"", b"\x00", good[part][: len(good[part]) // 2], b"-----BEGIN X-----\n"):
            if part is Part.KEY and not bad:
                continue
            with pytest.raises((UnexpectedReply, AuthenticationFailed)) as caught:
                load({**good, part: bad}, form, password=PASSWORD)
            _must_not_quote(caught.value, good)


@pytest.mark.parametrize("part", [Part.KEY, Part.CERT, Part.FULLCHAIN])
def test_parts_of_two_certificates_are_not_one(part: Part) -> None:
    """A new certificate beside an old key is what delivery has to prevent."""
    one, two = (export(new_bundle(), Format.PEM) for _ in range(2))
    with pytest.raises(UnexpectedReply):
        load({**one, part: two[part]}, Format.PEM)


@pytest.mark.parametrize("with_rsa", [False, True], ids=["ec", "rsa"])
@pytest.mark.parametrize("form", [Format.PKCS12, Format.PKCS12_LEGACY])
def test_openssl_opens_pkcs12(form: Format, with_rsa: bool, tmp_path: Path) -> None:
    """OpenSSL is what most servers and administrators read it with."""
    bundle = new_bundle(with_rsa=with_rsa)
    parts = export(bundle, form, password=PASSWORD, alias="web shop")
    (tmp_path / "store.p12").write_bytes(parts[Part.STORE])

    text = _openssl(
        tmp_path,
        *("pkcs12", "-in", "store.p12", "-nodes", "-passin", "env:STOREPASS"),
        *(["-legacy"] if form is Format.PKCS12_LEGACY else []),
    )
    about = _openssl(
        tmp_path,
        *("pkcs12", "-in", "store.p12", "-info", "-noout", "-passin", "env:STOREPASS"),
        *(["-legacy"] if form is Format.PKCS12_LEGACY else []),
    )

    assert "friendlyName: web shop" in text
    assert Chain.from_pem(text).pems == bundle.chain.pems
    key = serialization.load_pem_private_key(text[text.index("-----BEGIN P") :].encode(), None)
    assert key.public_key() == bundle.chain.leaf.public_key()
    assert ("3-KeyTripleDES" if form is Format.PKCS12_LEGACY else "AES-256-CBC") in about


@pytest.mark.parametrize("with_rsa", [False, True], ids=["ec", "rsa"])
@pytest.mark.parametrize("form", CONTAINERS)
def test_java_opens_it(form: Format, with_rsa: bool, tmp_path: Path) -> None:
    """Java verifies the whole store, decrypts the key and signs with it."""
    bundle = new_bundle(with_rsa=with_rsa)
    parts = export(bundle, form, password=PLAIN, alias="Shop")
    (tmp_path / "store").write_bytes(parts[Part.STORE])
    kind = "JKS" if form is Format.JKS else "PKCS12"

    listed = _keytool(tmp_path, "-list", "-rfc", "-keystore", "store", "-storetype", kind)
    request = _keytool(
        tmp_path, *("-certreq", "-alias", "shop", "-keystore", "store", "-storetype", kind)
    )

    assert "PrivateKeyEntry" in listed
    assert f"Certificate chain length: {len(bundle.chain.pems)}" in listed
    assert Chain.from_pem(listed).pems == bundle.chain.pems
    assert "BEGIN NEW CERTIFICATE REQUEST" in request


def test_we_read_what_java_writes(tmp_path: Path) -> None:
    """Someone may have made the store that we are to compare with."""
    bundle = new_bundle()
    parts = export(bundle, Format.PKCS12, password=PLAIN, alias="shop")
    (tmp_path / "from.p12").write_bytes(parts[Part.STORE])
    for kind in ("JKS", "PKCS12"):
        _keytool(
            tmp_path,
            *("-importkeystore", "-srckeystore", "from.p12", "-srcstoretype", "PKCS12"),
            *("-srcstorepass:env", "STOREPASS", "-deststoretype", kind),
            *("-destkeystore", f"to.{kind}", "-deststorepass:env", "STOREPASS"),
        )

    for kind, form in (("JKS", Format.JKS), ("PKCS12", Format.PKCS12)):
        content = (tmp_path / f"to.{kind}").read_bytes()
        found = load({Part.STORE: content}, form, password=PLAIN)
        assert found.chain.pems == bundle.chain.pems
        assert _spki(found) == _spki(bundle)


def test_an_altered_jks_is_refused() -> None:
    """The seal at its end covers every byte."""
    content = export(new_bundle(), Format.JKS, password=PASSWORD)[Part.STORE]
    for at in range(0, len(content), 97):
        altered = bytearray(content)
        altered[at] ^= 1
        with pytest.raises((AuthenticationFailed, UnexpectedReply)):
            load({Part.STORE: bytes(altered)}, Format.JKS, password=PASSWORD)


@pytest.mark.parametrize("form", [Format.PEM, Format.PEM_BUNDLE, Format.DER])
def test_openssl_reads_files(form: Format, tmp_path: Path) -> None:
    """The plain forms are what OpenSSL calls them."""
    bundle = new_bundle()
    for part, content in export(bundle, form).items():
        (tmp_path / part).write_bytes(content)
    kind = "DER" if form is Format.DER else "PEM"
    cert, key = ("bundle", "bundle") if form is Format.PEM_BUNDLE else ("cert", "key")

    shown = _openssl(tmp_path, "x509", "-in", cert, "-inform", kind, "-pubkey", "-noout")
    public = _openssl(tmp_path, "pkey", "-in", key, "-inform", kind, "-pubout")

    assert shown == public


def _openssl(folder: Path, *argv: str) -> str:
    return _run(folder, binary("openssl", "openssl"), *argv)


def _keytool(folder: Path, *argv: str) -> str:
    stored = [] if "-importkeystore" in argv else ["-storepass:env", "STOREPASS"]
    return _run(folder, binary("keytool", "default-jre-headless"), *argv, *stored)


def _run(folder: Path, *argv: str) -> str:
    password = PLAIN if "keytool" in argv[0] else PASSWORD
    env = {**os.environ, "STOREPASS": password, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _spki(bundle: Bundle) -> bytes:
    assert isinstance(bundle.key, PrivateKeyPem)
    key = serialization.load_pem_private_key(bundle.key.reveal(), None)
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _must_not_quote(error: CertrailError, parts: dict[Part, bytes]) -> None:
    assert str(error).isprintable()
    assert error.remedy
    key = parts.get(Part.KEY, b"")
    # The longest piece between line ends: DER is no text, and may have them anywhere.
    longest = max(key.splitlines(), key=len, default=b"")
    assert not longest or longest.decode("latin-1") not in str(error)
