"""From order to certificate against Pebble."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from certrail.acme.ca import AcmeCa
from certrail.errors import InvalidRequest, NotFound, PermissionRefused, Rejected
from certrail.keys.generate import generate
from certrail.model import (
    AuthorizationStatus,
    ChallengeKind,
    KeyAlgorithm,
    Order,
    OrderStatus,
    RevocationReason,
    SubjectSpec,
    subject_names,
)
from certrail.wait import Pending
from certrail.x509.csr import build_csr
from tests.integration.acme.conftest import Connect
from tests.support.acme_client import Publisher, collect, finalize, issue, settle, spec, validate
from tests.support.pebble import ChallengeServer, Pebble, pebble


def test_dns01_for_apex_and_wildcard(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """Two TXT values at one name, one for each authorization, and both must be right."""
    names = (f"*.{name}", name)

    chain = issue(connect(shared_pebble), names, dns)

    assert set(subject_names(chain.leaf)) == set(names)
    assert len({challenge.txt_value for challenge in dns.published}) == len(dns.published)
    assert {challenge.record_name for challenge in dns.published} == {f"_acme-challenge.{name}"}


def test_http01(shared_pebble: Pebble, connect: Connect, http: Publisher, name: str) -> None:
    """The CA fetches token and key authorization over HTTP."""
    chain = issue(connect(shared_pebble), [name], http, ChallengeKind.HTTP_01)

    assert subject_names(chain.leaf) == (name,)


def test_ip_addresses(shared_pebble: Pebble, connect: Connect, http: Publisher) -> None:
    """RFC 8738: identifiers of the type ip, proven by http-01."""
    chain = issue(connect(shared_pebble), ["127.0.0.1"], http, ChallengeKind.HTTP_01)

    assert subject_names(chain.leaf) == ("127.0.0.1",)


def test_every_second_nonce_refused(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """Refusals in a row are normal then; a client that retries once fails."""
    with pebble(tmp_path, answers=answers, nonce_reject=50) as server:
        ca = connect(server)
        for number in range(5):
            issue(ca, [f"{number}.{name}"], dns)


def test_valid_authorizations_are_used_again(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """A name proven before asks for nothing; the step "Domain validated" is skipped then."""
    with pebble(tmp_path, answers=answers, authz_reuse=100) as server:
        ca = connect(server)
        issue(ca, [name], dns)
        order = ca.open_order(spec(name, key="second"))
        (authorization,) = ca.authorizations(order)

        assert order.status is OrderStatus.READY
        assert authorization.status is AuthorizationStatus.VALID
        assert authorization.expires is not None
        assert validate(ca, order, dns, ChallengeKind.DNS_01) == 0


def test_without_reuse_every_order_is_validated(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """The other half of Pebble's coin."""
    with pebble(tmp_path, answers=answers, authz_reuse=0) as server:
        ca = connect(server)
        issue(ca, [name], dns)
        order = ca.open_order(spec(name, key="second"))

        assert validate(ca, order, dns, ChallengeKind.DNS_01) == 1


def reread(order: Order) -> Order:
    """Return *order* as another process reads it from the store."""
    return Order.from_json(json.loads(json.dumps(order.to_json())))


