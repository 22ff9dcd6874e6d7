"""Cases of the public suite x509-limbo, as "Testing installation" meets them."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from certrail.model import UNREADABLE
from certrail.tls.client import Client
from certrail.tls.trust import TrustAnchors
from certrail.tls.verify import verify_chain
from certrail.x509.findings import Severity

FILE = Path(__file__).parents[1] / "data" / "x509-limbo.json.gz"

OUT_OF_SCOPE = {
    "validates a client's certificate": "we are the client, and test servers",
    "has-crl": "revocation is known from the CA that revoked, not from lists",
    "rfc5280-incompatible-with-webpki": "what RFC 5280 asks of CAs here, no client refuses",
}
"""What does not apply to a TLS client that tests its own servers, and why."""


def load(file: Path = FILE) -> list[Mapping[str, Any]]:
    """Return the cases of a file in the suite's format, packed or not."""
    raw = file.read_bytes()
    text = gzip.decompress(raw) if file.suffix == ".gz" else raw
    cases: list[Mapping[str, Any]] = json.loads(text)["testcases"]
    return cases


def out_of_scope(case: Mapping[str, Any]) -> str:
    """Return why *case* does not apply, "" if it does."""
    if case["validation_kind"] != "SERVER":
        return OUT_OF_SCOPE["validates a client's certificate"]
    return next((OUT_OF_SCOPE[f] for f in case.get("features") or () if f in OUT_OF_SCOPE), "")


def verdict(case: Mapping[str, Any]) -> str:
    """Return SUCCESS or FAILURE, as our client judges *case*.

    Cases of the name space ``webpki`` are about the rules for public
    certificates, the others about RFC 5280.
    """
    with warnings.catch_warnings():
        # Certificates that the library will refuse to read one day are the point here.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            leaf = _certificate(case["peer_certificate"])
            intermediates = _certificates(case.get("untrusted_intermediates"))
            anchors = TrustAnchors(_certificates(case.get("trusted_certs")), "the case's roots")
        except UNREADABLE:
            return "FAILURE"  # what cannot be read cannot be presented either
        name = case.get("expected_peer_name")
        moment = case.get("validation_time")
        findings = verify_chain(
            leaf,
            intermediates,
            anchors,
            name["value"] if name else None,
            datetime.fromisoformat(moment) if moment else datetime.now(UTC),
            client=Client.WEB_PKI if case["id"].startswith("webpki::") else Client.RFC5280,
            max_depth=case.get("max_chain_depth"),
        )
    refused = any(finding.severity is Severity.FAILURE for finding in findings)
    return "FAILURE" if refused else "SUCCESS"


def _certificates(pems: Sequence[str] | None) -> list[x509.Certificate]:
    return [_certificate(pem) for pem in pems or ()]


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())
