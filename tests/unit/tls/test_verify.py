"""The verdict on a chain, without network: table by table."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from certrail.tls.client import Client
from certrail.tls.constraints import respected
from certrail.tls.findings import Reason
from certrail.tls.trust import TrustAnchors
from certrail.tls.verify import covers, verify_chain
from certrail.x509.findings import CertificateReason, Finding, Severity
from tests.support.tls_servers import DAY, NOW, Authority, Issued, new_key, rsa_key

HOST = "www.example.com"
ROOT = Authority.root()
CA = ROOT.intermediate()
ANCHORS = TrustAnchors([ROOT.certificate], "the profile's trust anchors")


def _verify(
    issued: Issued,
    *,
    anchors: TrustAnchors = ANCHORS,
    name: str | None = HOST,
    days: float = 0,
    client: Client = Client.RFC5280,
) -> list[Finding]:
    moment = NOW + timedelta(days=days)
    return verify_chain(issued.leaf, issued.intermediates, anchors, name, moment, client=client)


def _leniently(issued: Issued, **options: Any) -> list[Finding]:
    return _verify(issued, client=Client.OPENSSL, **options)


def _failures(findings: list[Finding]) -> list[str]:
    return [str(f.code) for f in findings if f.severity is Severity.FAILURE]


def test_good_chain_has_no_findings() -> None:
    """Silence is the sign of success."""
    assert _verify(CA.issue(HOST)) == []


def test_dates_are_judged_at_the_given_moment() -> None:
    """Both ends of the validity are inclusive (RFC 5280 section 4.1.2.5)."""
    issued = CA.issue(HOST, not_before=NOW, not_after=NOW + 10 * DAY)
    assert _verify(issued, days=0) == []
    assert _verify(issued, days=10) == []
    assert _failures(_verify(issued, days=10.001)) == [Reason.EXPIRED]
    assert _failures(_verify(issued, days=-0.001)) == [Reason.NOT_YET_VALID]


def test_stricter_rules_than_most_clients_have_are_warnings() -> None:
    """Some private CAs issue these; OpenSSL, and so most clients, accept them."""
    odd = {
        "empty subject, names not critical": CA.issue(HOST, subject=""),
        "no authority key identifier": CA.issue(HOST, identifiers=False),
        "CA flag on a server": CA.issue(HOST, extra=[(x509.BasicConstraints(True, None), True)]),
    }
    for what, issued in odd.items():
        findings = _leniently(issued)
        assert [f.code for f in findings] == [Reason.STRICT_PROFILE], what
        assert findings[0].severity is Severity.WARNING


def test_what_strict_clients_refuse_is_a_failure_unless_leniency_was_chosen() -> None:
    """Clients that nobody thought of may refuse it; the remedy names the way out."""
    for issued in (CA.issue(HOST, subject=""), CA.issue(HOST, identifiers=False)):
        (finding,) = _verify(issued)
        assert finding.code == Reason.CHAIN_INVALID
        assert "`client: openssl`" in finding.remedy


def test_public_rules_count_only_for_public_trust() -> None:
    """A private CA may put its own words into the common name; a public one may not."""
    issued = CA.issue(HOST, subject="Web servers of the shop")
    assert _failures(_verify(issued)) == []
    assert _failures(_verify(issued, client=Client.WEB_PKI)) == [Reason.STRICT_PROFILE]


def test_second_opinion_is_asked_about_the_same_chain() -> None:
    """Leniency must not open a way around trust, dates or names."""
    odd = CA.issue("other.example.com", subject="")
    assert _failures(_leniently(odd)) == [Reason.NAME_MISMATCH]
    odd = CA.issue(HOST, subject="")
    assert _failures(_leniently(odd, days=100)) == [Reason.EXPIRED]
    stranger = Authority.root("Stranger").intermediate().issue(HOST, subject="")
    assert _failures(_leniently(stranger)) == [Reason.UNTRUSTED_ROOT]
    assert _failures(_leniently(odd, anchors=TrustAnchors([], "nothing"))) == [
        Reason.UNTRUSTED_ROOT
    ]


def test_issuer_that_is_no_ca_is_refused() -> None:
    """The oldest attack there is: a leaf that signs another leaf."""
    leaf = CA.issue("evil.example.com")
    forger = Authority(leaf.leaf, leaf.key, leaf.intermediates, is_root=False)
    assert _failures(_verify(forger.issue(HOST))) == [Reason.CHAIN_INVALID]


def test_name_constraints_hold_even_if_openssl_differs() -> None:
    """The CA may only issue for what its own certificate permits (RFC 5280 section 4.2.1.10)."""
    limits = x509.NameConstraints([x509.DNSName("example.org")], None)
    limited = ROOT.intermediate("Limited", extra=[(limits, True)])
    assert _failures(_verify(limited.issue(HOST))) == [Reason.CHAIN_INVALID]
    assert _verify(limited.issue("www.example.org"), name="www.example.org") == []


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "good"),
    [
        ((), (), ("a.example.com",), True),
        (("example.com",), (), ("example.com", "a.b.Example.com", "*.example.com"), True),
        ((".example.com",), (), ("a.example.com",), True),
        (("example.com",), (), ("a.example.com", "badexample.com"), False),
        ((), ("secret.example.com",), ("a.example.com",), True),
        ((), ("secret.example.com",), ("x.secret.example.com",), False),
        ((), ("secret.example.com",), ("*.example.com",), False),
        ((), ("",), ("a.example.com",), False),
        (("192.0.2.0/24",), (), ("192.0.2.9",), True),
        (("192.0.2.0/24",), (), ("198.51.100.1",), False),
        ((), ("::/0",), ("2001:db8::1",), False),
        (("example.com",), ("0.0.0.0/0",), ("a.example.com",), True),
    ],
)
def test_limits_on_names(
    permitted: tuple[str, ...], excluded: tuple[str, ...], names: tuple[str, ...], good: bool
) -> None:
    """A CA limited to some names must not vouch for others, not even through a wildcard."""

    def trees(texts: tuple[str, ...]) -> list[x509.GeneralName] | None:
        made: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_network(text)) if "/" in text else x509.DNSName(text)
            for text in texts
        ]
        return made or None

    extra = []
    if permitted or excluded:
        limit = x509.NameConstraints(trees(permitted), trees(excluded))
        extra.append((limit, True))
    limited = ROOT.intermediate("Limited", extra=extra)
    assert respected(limited.issue(*names).leaf, [limited.certificate]) is good


def test_limits_on_directory_names_do_not_fail_good_chains() -> None:
    """The verifier knows no limits on directory names, but regular clients do."""
    limit = x509.NameConstraints([x509.DNSName("example.com"), x509.DirectoryName(_NAME)], None)
    limited = ROOT.intermediate("Limited", extra=[(limit, True)])
    assert _failures(_leniently(limited.issue(HOST, subject=""))) == []


_NAME = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")])


def test_usage_of_the_intermediate_counts() -> None:
    """A CA for client certificates cannot vouch for servers."""
    clients = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    limited = ROOT.intermediate("Clients only", extra=[(clients, False)])
    assert _failures(_verify(limited.issue(HOST))) == [CertificateReason.WRONG_USAGE]


def test_weak_root_and_weak_leaf() -> None:
    """Every key of the chain counts; the verifier itself leaves out the leaf's."""
    weak = Authority.root("Weak Root", key=rsa_key(1024))
    anchors = TrustAnchors([weak.certificate], "the profile's trust anchors")
    assert _failures(_verify(weak.issue(HOST), anchors=anchors)) == [CertificateReason.WEAK_KEY]
    leaf = CA.issue(HOST, key=rsa_key(1024))
    assert _failures(_verify(leaf)) == [CertificateReason.WEAK_KEY]


