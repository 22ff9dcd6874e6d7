"""A certificate names places; nobody goes there: each would be a request in the server's hands."""

from __future__ import annotations

import socket
import threading
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID as Access

from certrail.tls.scan import scan
from tests.support.tls_servers import Authority, pem, scripted_server, tls_server

ROOT = Authority.root()


def test_no_address_in_a_certificate_is_asked() -> None:
    """CRL, OCSP and issuer addresses may lead into our own network."""
    asked = threading.Event()

    def note(connection: socket.socket) -> None:
        asked.set()
        connection.close()

    with scripted_server(note) as port:
        place = x509.UniformResourceIdentifier(f"http://127.0.0.1:{port}/internal")
        extra = [
            (
                x509.AuthorityInformationAccess(
                    [
                        x509.AccessDescription(Access.OCSP, place),
                        x509.AccessDescription(Access.CA_ISSUERS, place),
                    ]
                ),
                False,
            ),
            (
                x509.CRLDistributionPoints([x509.DistributionPoint([place], None, None, None)]),
                False,
            ),
        ]
        leaf = ROOT.intermediate().issue("localhost", extra=extra)
        # Without the intermediate a client could be tempted to download it.
        with tls_server(leaf, sent=[leaf.leaf]) as server:
            (found,) = scan(
                [f"127.0.0.1:{server}"], roots=pem(ROOT.certificate), timeout=timedelta(seconds=20)
            )

    assert found.facts is not None
    assert any("issuer" in finding.message for finding in found.findings)
    assert not asked.is_set()
