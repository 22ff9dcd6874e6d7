"""Testing installation against real TLS servers with every kind of fault."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from certrail.model import Chain, fingerprint, serial_text
from certrail.tls.client import Client
from certrail.tls.findings import Reason
from certrail.tls.probe import ProbeReport, ProbeTarget, probe
from certrail.x509.findings import CertificateReason
from tests.support.process import free_port
from tests.support.tls_servers import (
    DAY,
    NOW,
    Authority,
    Issued,
    pem,
    rsa_key,
    scripted_server,
    self_signed,
    server_context,
    tls_server,
)

HOST = "www.example.com"


@pytest.fixture(scope="module")
def root() -> Authority:
    """The root that clients trust."""
    return Authority.root()


@pytest.fixture(scope="module")
def ca(root: Authority) -> Authority:
    """An intermediate below it."""
    return root.intermediate()


def _codes(report: ProbeReport) -> tuple[set[str], set[str]]:
    """Return the codes of failures and of warnings."""
    return {str(f.code) for f in report.failures}, {str(f.code) for f in report.warnings}


def _target(port: int, root: Authority, host: str = HOST, **more: object) -> ProbeTarget:
    target = ProbeTarget(host, port, addresses=(f"127.0.0.1:{port}",), roots=pem(root.certificate))
    return replace(target, **more)  # type: ignore[arg-type]


def test_correct_installation_is_reported_in_one_line(root: Authority, ca: Authority) -> None:
    """The line is what people see beside the step."""
    issued = ca.issue(HOST)
    with tls_server(issued) as port:
        report = probe(_target(port, root, fingerprint=fingerprint(issued.leaf), names=(HOST,)))
    assert report.ok
    assert report.detail == (
        f"TLS 1.3 at 127.0.0.1:{port}: leaf matches, chain trusted, names match"
    )
    assert _codes(report) == (set(), set())
    presented = report.results[0].presented
    assert presented.chain == Chain.of(list(issued.chain))
    assert presented.cipher.startswith("TLS_")


def _regular_client_accepts(port: int, root: Authority, host: str) -> bool:
    """Ask the standard library's client, which knows nothing of our code."""
    context = ssl.create_default_context(cadata=pem(root.certificate))
    context.hostname_checks_common_name = False  # as browsers, Go and others have it
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


@pytest.mark.parametrize("case", range(16))
def test_verdict_is_that_of_a_regular_client(root: Authority, ca: Authority, case: int) -> None:
    """Stricter or laxer than real clients would both be wrong: each case is put to both."""
    issued = ca.issue(HOST)
    lower = ca.intermediate("Lower").issue(HOST)
    stranger = Authority.root("Stranger").intermediate("Strange").issue(HOST)
    constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
    cases: list[tuple[Issued, tuple[x509.Certificate, ...], str]] = [
        (issued, issued.chain, HOST),
        (issued, (issued.leaf,), HOST),
        (stranger, stranger.chain, HOST),
        (issued, issued.chain, "other.example.com"),
        (issued, (*issued.chain, root.certificate), HOST),
        (lower, (lower.leaf, *reversed(lower.intermediates)), HOST),
        (lower, lower.chain[:2], HOST),
        (short := ca.issue(HOST, not_before=NOW - 9 * DAY, not_after=NOW - DAY), short.chain, HOST),
        (early := ca.issue(HOST, not_before=NOW + DAY), early.chain, HOST),
        (wild := ca.issue("*.example.com"), wild.chain, HOST),
        (wild, wild.chain, "a.b.example.com"),
        (address := ca.issue("127.0.0.1"), address.chain, "127.0.0.1"),
        (empty := ca.issue(HOST, subject=""), empty.chain, HOST),
        (bare := ca.issue(subject=HOST), bare.chain, HOST),
        (
            limited := ca.intermediate("Limited", extra=[(constraints, True)]).issue(HOST),
            limited.chain,
            HOST,
        ),
        (
            client := ca.issue(HOST, usages=[ExtendedKeyUsageOID.CLIENT_AUTH]),
            client.chain,
            HOST,
        ),
    ]
    served, sent, host = cases[case]
    with tls_server(served, sent=sent) as port:
        report = probe(_target(port, root, host, client=Client.OPENSSL))
        assert report.ok is _regular_client_accepts(port, root, host), report.detail


