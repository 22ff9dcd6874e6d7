"""Downloading the certificate, and choosing among the chains that a CA offers."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from certrail.acme.reply import Reply
from certrail.errors import UnexpectedReply
from certrail.log import logger, plain
from certrail.model import UNREADABLE, Chain

PEM_CHAIN = "application/pem-certificate-chain"
_MOST_ALTERNATES = 10


def download(fetch: Callable[[str], Reply], url: str, preferred: str) -> Chain:
    """Fetch the certificate, with the chain whose topmost issuer is named *preferred*.

    Without a preference, and where no chain has that issuer, it is the CA's
    default chain; the latter is logged.

    Args:
        fetch: asks for a URL as the account that ordered the certificate.
        url: of the certificate.
        preferred: common name of the wanted topmost issuer, "" for the default.
    """
    reply = fetch(url)
    default = read_chain(reply)
    if not preferred or top_issuer(default) == preferred:
        return default
    offered = [top_issuer(default)]
    for alternate in reply.links("alternate")[:_MOST_ALTERNATES]:
        chain = read_chain(fetch(alternate))
        if top_issuer(chain) == preferred:
            return chain
        offered.append(top_issuer(chain))
    logger.warning(
        "%s: no chain ends at %s, using the default; offered: %s",
        reply.label,
        plain(preferred),
        plain(", ".join(offered)),
    )
    return default


def read_chain(reply: Reply) -> Chain:
    """Return the chain in *reply* without its root.

    Raises:
        UnexpectedReply: there is no certificate in it.
    """
    try:
        certificates = x509.load_pem_x509_certificates(reply.body)
    except UNREADABLE as exc:
        raise UnexpectedReply(
            f"{plain(reply.url)} is not a certificate chain ({exc}): {reply.start}",
            connector=reply.label,
        ) from exc
    if len(certificates) > 1 and _is_root(certificates[-1]):
        certificates.pop()
    return Chain.of(certificates)


def top_issuer(chain: Chain) -> str:
    """Return the common name of whoever issued the topmost certificate, "" if it has none."""
    top = x509.load_pem_x509_certificate(chain.pems[-1].encode())
    names = top.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _is_root(certificate: x509.Certificate) -> bool:
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