def test_cross_signed_chain_is_good_by_either_way() -> None:
    """One expired way out of two must not fail the chain, as happened to many in 2021."""
    key = new_key()
    gone = Authority.root("Gone", not_after=NOW - DAY)
    young = Authority.root("Young", key=key)
    crossed = x509.CertificateBuilder(
        issuer_name=gone.certificate.subject,
        subject_name=young.certificate.subject,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW - 900 * DAY,
        not_valid_after=NOW + 900 * DAY,
        extensions=list(young.certificate.extensions),
    ).sign(gone.key, hashes.SHA256())
    issued = young.intermediate().issue(HOST)
    anchors = TrustAnchors([gone.certificate, young.certificate], "the profile's trust anchors")
    findings = verify_chain(issued.leaf, [*issued.intermediates, crossed], anchors, HOST, NOW)
    assert _failures(findings) == []


def test_where_the_issuer_is_found_is_told() -> None:
    """The certificate often says itself where its issuer is to be had."""
    place = x509.UniformResourceIdentifier("http://ca.example.com/issuer.der")
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
    aia = x509.AuthorityInformationAccess([access])
    leaf = CA.issue(HOST, extra=[(aia, False)]).leaf
    (finding,) = verify_chain(leaf, [], ANCHORS, HOST, NOW)
    assert finding.code is Reason.CHAIN_INCOMPLETE
    assert "http://ca.example.com/issuer.der" in finding.message


def test_many_certificates_of_one_name_do_not_take_for_ever() -> None:
    """A hostile server can send certificates that all claim to have issued each other."""
    crowd = [Authority.root("Crowd").certificate for _ in range(60)]
    leaf = Authority.root("Crowd").issue(HOST).leaf
    findings = verify_chain(leaf, crowd, ANCHORS, HOST, NOW)
    assert Reason.CHAIN_LONG in {f.code for f in findings}
    assert _failures(findings)


@pytest.mark.parametrize(
    ("names", "name", "good"),
    [
        ((HOST,), HOST, True),
        ((HOST,), "WWW.EXAMPLE.COM.", True),
        (("*.example.com",), HOST, True),
        (("*.example.com",), "example.com", False),
        (("*.example.com",), "a.b.example.com", False),
        (("*.example.com",), "*.example.com", True),
        (("w*.example.com",), HOST, False),
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        (("2001:db8::1",), "2001:0db8:0:0::1", True),
        ((HOST,), "192.0.2.1", False),
    ],
)
def test_coverage_of_names(names: tuple[str, ...], name: str, good: bool) -> None:
    """RFC 9525: one label for a wildcard, and IP addresses only among IP names."""
    assert covers(CA.issue(*names).leaf, name) is good


def test_dns_name_that_looks_like_an_address_does_not_cover_it() -> None:
    """An IP address written as DNS name is no IP name (CVE-2021-44531 and others)."""
    leaf = CA.issue(extra=[(x509.SubjectAlternativeName([x509.DNSName("192.0.2.1")]), False)]).leaf
    assert not covers(leaf, "192.0.2.1")