def test_report_goes_through_json(root: Authority, ca: Authority) -> None:
    """The report is stored and shown by other programs."""
    issued = ca.issue(HOST)
    with tls_server(issued) as port:
        data = json.loads(json.dumps(probe(_target(port, root)).to_json()))
    assert data["ok"] is True
    (address,) = data["addresses"]
    assert address["fingerprint"] == fingerprint(issued.leaf)
    assert address["serial"] == serial_text(issued.leaf)
    assert address["chain_length"] == 2


def test_missing_intermediate_is_told_from_unknown_ca(root: Authority, ca: Authority) -> None:
    """OpenSSL has one code for both, but one is a server's fault and one the client's trust."""
    issued = ca.issue(HOST)
    with tls_server(issued, sent=[issued.leaf]) as port:
        alone = probe(_target(port, root))
        known = probe(_target(port, root, issued=Chain.of(list(issued.chain))))
    assert _codes(alone) == _codes(known) == ({Reason.CHAIN_INCOMPLETE}, set())
    assert "was issued but is not sent" in known.detail
    stranger = Authority.root("Stranger Root").intermediate("Stranger").issue(HOST)
    with tls_server(stranger) as port:
        assert _codes(probe(_target(port, root))) == ({Reason.UNTRUSTED_ROOT}, set())


def test_missing_second_intermediate_is_seen_with_the_issued_chain(
    root: Authority, ca: Authority
) -> None:
    """A chain cut higher up looks like an unknown CA unless the issued chain is known."""
    issued = ca.intermediate("Lower").issue(HOST)
    with tls_server(issued, sent=issued.chain[:2]) as port:
        report = probe(_target(port, root, issued=Chain.of(list(issued.chain))))
    assert _codes(report) == ({Reason.CHAIN_INCOMPLETE}, set())


def test_untrusted_root_in_the_chain_is_named(root: Authority) -> None:
    """People see which CA to add, or that the wrong one issued."""
    other = Authority.root("Other Root")
    issued = other.intermediate("Other Intermediate").issue(HOST)
    with tls_server(issued, sent=[*issued.chain, other.certificate]) as port:
        report = probe(_target(port, root))
    assert _codes(report) == ({Reason.UNTRUSTED_ROOT}, {Reason.ROOT_INCLUDED})
    assert "Other Root" in report.detail


def test_forged_root_of_the_same_name_is_not_trusted(root: Authority) -> None:
    """A name is not a key."""
    issued = Authority.root().issue(HOST)
    with tls_server(issued) as port:
        report = probe(_target(port, root))
    assert _codes(report)[0] == {Reason.CHAIN_INVALID}
    assert "has no signature of it" in report.detail


def test_self_signed_certificate_fails(root: Authority) -> None:
    """The usual default of a fresh server."""
    with tls_server(self_signed(HOST)) as port:
        report = probe(_target(port, root))
    assert CertificateReason.SELF_SIGNED in _codes(report)[0]


def test_self_signed_certificate_passes_where_it_is_the_anchor() -> None:
    """A pinned self-signed certificate is a trust anchor like any other to most clients."""
    issued = self_signed(HOST)
    with tls_server(issued) as port:
        target = ProbeTarget(HOST, port, addresses=(f"127.0.0.1:{port}",), roots=pem(issued.leaf))
        report = probe(target)
    assert report.ok, report.detail


@pytest.mark.parametrize(
    ("names", "host", "good"),
    [
        (["*.example.com"], "www.example.com", True),
        (["*.example.com"], "a.b.example.com", False),
        (["*.example.com"], "example.com", False),
        (["other.example.com"], "www.example.com", False),
        (["WWW.example.com"], "www.EXAMPLE.com", True),
        ([], "www.example.com", False),
    ],
)
def test_names_are_matched_as_clients_do(
    root: Authority, ca: Authority, names: list[str], host: str, good: bool
) -> None:
    """A wildcard stands for one label, and only subject alternative names count."""
    with tls_server(ca.issue(*names, subject="www.example.com")) as port:
        report = probe(_target(port, root, host))
    assert _codes(report)[0] == (set() if good else {Reason.NAME_MISMATCH})


def test_wrong_name_tells_whose_certificate_it_is(root: Authority, ca: Authority) -> None:
    """The names served say which site answered instead."""
    with tls_server(ca.issue("a.example.com", "b.example.com")) as port:
        report = probe(_target(port, root))
    assert "it is for a.example.com, b.example.com" in report.detail


def test_expected_names_must_all_be_covered(root: Authority, ca: Authority) -> None:
    """The name connected to may fit while another of the order is missing."""
    with tls_server(ca.issue(HOST, "*.img.example.com")) as port:
        wanted = (HOST, "*.img.example.com", "x.img.example.com", "api.example.com")
        report = probe(_target(port, root, names=wanted))
    assert _codes(report)[0] == {Reason.NAME_MISMATCH}
    assert "expected: api.example.com" in report.detail


def test_ip_addresses_need_their_own_kind_of_name(root: Authority, ca: Authority) -> None:
    """An IP address is looked for among IP names, never among DNS names, and without SNI."""
    roots = pem(root.certificate)
    with tls_server(ca.issue("127.0.0.1")) as port:
        assert probe(ProbeTarget("127.0.0.1", port, roots=roots)).ok
    with tls_server(ca.issue(HOST)) as port:
        report = probe(ProbeTarget("127.0.0.1", port, roots=roots))
        assert _codes(report)[0] == {Reason.NAME_MISMATCH}


def test_ipv6_is_probed(root: Authority, ca: Authority) -> None:
    """AAAA records serve clients too."""
    with tls_server(ca.issue("::1"), host="::1") as port:
        report = probe(ProbeTarget("::1", port, roots=pem(root.certificate)))
    assert report.ok, report.detail
    assert f"[::1]:{port}" in report.detail


def test_expired_and_not_yet_valid(root: Authority, ca: Authority) -> None:
    """Dates are judged at the given moment; skewed clocks are the usual cause of the second."""
    old = ca.issue(HOST, not_before=NOW - 90 * DAY, not_after=NOW - DAY)
    with tls_server(old) as port:
        report = probe(_target(port, root))
        assert _codes(report) == ({Reason.EXPIRED}, set())
        assert probe(_target(port, root), now=NOW - 2 * DAY).ok
        early = probe(_target(port, root), now=NOW - 100 * DAY)
    assert _codes(early) == ({Reason.NOT_YET_VALID}, set())
    assert "clocks" in early.detail


def test_all_faults_of_a_certificate_are_reported_at_once(root: Authority) -> None:
    """Whoever repairs it should not have to come back for the next fault."""
    other = Authority.root("Other Root").intermediate("Other Intermediate")
    issued = other.issue("x.example.com", not_before=NOW - 90 * DAY, not_after=NOW - DAY)
    with tls_server(issued) as port:
        report = probe(_target(port, root, fingerprint=fingerprint(root.certificate)))
    assert _codes(report)[0] == {
        Reason.LEAF_DIFFERS,
        Reason.NAME_MISMATCH,
        Reason.EXPIRED,
        Reason.UNTRUSTED_ROOT,
    }


def test_expired_intermediate_and_root(root: Authority) -> None:
    """The leaf outlives its issuers more often than people expect."""
    stale = root.intermediate("Stale", not_after=NOW - DAY)
    with tls_server(stale.issue(HOST)) as port:
        report = probe(_target(port, root))
    assert _codes(report) == ({Reason.EXPIRED}, set())
    assert "'Stale' expired" in report.detail
    gone = Authority.root("Gone", not_after=NOW - DAY)
    with tls_server(gone.intermediate("Fresh").issue(HOST)) as port:
        report = probe(_target(port, gone))
    assert _codes(report) == ({Reason.EXPIRED_ROOT}, set())


