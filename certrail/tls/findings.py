"""What a client finds wrong with an endpoint: the reason codes and their remedies."""

from __future__ import annotations

from enum import StrEnum

from certrail.x509.findings import Finding, Severity


class Reason(StrEnum):
    """Reason codes of findings that only a client can make.

    Codes of the certificate by itself are in
    :class:`certrail.x509.findings.CertificateReason`.
    """

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed-out"
    STARTTLS_REFUSED = "starttls-refused"
    PLAINTEXT_INJECTED = "plaintext-injected"
    WRONG_PROTOCOL = "wrong-protocol"
    HANDSHAKE_FAILED = "handshake-failed"
    KEY_MISMATCH = "key-mismatch"
    OLD_TLS = "old-tls"
    WEAK_HANDSHAKE = "weak-handshake"
    CLIENT_CERTIFICATE_WANTED = "client-certificate-wanted"
    NO_CERTIFICATE = "no-certificate"
    LEAF_DIFFERS = "leaf-differs"
    ADDRESSES_DISAGREE = "addresses-disagree"
    NAME_MISMATCH = "name-mismatch"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED_ROOT = "expired-root"
    CHAIN_INCOMPLETE = "chain-incomplete"
    CHAIN_MISORDERED = "chain-misordered"
    CHAIN_EXTRA = "chain-extra"
    CHAIN_LONG = "chain-long"
    CHAIN_INVALID = "chain-invalid"
    ROOT_INCLUDED = "root-included"
    UNTRUSTED_ROOT = "untrusted-root"
    STRICT_PROFILE = "strict-profile"
    MUST_STAPLE = "must-staple"


_REMEDIES = {
    Reason.UNREACHABLE: "Check address, route, firewall and that the service listens, then retry.",
    Reason.TIMED_OUT: "Check that the service behind the port is alive, and its STARTTLS setting: "
    "a server that waits for plain text stays silent here.",
    Reason.STARTTLS_REFUSED: "Check the protocol of this port and that the server has TLS "
    "switched on; some servers refuse STARTTLS when they cannot load key or certificate.",
    Reason.PLAINTEXT_INJECTED: "Correct the server, or look for somebody in between: text sent "
    "before the handshake must not count as protected.",
    Reason.WRONG_PROTOCOL: "Check port and STARTTLS setting of the endpoint; this port does not "
    "start with TLS.",
    Reason.HANDSHAKE_FAILED: "Look at the server's TLS log for this connection, then retry.",
    Reason.KEY_MISMATCH: "Install certificate and private key of the same order; restore the "
    "previous pair until then.",
    Reason.OLD_TLS: "Switch on TLS 1.2 and TLS 1.3 on the server.",
    Reason.WEAK_HANDSHAKE: "Allow current cipher suites and key sizes on the server.",
    Reason.CLIENT_CERTIFICATE_WANTED: "Nothing to do if clients have certificates here; the "
    "server's own certificate was checked all the same.",
    Reason.NO_CERTIFICATE: "Check that a certificate is configured for this name and port.",
    Reason.LEAF_DIFFERS: "Check that the service was reloaded, that this address belongs to it, "
    "and that no load balancer or other site answers for the name.",
    Reason.ADDRESSES_DISAGREE: "Install the same certificate on every address of the name.",
    Reason.NAME_MISMATCH: "Reissue with this name, or correct which site answers for it.",
    Reason.EXPIRED: "Renew and install it; expired certificates are refused by every client.",
    Reason.NOT_YET_VALID: "Check the clocks of this machine and of the CA; wait if they are right.",
    Reason.EXPIRED_ROOT: "Replace the root in the profile, or have the chain issued from a "
    "current root.",
    Reason.CHAIN_INCOMPLETE: "Configure the full chain: leaf, then every intermediate.",
    Reason.CHAIN_MISORDERED: "Put the chain in order: leaf first, each followed by its issuer.",
    Reason.CHAIN_EXTRA: "Remove certificates from the chain file that do not belong to the chain.",
    Reason.CHAIN_LONG: "Send only leaf and intermediates; clients limit what they read.",
    Reason.CHAIN_INVALID: "Have the certificate issued anew, or correct the CA that issued it.",
    Reason.ROOT_INCLUDED: "Leave the root out of the chain file; clients have it or refuse it.",
    Reason.UNTRUSTED_ROOT: "Add the CA's root to the profile's trust anchors, or check who issued "
    "the certificate.",
    Reason.STRICT_PROFILE: "Have the CA correct its certificate profile; strict clients refuse it.",
    Reason.MUST_STAPLE: "Switch on OCSP stapling on the server, or reissue without must-staple.",
}


def failure(reason: Reason, message: str, *, remedy: str = "") -> Finding:
    """Return a finding because of which a regular client refuses."""
    return Finding(reason, message, remedy or _REMEDIES[reason], Severity.FAILURE)


def warning(reason: Reason, message: str, *, remedy: str = "") -> Finding:
    """Return a finding that regular clients put up with."""
    return Finding(reason, message, remedy or _REMEDIES[reason], Severity.WARNING)


class Stopped(Exception):
    """The conversation ended before there was a certificate; carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding
