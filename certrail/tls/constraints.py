"""Name constraints of CAs on DNS names and IP addresses (RFC 5280 section 4.2.1.10)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cryptography import x509

from certrail.x509.findings import extension


def respected(leaf: x509.Certificate, issuers: Iterable[x509.Certificate]) -> bool:
    """Return whether the leaf's names keep to the limits of every issuer.

    Other kinds of names, such as directory names, are left to the verifier.
    Doubt counts as no: a wildcard that could stand for an excluded name, or a
    name that is none.
    """
    listed = extension(leaf, x509.SubjectAlternativeName)
    if listed is None:
        return True
    limits = [known for issuer in issuers if (known := extension(issuer, x509.NameConstraints))]
    return all(
        _dns_within(name.lower(), limit)
        for limit in limits
        for name in listed.get_values_for_type(x509.DNSName)
    ) and all(
        _ip_within(address, limit)
        for limit in limits
        for address in listed.get_values_for_type(x509.IPAddress)
        if isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    )


def _dns_within(name: str, limit: x509.NameConstraints) -> bool:
    base = name.removeprefix("*.")
    if not all(base.split(".")):
        return False
    permitted = [known.value for known in limit.permitted_subtrees or () if _is_dns(known)]
    excluded = [known.value for known in limit.excluded_subtrees or () if _is_dns(known)]
    if permitted and not any(_under(base, tree) for tree in permitted):
        return False
    reaches = base != name
    return not any(_under(base, tree) or (reaches and _under(tree, base)) for tree in excluded)


def _ip_within(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, limit: x509.NameConstraints
) -> bool:
    permitted = _networks(limit.permitted_subtrees)
    if permitted and not any(address in network for network in permitted):
        return False
    return not any(address in network for network in _networks(limit.excluded_subtrees))


def _networks(
    trees: Iterable[x509.GeneralName] | None,
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    values = [tree.value for tree in trees or () if isinstance(tree, x509.IPAddress)]
    kinds = (ipaddress.IPv4Network, ipaddress.IPv6Network)
    return [value for value in values if isinstance(value, kinds)]


def _is_dns(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.DNSName)


def _under(name: str, tree: str) -> bool:
    """Return whether *name* is *tree* or below it; the empty tree holds every name."""
    top = tree.lower().lstrip(".")
    return not top or name == top or name.endswith(f".{top}")
