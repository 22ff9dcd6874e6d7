"""One TLS handshake that looks at what is served without judging it.

The handshake is driven over memory buffers, so that every byte passes the
deadline and the size limit of :class:`certrail.tls.channel.Channel`. Trust is
judged afterwards, by :mod:`certrail.tls.verify`, from what was presented.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

from cryptography import x509
from OpenSSL import SSL

from certrail.model import UNREADABLE, Chain, Fingerprint, fingerprint
from certrail.tls.addresses import Address, is_ip
from certrail.tls.channel import Channel, Deadline
from certrail.tls.findings import Reason, Stopped, failure, warning
from certrail.tls.starttls import StartTls, negotiate
from certrail.x509.findings import Finding, shorten, unreadable

_RECORD_TYPES = (0x14, 0x15, 0x16, 0x17)
_SPOKEN = {
    b"HTTP/": "plain HTTP",
    b"<": "plain HTTP",
    b"SSH-": "SSH",
    b"220": "SMTP or FTP before STARTTLS",
    b"* OK": "IMAP before STARTTLS",
    b"+OK": "POP3 before STARTTLS",
    b"-ERR": "POP3 or Redis without TLS",
}
_BAD_PROOF = ("bad signature", "invalid signature", "wrong signature", "bad ecpoint")
_CLIENT_WANTED = ("handshake failure", "certificate required", "bad certificate", "unknown ca")
_OLD = ("TLS 1.1", "TLS 1.0", "SSL 3.0")


@dataclass(frozen=True, slots=True)
class Presented:
    """What one address serves.

    Attributes:
        address: where it was asked.
        seconds: from connecting to the end of the handshake.
        tls_version: ``TLS 1.3``; "" when there was no handshake.
        cipher: OpenSSL's name of the cipher suite.
        certificates: as sent, leaf first; empty when none was seen.
        stapled: whether an OCSP response came with it (RFC 6066 section 8).
        findings: what the conversation itself showed.
    """

    address: Address
    seconds: float = 0.0
    tls_version: str = ""
    cipher: str = ""
    certificates: tuple[x509.Certificate, ...] = ()
    stapled: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def leaf(self) -> x509.Certificate | None:
        """The server's own certificate, None when none was seen."""
        return self.certificates[0] if self.certificates else None

    @property
    def chain(self) -> Chain | None:
        """The chain as sent, None when none was seen."""
        return Chain.of(list(self.certificates)) if self.certificates else None

    @property
    def fingerprint(self) -> Fingerprint | None:
        """SHA-256 of the leaf, None when none was seen."""
        return fingerprint(self.certificates[0]) if self.certificates else None


def fetch(
    address: Address,
    *,
    sni: str | None,
    starttls: StartTls = StartTls.NONE,
    timeout: timedelta = timedelta(seconds=10),
) -> Presented:
    """Return what *address* serves for *sni* (None: no name is sent); never raises for the peer.

    Offers what regular clients offer (TLS 1.2 and 1.3, current suites). If
    that fails, asks once more with everything old allowed, only to tell why.
    *timeout* covers all of it.
    """
    deadline = Deadline(timeout.total_seconds())
    seen = _attempt(address, sni, starttls, deadline, lenient=False)
    first = seen.findings[0].code if seen.findings and not seen.certificates else None
    if first is Reason.HANDSHAKE_FAILED and deadline.spent < deadline.seconds:
        again = _attempt(address, sni, starttls, deadline, lenient=True)
        if again.tls_version:
            seen = replace(again, findings=(_why_lenient(again), *again.findings))
    return replace(seen, seconds=round(deadline.spent, 4))


def _why_lenient(seen: Presented) -> Finding:
    if seen.tls_version in _OLD:
        message = f"{seen.address} offers nothing newer than {seen.tls_version}"
        return failure(Reason.OLD_TLS, message)
    message = (
        f"{seen.address} only agrees to what current clients refuse "
        f"({seen.tls_version}, {seen.cipher})"
    )
    return failure(Reason.WEAK_HANDSHAKE, message)


def _attempt(
    address: Address, sni: str | None, starttls: StartTls, deadline: Deadline, *, lenient: bool
) -> Presented:
    phase = "STARTTLS"
    try:
        with Channel(address, deadline) as channel:
            negotiate(channel, starttls)
            phase = "the handshake"
            return _shake(channel, sni, lenient=lenient)
    except Stopped as stop:
        finding = stop.finding
    except TimeoutError:
        message = f"{address} did not finish {phase} within {deadline.seconds:g} s"
        finding = failure(Reason.TIMED_OUT, message)
    except (OSError, ValueError) as exc:
        cause = shorten(getattr(exc, "strerror", None) or exc)
        message = f"{address} broke off during {phase}: {cause}"
        finding = failure(
            Reason.STARTTLS_REFUSED if phase == "STARTTLS" else Reason.HANDSHAKE_FAILED, message
        )
    return Presented(address, findings=(finding,))


