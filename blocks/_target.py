"""What install targets share, whatever their API."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from blocks._base import HostBlock
from certrail.connectors import Host, Traits
from certrail.errors import Conflict, InvalidRequest
from certrail.model import Bundle, Fingerprint, KeyAlgorithm, key_text
from certrail.x509.chain import must_be_installable

_CURVES = {"secp256r1": KeyAlgorithm.ECDSA_P256, "secp384r1": KeyAlgorithm.ECDSA_P384}
_SIZES = {
    2048: KeyAlgorithm.RSA_2048,
    3072: KeyAlgorithm.RSA_3072,
    4096: KeyAlgorithm.RSA_4096,
}
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")


def must_take(bundle: Bundle, traits: Traits, what: str) -> bytes:
    """Return the key of *bundle* after checking that *what* (for people) can take it.

    Raises:
        InvalidRequest: no key, a pair that does not match, a chain out of order,
            an expired certificate, or a kind of key that the target does not take.
    """
    must_be_installable(bundle)
    if bundle.key is None:
        raise InvalidRequest(
            f"{what} needs the private key, and this certificate came without one",
            remedy="Let Certrail make the key: choose an algorithm in the profile.",
        )
    algorithm = algorithm_of(bundle.chain.leaf)
    if algorithm not in traits.key_algorithms:
        takes = ", ".join(sorted(traits.key_algorithms))
        raise InvalidRequest(
            f"{what} takes no {key_text(bundle.chain.leaf)} keys; it takes {takes}",
            remedy="Set `key.algorithm` of the profile to one of these. Nothing was uploaded.",
        )
    return bundle.key.reveal()


def must_come_without_key(bundle: Bundle, label: str) -> None:
    """Check what a target that keeps its keys is to install.

    Raises:
        InvalidRequest: a key comes with it, a chain out of order, or an expired certificate.
    """
    must_be_installable(bundle)
    if bundle.key is not None:
        raise InvalidRequest(
            f"{label} keeps its keys, and this certificate has another one",
            remedy="Start a reissue, or set `key_on_device: false`. Nothing was uploaded.",
        )


def algorithm_of(certificate: x509.Certificate) -> KeyAlgorithm | None:
    """Return the kind of key in *certificate*, None for one that Certrail does not make."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return _SIZES.get(key.key_size)
    return None


def object_name(site: str, fingerprint: Fingerprint, longest: int) -> str:
    """Return a name for a certificate object: readable, of this version, not too long.

    It begins with a letter and has letters, digits, ``_``, ``.`` and ``-`` only.
    The same site and certificate give the same name, in any process.
    """
    tail = f"_{fingerprint[:16]}"
    stem = _NOT_PLAIN.sub("_", site.rpartition("/")[2].replace("*", "wildcard"))
    return "certrail_" + stem[: longest - len(tail) - len("certrail_")] + tail


def waiting_name(site: str, present: Fingerprint | None, longest: int) -> str:
    """Return what the key is called that waits for its certificate beside that of *present*."""
    digest = hashlib.sha256(f"key beside {present or 'nothing'}".encode()).hexdigest()
    return object_name(site, Fingerprint(digest), longest)


def is_ours(name: str) -> bool:
    """Return whether :func:`object_name` made *name*."""
    return re.fullmatch(r"certrail_.*_[0-9a-f]{16}", name.rpartition("/")[2]) is not None


def must_replace(
    present: Fingerprint | None,
    replaces: Fingerprint | None,
    new: Fingerprint,
    place: str,
    connector: str,
) -> None:
    """Check that *place* still serves what it is to be replaced for, or the new one already.

    Raises:
        Conflict: somebody else changed it.
    """
    if replaces is not None and present not in (replaces, new):
        raise Conflict(
            f"{connector}: {place} has {short(present)}, not {short(replaces)}",
            connector=connector,
        )


def short(fingerprint: Fingerprint | None) -> str:
    """Return the first digits of *fingerprint* for people."""
    return f"{fingerprint[:16]}…" if fingerprint else "no certificate"


def is_loopback(host: str) -> bool:
    """Return whether *host* is an address of this machine that never leaves it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def must_not_leak(host: str, allowed: bool, what: str) -> None:
    """Refuse to send a private key over a network in clear text, unless *allowed*.

    Raises:
        InvalidRequest: *host* is another machine.
    """
    if not allowed and not is_loopback(host):
        raise InvalidRequest(
            f"{what} at {host} is reached in clear text, and the private key would travel there",
            remedy="Reach it through a local socket or an encrypted tunnel; or set "
            "allow_cleartext if the network in between is yours alone.",
        )


def must_be_https(url: str, what: str) -> None:
    """Refuse an address over which a password and a private key would travel in clear text.

    Raises:
        InvalidRequest: it is not https, and not this machine either.
    """
    parsed = urlsplit(url)
    if parsed.scheme != "https" and not is_loopback(parsed.hostname or ""):
        raise InvalidRequest(
            f"{what} is to be reached without https, and the private key would travel there",
            remedy="Write the address as https://host[:port].",
        )


@contextmanager
def opened_host(reference: str) -> Iterator[Host]:
    """Open the host connector stored as *reference* (``host-ssh/web1``)."""
    with HostBlock.named(reference).connect() as host:
        yield host


def texts(lines: Iterable[str]) -> str:
    """Join what a device said into one short line for a message."""
    return " ".join(" ".join(lines).split())[:300]