def test_untidy_chains_only_warn(root: Authority, ca: Authority) -> None:
    """Clients put up with them, so the installation stands; people should still know."""
    issued = ca.intermediate("Lower").issue(HOST)
    leaf, lower, upper = issued.chain
    stray = Authority.root("Stray").intermediate("Stray Intermediate").certificate
    cases = {
        (leaf, upper, lower): {Reason.CHAIN_MISORDERED},
        (leaf, lower, upper, root.certificate): {Reason.ROOT_INCLUDED},
        (leaf, lower, upper, stray): {Reason.CHAIN_EXTRA},
        (leaf, lower, upper, lower): {Reason.CHAIN_EXTRA},
    }
    for sent, expected in cases.items():
        with tls_server(issued, sent=sent) as port:
            report = probe(_target(port, root))
        assert _codes(report) == (set(), set(expected))


def test_old_leaf_still_served_is_described(root: Authority, ca: Authority) -> None:
    """The commonest failed installation: the reload never happened."""
    old, new = ca.issue(HOST), ca.issue(HOST)
    with tls_server(old) as port:
        report = probe(_target(port, root, fingerprint=fingerprint(new.leaf)))
    assert _codes(report) == ({Reason.LEAF_DIFFERS}, set())
    assert serial_text(old.leaf) in report.detail
    assert f"{old.leaf.not_valid_after_utc:%Y-%m-%d}" in report.detail


def test_every_address_is_probed(root: Authority, ca: Authority) -> None:
    """Behind a load balancer one stale member is enough to fail some clients."""
    new, old = ca.issue(HOST), ca.issue(HOST)
    with tls_server(new) as first, tls_server(new, host="127.0.0.2") as second:
        with tls_server(old, host="127.0.0.3") as third:
            addresses = (f"127.0.0.1:{first}", f"127.0.0.2:{second}", f"127.0.0.3:{third}")
            loose = ProbeTarget(HOST, addresses=addresses, roots=pem(root.certificate))
            report = probe(replace(loose, fingerprint=fingerprint(new.leaf)))
            assert [result.ok for result in report.results] == [True, True, False]
            assert _codes(report) == ({Reason.LEAF_DIFFERS}, {Reason.ADDRESSES_DISAGREE})
            assert report.detail.startswith("3 addresses, 1 of them failed: ")
            undemanding = probe(loose)
            assert _codes(undemanding) == ({Reason.ADDRESSES_DISAGREE}, set())
        assert probe(replace(loose, addresses=addresses[:2])).detail.startswith(
            "2 addresses all good: "
        )
        dead = probe(loose)
    assert _codes(dead)[0] == {Reason.UNREACHABLE}


def test_names_resolve_to_all_their_addresses(root: Authority, ca: Authority) -> None:
    """Without explicit addresses the system's resolver decides, as for any client."""
    with tls_server(ca.issue("localhost")) as port:
        report = probe(ProbeTarget("localhost", port, roots=pem(root.certificate)))
    at_four = next(r for r in report.results if r.address.startswith("127.0.0.1"))
    assert at_four.ok, at_four.detail


def test_unknown_name_and_closed_port_are_unreachable(root: Authority) -> None:
    """Not an error of the program: a finding with a remedy."""
    for target in (
        ProbeTarget("does-not-exist.invalid", 443),
        ProbeTarget("127.0.0.1", free_port()),
        ProbeTarget("x" * 70 + ".example.com", 443),
    ):
        report = probe(replace(target, roots=pem(root.certificate)))
        assert not report.ok
        assert _codes(report) == ({Reason.UNREACHABLE}, set())
        assert report.failures[0].remedy