def test_an_order_goes_on_in_another_process(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """After a crash, everything comes from the stored order; nothing is ordered twice."""
    before = shared_pebble.order_count()
    order = reread(connect(shared_pebble).open_order(spec(name)))
    validate(connect(shared_pebble), order, dns, ChallengeKind.DNS_01)
    order, _ = finalize(connect(shared_pebble), order, [name])
    chain = collect(connect(shared_pebble), reread(order))
    again = collect(connect(shared_pebble), connect(shared_pebble).reopen(reread(order)))

    assert chain == again
    assert shared_pebble.order_count() == before + 1


def test_only_the_orders_url_is_needed(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """Order rows written by an earlier version may lack what this one keeps beside the URL."""
    ca = connect(shared_pebble)
    order = replace(ca.open_order(spec(name)), data={})
    validate(ca, order, dns, ChallengeKind.DNS_01)
    order, _ = finalize(ca, replace(order, data={}), [name])

    assert subject_names(collect(ca, replace(order, data={})).leaf) == (name,)


def test_finalizing_twice_is_one_order(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """A crash after finalize and before it was noted repeats the call with the same CSR."""
    ca = connect(shared_pebble)
    order = ca.open_order(spec(name))
    validate(ca, order, dns, ChallengeKind.DNS_01)
    ready = settle(ca, order)
    csr = build_csr(SubjectSpec((name,)), generate(KeyAlgorithm.ECDSA_P256))
    issued = shared_pebble.certificate_count()

    first = ca.finalize(ready, csr)
    second = ca.finalize(ready, csr)
    third = ca.finalize(second, csr)
    chain = collect(ca, third)

    chain.must_answer(csr, (name,))
    assert {first.status, second.status, third.status} <= {
        OrderStatus.PROCESSING,
        OrderStatus.VALID,
    }
    assert shared_pebble.certificate_count() == issued + 1


def test_responding_twice_is_quiet(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """The step repeats the call after a crash; the CA has begun or is done."""
    ca = connect(shared_pebble)
    order = ca.open_order(spec(name))
    (authorization,) = ca.authorizations(order)
    challenge = next(c for c in authorization.challenges if c.kind is ChallengeKind.DNS_01)
    dns(challenge)

    ca.respond(order, challenge)
    ca.respond(order, challenge)
    validate(ca, order, dns, ChallengeKind.DNS_01)
    ca.respond(order, challenge)


def test_an_unready_order_is_pending_not_failed(
    shared_pebble: Pebble, connect: Connect, name: str
) -> None:
    """Collecting early is "not yet"."""
    ca = connect(shared_pebble)

    assert isinstance(ca.collect(ca.open_order(spec(name))), Pending)


def test_a_wrong_proof_is_told_in_the_cas_words(
    shared_pebble: Pebble, connect: Connect, answers: ChallengeServer, name: str
) -> None:
    """The name, what was looked for, and what to do about it."""
    ca = connect(shared_pebble)
    order = ca.open_order(spec(name))
    (authorization,) = ca.authorizations(order)
    challenge = next(c for c in authorization.challenges if c.kind is ChallengeKind.DNS_01)
    answers.set_txt(challenge.record_name, "something else")
    ca.respond(order, challenge)
    failed = settle(ca, order)

    (authorization,) = ca.authorizations(failed)
    with pytest.raises(Rejected) as caught:
        ca.collect(failed)

    assert failed.status is OrderStatus.INVALID
    assert authorization.status is AuthorizationStatus.INVALID
    assert authorization.problem
    assert authorization.problem_code == "urn:ietf:params:acme:error:unauthorized"
    assert name in str(caught.value)
    assert authorization.problem in str(caught.value)
    assert "published" in caught.value.remedy
    ca.respond(order, challenge)


def test_a_forbidden_name_is_rejected_with_its_name(
    shared_pebble: Pebble, connect: Connect
) -> None:
    """The person has to know which of the names it was."""
    with pytest.raises(Rejected) as caught:
        connect(shared_pebble).open_order(spec("www.blocked.test"))

    assert caught.value.code == "urn:ietf:params:acme:error:rejectedIdentifier"
    assert "blocked.test" in str(caught.value)


def test_a_csr_for_other_names_is_refused(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """The CA's word comes through, and the order is not taken for finalized."""
    ca = connect(shared_pebble)
    order = ca.open_order(spec(name))
    validate(ca, order, dns, ChallengeKind.DNS_01)

    with pytest.raises(PermissionRefused, match="CSR"):
        finalize(ca, order, [f"other.{name}"])


def test_an_order_nobody_knows_is_not_found(
    shared_pebble: Pebble, connect: Connect, name: str
) -> None:
    """The caller then makes a new one."""
    ca = connect(shared_pebble)
    order = ca.open_order(spec(name))

    with pytest.raises(NotFound):
        ca.reopen(replace(order, remote_id=order.remote_id + "x"))


def test_a_ca_without_profiles_refuses_one_before_ordering(
    shared_pebble: Pebble, connect: Connect, name: str
) -> None:
    """A profile silently ignored gives a certificate that nobody asked for."""
    before = shared_pebble.order_count()

    with pytest.raises(InvalidRequest, match="no profiles at all"):
        connect(shared_pebble).open_order(spec(name, profile="shortlived"))

    assert shared_pebble.order_count() == before


def test_a_ca_without_renewal_information(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """Nothing is asked, and no predecessor is named in an order."""
    ca = connect(shared_pebble)
    chain = issue(ca, [name], dns)

    order = ca.open_order(spec(name, key="second", replaces=ca.replaces_id(chain)))

    assert ca.renewal_info(chain) is None
    assert order.replaces == ""


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_revocation_reaches_the_ca(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str, reason: RevocationReason
) -> None:
    """With its reason; a second time is quiet."""
    numbers = {"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4}
    ca = connect(shared_pebble)
    chain = issue(ca, [name], dns)
    assert shared_pebble.certificate_status(chain.leaf.serial_number)[0] == "Valid"

    ca.revoke(chain, reason)
    ca.revoke(chain, reason)

    status = shared_pebble.certificate_status(chain.leaf.serial_number)
    assert status == ("Revoked", numbers.get(str(reason), 5))


def test_alternate_chains(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """The chain whose topmost issuer was asked for, without its root; else the default."""
    with pebble(
        tmp_path, answers=answers, alternate_roots=2, chain_length=2, authz_reuse=100
    ) as server:
        roots = server.root_names()
        found = {}
        for wanted in (*roots, "", "No Such Root"):
            chain = issue(connect(server, preferred_chain=wanted), [name], dns)
            top = chain.certificates[-1]
            found[wanted] = top.issuer.rfc4514_string().removeprefix("CN=")
            assert len(chain.pems) == 3
            assert top.issuer != top.subject

    assert [found[root] for root in roots] == roots
    assert found[""] == found["No Such Root"] == roots[0]


def test_one_connector_serves_many_threads(
    shared_pebble: Pebble, connect: Connect, answers: ChallengeServer, name: str
) -> None:
    """A bulk job shares it; each certificate must be for its own names."""
    ca = connect(shared_pebble)
    accounts = shared_pebble.account_count()

    def one(number: int) -> bool:
        host = f"{number}.{name}"
        chain = issue(ca, [host], Publisher(answers, ChallengeKind.DNS_01), key=host)
        return subject_names(chain.leaf) == (host,)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(16)))
    assert shared_pebble.account_count() == accounts + 1


def test_short_lived_certificates(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """Lifetimes of seconds, as the renewal tests use them."""
    with pebble(tmp_path, answers=answers, validity_seconds=90) as server:
        leaf = issue(connect(server), [name], dns).leaf

    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime.total_seconds() <= 91
    assert leaf.signature_hash_algorithm is not None
    assert leaf.signature_hash_algorithm.name == hashes.SHA256().name


def test_validation_that_takes_its_time(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """Pebble sleeps before it looks; "pending" without an error is not a failure."""
    with pebble(tmp_path, answers=answers, va_sleep=1) as server:
        issue(connect(server), [name, f"b.{name}"], dns)


def test_a_dead_zone_fails_the_validation(
    shared_pebble: Pebble, connect: Connect, answers: ChallengeServer, name: str
) -> None:
    """SERVFAIL from the authoritative server is the zone's fault, and told so."""
    ca: AcmeCa = connect(shared_pebble)
    order = ca.open_order(spec(name))
    (authorization,) = ca.authorizations(order)
    challenge = next(c for c in authorization.challenges if c.kind is ChallengeKind.DNS_01)
    answers.set_servfail(challenge.record_name)
    ca.respond(order, challenge)
    settle(ca, order)

    (authorization,) = ca.authorizations(order)

    assert authorization.problem_code in (
        "urn:ietf:params:acme:error:dns",
        "urn:ietf:params:acme:error:unauthorized",
    )


def test_an_order_whose_url_was_lost_is_found_again(
    shared_pebble: Pebble, connect: Connect, dns: Publisher, name: str
) -> None:
    """A crash between the CA's answer and our note; Pebble lists three orders a page."""
    ca = connect(shared_pebble)
    others = [ca.open_order(spec(f"{number}.{name}", key=str(number))) for number in range(4)]
    lost = ca.open_order(spec(name, f"*.{name}"))
    finished = ca.open_order(spec(f"done.{name}"))
    validate(ca, finished, dns, ChallengeKind.DNS_01)
    finalize(ca, finished, [f"done.{name}"])

    (found,) = ca.unfinished_orders([f"*.{name}", name])

    assert found.remote_id == lost.remote_id
    assert [each.name for each in ca.authorizations(found)] == [f"*.{name}", name]
    assert ca.unfinished_orders([f"done.{name}"]) == ()
    assert ca.unfinished_orders([f"0.{name}"])[0].remote_id == others[0].remote_id