def _shake(channel: Channel, sni: str | None, *, lenient: bool) -> Presented:
    """Shake hands on *channel*; raises OSError or ValueError when the other side breaks off."""
    connection = SSL.Connection(_context(lenient=lenient), None)
    staples: list[bytes] = []
    connection.set_app_data(staples)
    connection.set_connect_state()
    connection.request_ocsp()
    if sni and not is_ip(sni):
        connection.set_tlsext_host_name(_server_name(sni))
    refusal = _drive(connection, channel)
    certificates, findings = _read_chain(connection)
    if refusal:
        findings = [_explain(channel.address, refusal, bool(certificates)), *findings]
        if findings[0].code is Reason.HANDSHAKE_FAILED:
            return Presented(channel.address, findings=tuple(findings[:1]))
    elif not certificates and not findings:
        message = f"{channel.address} completed the handshake without a certificate"
        findings = [failure(Reason.NO_CERTIFICATE, message)]
    return Presented(
        channel.address,
        tls_version=_version(connection),
        cipher=connection.get_cipher_name() or "",
        certificates=tuple(certificates),
        stapled=any(staples),
        findings=tuple(findings),
    )


def _drive(connection: SSL.Connection, channel: Channel) -> str:
    """Move bytes until the handshake is done; returns OpenSSL's reason if it failed, else ""."""
    started = False
    while True:
        refusal: str | None = ""
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            refusal = None
        except SSL.Error as exc:
            refusal = _reason(exc)
        _flush(connection, channel)
        if refusal is not None:
            return refusal
        data = channel.receive()
        if not data:
            raise ConnectionResetError("the connection was closed")
        if not started:
            _must_be_tls(data, channel.address)
            started = True
        connection.bio_write(data)


def _flush(connection: SSL.Connection, channel: Channel) -> None:
    while True:
        try:
            data = connection.bio_read(32 * 1024)
        except SSL.Error:
            return
        channel.send(data)


def _must_be_tls(data: bytes, address: Address) -> None:
    """Tell other protocols by the first bytes (RFC 8446 section 5.1 says what a record is)."""
    if data[0] in _RECORD_TYPES and data[1:2] in (b"\x03", b""):
        return
    spoken = next((name for start, name in _SPOKEN.items() if data.startswith(start)), "")
    seen = spoken or f"something else than TLS ({shorten(data[:24].decode('latin-1'))!r})"
    raise Stopped(failure(Reason.WRONG_PROTOCOL, f"{address} answers with {seen}"))


def _read_chain(connection: SSL.Connection) -> tuple[list[x509.Certificate], list[Finding]]:
    certificates: list[x509.Certificate] = []
    findings: list[Finding] = []
    for position, raw in enumerate(connection.get_peer_cert_chain() or ()):
        try:
            certificates.append(raw.to_cryptography())
        except UNREADABLE as exc:
            findings.append(unreadable(exc))
            if position == 0:
                break
    return certificates, findings


def _explain(address: Address, refusal: str, seen: bool) -> Finding:
    """Turn OpenSSL's reason into a finding; *seen* is whether the server sent its certificate."""
    lowered = refusal.lower()
    if seen and any(words in lowered for words in _BAD_PROOF):
        message = f"{address} cannot prove that it has the key of its certificate ({refusal})"
        return failure(Reason.KEY_MISMATCH, message)
    if seen and "alert" in lowered and any(words in lowered for words in _CLIENT_WANTED):
        message = f"{address} ended the handshake because the client has no certificate"
        return warning(Reason.CLIENT_CERTIFICATE_WANTED, message)
    remedy = ""
    if "unrecognized name" in lowered:
        remedy = "Configure a site for this name on the server, or correct the endpoint's name."
    return failure(
        Reason.HANDSHAKE_FAILED, f"{address} refused the handshake: {refusal}", remedy=remedy
    )


def _reason(error: SSL.Error) -> str:
    """Return the reason texts of OpenSSL's error queue, "connection closed" for none."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, (list, tuple)):
        words = [str(entry[-1]) for entry in queue if isinstance(entry, tuple) and entry]
        if words:
            return shorten("; ".join(dict.fromkeys(words)))
    return "the connection was closed"


def _version(connection: SSL.Connection) -> str:
    name = connection.get_protocol_version_name()
    return {"TLSv1": "TLS 1.0", "SSLv3": "SSL 3.0"}.get(name, name.replace("TLSv", "TLS "))


def _server_name(sni: str) -> bytes:
    """Return the name for the handshake; ValueError if it cannot be sent (RFC 6066 section 3)."""
    name = sni.rstrip(".")
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= 253):
        raise ValueError(f"not a host name in A-labels: {shorten(sni)!r}")
    return name.encode()


@cache
def _context(*, lenient: bool) -> SSL.Context:
    """Return the shared client context; it verifies nothing, on purpose.

    Lenient: everything the library still knows, down to TLS 1.0 and
    anonymous suites, to explain why a regular client failed.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_ocsp_client_callback(_keep_staple)
    if lenient:
        context.set_cipher_list(b"ALL:eNULL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
    else:
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
    return context


def _keep_staple(connection: SSL.Connection, staple: bytes, _data: object) -> bool:
    kept: list[bytes] = connection.get_app_data()
    kept.append(staple)
    return True