def test_tls_1_2_is_enough(root: Authority, ca: Authority) -> None:
    """Regular clients take TLS 1.2 as well."""

    def prepare(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with tls_server(ca.issue(HOST), prepare=prepare) as port:
        report = probe(_target(port, root))
    assert report.ok
    assert report.detail.startswith("TLS 1.2 at")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_a_failure_that_still_shows_the_certificate(
    root: Authority, ca: Authority
) -> None:
    """Clients refuse the version, and people see what would be served."""

    def prepare(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    issued = ca.issue(HOST)
    with tls_server(issued, prepare=prepare) as port:
        report = probe(_target(port, root, fingerprint=fingerprint(issued.leaf)))
    assert _codes(report) == ({Reason.OLD_TLS}, set())
    assert report.results[0].matched


def test_client_certificates_do_not_stand_in_the_way(root: Authority, ca: Authority) -> None:
    """A server for mutual TLS ends the handshake, but not before its own part is proven."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):

        def prepare(context: ssl.SSLContext, version: ssl.TLSVersion = version) -> None:
            context.maximum_version = version
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=pem(root.certificate))

        with tls_server(ca.issue(HOST), prepare=prepare) as port:
            report = probe(_target(port, root))
        assert report.ok, report.detail
        assert _codes(report)[1] <= {Reason.CLIENT_CERTIFICATE_WANTED}


def test_sni_decides_which_site_answers(root: Authority, ca: Authority) -> None:
    """The name sent is the endpoint's, not the address connected to; None sends none."""
    default, named = ca.issue("default.example.com"), ca.issue(HOST)
    other = server_context(named)

    def prepare(context: ssl.SSLContext) -> None:
        def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name == HOST:
                sock.context = other

        context.sni_callback = choose

    with tls_server(default, prepare=prepare) as port:
        assert probe(_target(port, root)).ok
        silent = probe(_target(port, root, sni=None))
    assert silent.results[0].presented.fingerprint == fingerprint(default.leaf)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "plain HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"220 mail.example.com ESMTP\r\n", "SMTP"),
        (b"\x00\x01\x02garbage", "something else than TLS"),
        (b"\x1b[2Jevil", r"\\x1b[2Jevil"),
    ],
)
def test_other_protocols_are_recognised(root: Authority, answer: bytes, words: str) -> None:
    """The port is right but TLS is not: the endpoint's settings are wrong, not the certificate."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with scripted_server(talk) as port:
        report = probe(_target(port, root))
    assert _codes(report) == ({Reason.WRONG_PROTOCOL}, set())
    assert words in report.detail
    assert "\x1b" not in report.detail


def test_weak_key_and_wrong_usage_fail(root: Authority, ca: Authority) -> None:
    """A chain may be complete and still be refused for what the leaf is."""
    with tls_server(ca.issue(HOST, key=rsa_key(1024))) as port:
        assert _codes(probe(_target(port, root)))[0] == {CertificateReason.WEAK_KEY}
    with tls_server(ca.issue(HOST, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])) as port:
        assert _codes(probe(_target(port, root)))[0] == {CertificateReason.WRONG_USAGE}


def test_key_of_another_certificate_is_recognised(root: Authority, ca: Authority) -> None:
    """Tomcat and others reload such a pair and break every handshake.

    No TLS library lets us start such a server, so one is made by exchanging
    the certificate on its way, where TLS 1.2 sends it in the clear.
    """

    def prepare(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    served = ca.issue(HOST)
    shown = ca.issue(HOST)
    while len(_der(shown)) != len(_der(served)):
        shown = ca.issue(HOST)

    with tls_server(served, prepare=prepare) as inner:

        def talk(connection: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", inner), 5) as server:
                server.sendall(connection.recv(16384))
                flight = server.recv(16384)
                connection.sendall(flight.replace(_der(served), _der(shown)))
                connection.recv(16384)

        with scripted_server(talk) as port:
            report = probe(_target(port, root, fingerprint=fingerprint(shown.leaf)))
    assert _codes(report)[0] == {Reason.KEY_MISMATCH}, report.detail


def _der(issued: Issued) -> bytes:
    return issued.leaf.public_bytes(Encoding.DER)


@pytest.mark.parametrize("suite", ["NULL-SHA256", "AECDH-AES128-SHA"])
def test_suites_that_clients_refuse_are_a_failure_with_a_reason(
    root: Authority, suite: str
) -> None:
    """An old appliance may agree to nothing that a current client offers."""

    def prepare(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{suite}:@SECLEVEL=0")

    with tls_server(root.issue(HOST, key=rsa_key(2048)), prepare=prepare) as port:
        report = probe(_target(port, root))
    anonymous = suite.startswith("AECDH")
    expected = {Reason.WEAK_HANDSHAKE} | ({Reason.NO_CERTIFICATE} if anonymous else set())
    assert _codes(report)[0] == expected
    assert suite in report.detail


def test_name_that_no_site_has_is_explained(root: Authority, ca: Authority) -> None:
    """Strict SNI on a load balancer: the certificate is there, its site is not."""

    def prepare(context: ssl.SSLContext) -> None:
        context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    with tls_server(ca.issue(HOST), prepare=prepare) as port:
        report = probe(_target(port, root))
    assert _codes(report) == ({Reason.HANDSHAKE_FAILED}, set())
    assert "site for this name" in report.failures[0].remedy


@pytest.mark.parametrize("stapling", [False, True])
def test_must_staple_is_watched(root: Authority, ca: Authority, stapling: bool) -> None:
    """Firefox refuses such a certificate without a stapled response (RFC 7633)."""
    demand = x509.TLSFeature([x509.TLSFeatureType.status_request])
    issued = ca.issue(HOST, extra=[(demand, False)])
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(issued.leaf)
    assert isinstance(issued.key, ec.EllipticCurvePrivateKey)
    context.use_privatekey(issued.key)
    context.add_extra_chain_cert(issued.intermediates[0])
    staple = ca.ocsp_response(issued.leaf) if stapling else b""
    context.set_ocsp_server_callback(lambda *_: staple)

    def talk(connection: socket.socket) -> None:
        server = SSL.Connection(context, connection)
        server.set_accept_state()
        with contextlib.suppress(SSL.Error):
            server.do_handshake()
            server.recv(1)

    with scripted_server(talk) as port:
        report = probe(_target(port, root))
    assert _codes(report) == (set(), set() if stapling else {Reason.MUST_STAPLE})


def test_name_or_trust_can_be_left_out(root: Authority, ca: Authority) -> None:
    """Pinned certificates need no CA, and some endpoints are reached by a name of no matter."""
    other = ca.issue("other.example.com")
    with tls_server(other) as port:
        report = probe(_target(port, root, verify_name=False))
        assert report.ok
        assert report.detail.endswith("chain trusted")
    pinned = self_signed(HOST)
    with tls_server(pinned) as port:
        target = _target(port, root, verify_trust=False, fingerprint=fingerprint(pinned.leaf))
        report = probe(target)
        assert report.ok
        assert report.detail.endswith("leaf matches, names match")
        assert _codes(report)[1] == {CertificateReason.SELF_SIGNED}
        assert _codes(probe(target, now=NOW + 100 * DAY))[0] == {Reason.EXPIRED}


def test_many_probes_at_once_share_trust_and_settings(root: Authority, ca: Authority) -> None:
    """A bulk job runs them in threads of one process."""
    issued = [ca.issue(f"h{number}.example.com") for number in range(4)]
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(tls_server(each)) for each in issued]
        targets = [
            _target(ports[n % 4], root, f"h{n % 4}.example.com", fingerprint=fingerprint(each.leaf))
            for n in range(64)
            for each in (issued[n % 4],)
        ]
        with ThreadPoolExecutor(16) as pool:
            reports = list(pool.map(probe, targets))
    assert [report.detail for report in reports if not report.ok] == []


@pytest.fixture
def stalled() -> Iterator[int]:
    """A server that accepts and says nothing."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with scripted_server(talk) as port:
        yield port


def test_silent_server_ends_at_the_deadline(root: Authority, stalled: int) -> None:
    """One dead member must not hold up a bulk job."""
    report = probe(_target(stalled, root, timeout=timedelta(seconds=0.3)))
    assert _codes(report) == ({Reason.TIMED_OUT}, set())
    assert "did not finish the handshake within 0.3 s" in report.detail
