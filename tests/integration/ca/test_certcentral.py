"""CertCentral: domains, products, approval, reissues, limits (against our imitation of it)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.ca.certcentral import CertCentral
from certrail.connectors import CertificateAuthority, OffersRenewalInfo, ValidatesDomains
from certrail.errors import (
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
)
from certrail.model import AuthorizationStatus, Chain, Order, OrderStatus, RevocationReason
from certrail.wait import Pending
from tests.integration.ca.issuing import collect, csr_for, spec
from tests.support.certcentral_api import CertCentralApi, certcentral_api
from tests.support.own_environment import own_environment

NAME = "www.example.test"
TXT: dict[str, set[str]] = {}


@pytest.fixture
def api() -> Iterator[CertCentralApi]:
    TXT.clear()
    with certcentral_api(lambda name: TXT.get(name, set())) as service:
        yield service


@contextmanager
def opened(api: CertCentralApi, **settings: Any) -> Iterator[CertificateAuthority]:
    given = {
        "url": api.base,
        "api_key": api.key,
        "organization_id": api.organization,
        "poll_interval": 0.02,
        **settings,
    }
    with CertCentral(**given).connect() as ca:
        yield ca


def prove(ca: CertificateAuthority, order: Order) -> int:
    """Publish and respond for what is pending; return how many names were."""
    assert isinstance(ca, ValidatesDomains)
    pending = [a for a in ca.authorizations(order) if a.status is AuthorizationStatus.PENDING]
    for state in pending:
        (proof,) = state.challenges
        TXT.setdefault(proof.record_name, set()).add(proof.txt_value)
        ca.respond(order, proof)
    return len(pending)


def issue(ca: CertificateAuthority, *names: str, **more: str) -> tuple[Order, Chain]:
    order = ca.open_order(spec(*names, **more))
    prove(ca, order)
    order = ca.finalize(order, csr_for(*names))
    return order, collect(ca, order)


def bodies(api: CertCentralApi) -> list[dict[str, Any]]:
    return [order.body for order in api.orders.values()]


def test_names_go_into_the_body(api: CertCentralApi) -> None:
    """CertCentral does not read them from the CSR."""
    with opened(api, validity_days=47) as ca:
        _, chain = issue(ca, NAME, "shop.example.test")

    (body,) = bodies(api)
    assert body["certificate"]["common_name"] == NAME
    assert body["certificate"]["dns_names"] == ["shop.example.test"]
    assert body["certificate"]["cert_validity"] == {"days": 47}
    assert body["dcv_method"] == "dns-txt-token"
    assert "ref-1" in body["comments"]
    assert chain.leaf.not_valid_after_utc < datetime.now(UTC) + timedelta(days=48)


def test_a_long_first_name_is_not_the_common_name(api: CertCentralApi) -> None:
    """Common names end at 64 characters."""
    long = f"{'x' * 60}.example.test"
    with opened(api) as ca:
        issue(ca, long, NAME)

    certificate = bodies(api)[0]["certificate"]
    assert (certificate["common_name"], certificate["dns_names"]) == (NAME, [long])


def test_a_domain_of_the_account_covers_names_below_it(api: CertCentralApi) -> None:
    """Proving each host name would mean thousands of records where one will do."""
    with opened(api) as ca:
        issue(ca, "example.test")
        order = ca.open_order(spec("a.b.example.test", "*.example.test", key="ref-2"))
        assert prove(ca, order) == 0

    assert len(api.domains) == 1


def test_a_domain_that_expired_is_submitted_again(api: CertCentralApi) -> None:
    """Proofs are valid for 199 days and less from year to year."""
    with opened(api) as ca:
        issue(ca, NAME)
    (domain,) = api.domains.values()
    domain.proven_until = None
    domain.token = ""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME, key="ref-2"))
        assert prove(ca, order) == 1
        assert isinstance(ca, ValidatesDomains)
        (state,) = ca.authorizations(order)

    assert state.status is AuthorizationStatus.VALID
    assert state.expires is not None


def test_a_token_that_expired_is_made_anew(api: CertCentralApi) -> None:
    """Tokens live for thirty days; an order may lie longer."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME))
        (domain,) = api.domains.values()
        domain.token_ends = datetime.now(UTC) - timedelta(days=1)
        old = domain.token

        assert prove(ca, order) == 1

    assert old not in TXT[NAME]


def test_an_extended_product_wants_an_extended_proof(api: CertCentralApi) -> None:
    """The domain is validated for OV and EV apart."""
    with opened(api) as ca:
        issue(ca, NAME)
        order = ca.open_order(spec(NAME, key="ref-2", profile="ssl_ev_basic"))
        prove(ca, order)
        order = ca.finalize(order, csr_for(NAME))
        collect(ca, order)

    (domain,) = api.domains.values()
    assert domain.submitted == {"ov", "ev"}
    assert [each.product for each in api.orders.values()] == ["ssl_basic", "ssl_ev_basic"]


def test_a_record_that_is_not_there_yet_is_looked_for_again(api: CertCentralApi) -> None:
    """DNS takes its time; the CA is asked again, without an error."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME))
        assert isinstance(ca, ValidatesDomains)
        (state,) = ca.authorizations(order)
        (proof,) = state.challenges
        ca.respond(order, proof)
        assert ca.authorizations(order)[0].status is AuthorizationStatus.PENDING
        TXT[NAME] = {proof.txt_value}
        assert ca.authorizations(order)[0].status is AuthorizationStatus.VALID


def test_nobody_looks_before_anything_is_published(api: CertCentralApi) -> None:
    """A "no such record" would be remembered by resolvers for a while."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME))
        assert isinstance(ca, ValidatesDomains)
        ca.authorizations(order)

    assert not [path for _, path in api.calls if path.endswith("validate-token")]


def test_private_products_want_no_proof(api: CertCentralApi) -> None:
    """Names inside need not exist in the public DNS."""
    with opened(api, product="private_ssl_flex") as ca:
        order = ca.open_order(spec("db.corp.internal"))
        assert isinstance(ca, ValidatesDomains)
        assert ca.authorizations(order) == ()
        collect(ca, ca.finalize(order, csr_for("db.corp.internal")))

    assert api.domains == {}
    assert "dcv_method" not in bodies(api)[0]


def test_addresses_are_refused_before_anything_is_ordered(api: CertCentralApi) -> None:
    """They cannot be proven by DNS."""
    with opened(api) as ca, pytest.raises(InvalidRequest, match=r"192\.0\.2\.1"):
        ca.open_order(spec(NAME, "192.0.2.1"))

    assert api.calls == []


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"product": "ssl_gold"}, "invalid_product_name_id"),
        ({"organization_id": 1}, "invalid_organization"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_told_in_the_services_words(
    api: CertCentralApi, settings: dict[str, Any], code: str
) -> None:
    """People look the code up."""
    with opened(api, **settings) as ca, pytest.raises(Rejected) as caught:
        issue(ca, NAME)

    assert caught.value.code == code
    assert api.orders == {}


def test_a_key_that_may_only_read_is_refused_not_unknown(api: CertCentralApi) -> None:
    """Correcting the key would not help; giving it a role does."""
    with opened(api, api_key=api.viewer_key) as ca:
        assert "robot@example.test" in ca.check()
        with pytest.raises(PermissionRefused) as caught:
            ca.open_order(spec(NAME))

    assert "role" in caught.value.remedy
    assert api.viewer_key not in str(caught.value)


def test_the_rate_limit_is_waited_for_while_collecting(api: CertCentralApi) -> None:
    """The order is placed; being asked to slow down is no failure of it."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME))
        prove(ca, order)
        order = ca.finalize(order, csr_for(NAME))
        api.limit = 0
        found = ca.collect(order)
        assert isinstance(found, Pending)
        assert found.retry_after is not None
        with pytest.raises(Throttled):
            ca.check()
        api.limit = 1000
        assert collect(ca, order).pems


def test_the_pause_grows_with_the_age_of_the_order(api: CertCentralApi) -> None:
    """An approval takes days; a thousand orders asked each second hit the limit."""
    with opened(api, skip_approval=False) as ca:
        order = ca.open_order(spec(NAME))
        prove(ca, order)
        order = ca.finalize(order, csr_for(NAME))
        young = ca.collect(order)
        old = replace(order, data={**order.data, "ordered_at": order.data["ordered_at"] - 7200})
        later = ca.collect(old)

    assert isinstance(young, Pending)
    assert isinstance(later, Pending)
    assert young.retry_after is not None
    assert later.retry_after is not None
    assert young.retry_after < timedelta(seconds=5)
    assert later.retry_after == timedelta(seconds=60)
    assert "approve" in later.why


def test_a_rejected_order_is_dead(api: CertCentralApi) -> None:
    """An administrator said no; the retry may open another."""
    with opened(api, skip_approval=False) as ca:
        order = ca.open_order(spec(NAME))
        prove(ca, order)
        order = ca.finalize(order, csr_for(NAME))
        api.reject(int(order.remote_id))
        with pytest.raises(Rejected) as caught:
            ca.collect(order)
        assert ca.reopen(order).status is OrderStatus.INVALID

    assert caught.value.code == "rejected"


def test_a_dead_order_is_not_found_again(api: CertCentralApi) -> None:
    """A request whose order was rejected has to be able to order once more."""
    csr = csr_for(NAME)
    with opened(api, skip_approval=False) as ca:
        ready = ca.open_order(spec(NAME))
        prove(ca, ready)
        first = ca.finalize(ready, csr)
        api.reject(int(first.remote_id))

        assert ca.finalize(ready, csr).remote_id != first.remote_id


def test_an_order_is_recognized_among_others_for_the_name(api: CertCentralApi) -> None:
    """Renewals every few weeks make many orders with one common name."""
    with opened(api, product="private_ssl_flex") as ca:
        for number in range(5):
            issue(ca, NAME, key=f"ref-{number}")
        ready = ca.open_order(spec(NAME, key="ref-x"))
        csr = csr_for(NAME)
        placed = ca.finalize(ready, csr)
        issue(ca, NAME, key="ref-y")

        assert ca.finalize(ready, csr).remote_id == placed.remote_id

    assert len(api.orders) == 7


def test_an_order_is_found_by_our_reference(api: CertCentralApi) -> None:
    """However many orders for the name came after it: it is not looked for among them."""
    with opened(api, product="private_ssl_flex") as ca:
        ready, csr = ca.open_order(spec(NAME, key="ref-x")), csr_for(NAME)
        placed = ca.finalize(ready, csr)
        for number in range(51):
            ca.finalize(ca.open_order(spec(NAME, key=f"ref-{number}")), csr_for(NAME))
        api.calls.clear()

        assert ca.finalize(ready, csr).remote_id == placed.remote_id

    paths = [path for _, path in api.calls]
    assert paths == [
        f"{api.prefix}/order/alternate/ref-x",
        f"{api.prefix}/order/certificate/{placed.remote_id}",
    ]
    assert bodies(api)[0]["alternative_order_id"] == "ref-x"


def test_our_reference_alone_is_not_enough(api: CertCentralApi) -> None:
    """Alternative ids need not be unique; an order for another key is not ours."""
    with opened(api, product="private_ssl_flex") as ca:
        ready = ca.open_order(spec(NAME, key="ref-x"))
        first = ca.finalize(ready, csr_for(NAME))

        assert ca.finalize(ready, csr_for(NAME)).remote_id != first.remote_id


def test_an_account_without_alternative_ids_is_ordered_from_all_the_same(
    api: CertCentralApi,
) -> None:
    """The order is placed once, without our reference, and found by its CSR."""
    api.alternative_ids = False
    with opened(api, product="private_ssl_flex") as ca:
        ready, csr = ca.open_order(spec(NAME)), csr_for(NAME)
        placed = ca.finalize(ready, csr)

        assert ca.finalize(ready, csr).remote_id == placed.remote_id

    (body,) = bodies(api)
    assert "alternative_order_id" not in body


@pytest.mark.parametrize("how", ["reissue", "duplicate"])
def test_a_certificate_is_replaced_within_its_order(api: CertCentralApi, how: str) -> None:
    """Orders are paid for by the year; what is left of one is used."""
    with opened(api, replacing=how) as ca:
        first, old = issue(ca, NAME)
        assert isinstance(ca, OffersRenewalInfo)
        assert ca.renewal_info(old) is None
        ready = ca.open_order(spec(NAME, key="ref-2", replaces=ca.replaces_id(old)))
        csr = csr_for(NAME)
        second = ca.finalize(ready, csr)
        new = collect(ca, second)
        assert collect(ca, ca.finalize(ready, csr)).fingerprint == new.fingerprint

    assert ready.replaces == ca.replaces_id(old)
    assert second.remote_id == first.remote_id
    assert new.fingerprint != old.fingerprint
    new.must_answer(csr, (NAME,))
    assert len(api.orders) == 1
    assert api.issued(NAME) == 2


def test_the_certificate_before_a_reissue_is_not_taken_for_the_new_one(
    api: CertCentralApi,
) -> None:
    """While a reissue is pending, the order still shows the old certificate."""
    with opened(api, replacing="reissue", skip_approval=False) as ca:
        ready = ca.open_order(spec(NAME))
        prove(ca, ready)
        first = ca.finalize(ready, csr_for(NAME))
        api.approve(int(first.remote_id))
        old = collect(ca, first)
        assert isinstance(ca, OffersRenewalInfo)
        again = ca.open_order(spec(NAME, key="ref-2", replaces=ca.replaces_id(old)))
        second = ca.finalize(again, csr_for(NAME))

        for _ in range(4):
            found = ca.collect(second)
            assert isinstance(found, Pending)
        assert isinstance(found, Pending)
        assert "reissue" in found.why
        api.approve(int(second.remote_id))
        assert collect(ca, second).fingerprint != old.fingerprint


@pytest.mark.parametrize(("days", "renews"), [(30, True), (200, False)])
def test_an_order_is_renewed_only_near_its_end(
    api: CertCentralApi, days: int, renews: bool
) -> None:
    """CertCentral takes renewals from ninety days before an order ends."""
    with opened(api) as ca:
        first, old = issue(ca, NAME)
        placed = api.orders[int(first.remote_id)]
        placed.ends = datetime.now(UTC) + timedelta(days=days)
        assert isinstance(ca, OffersRenewalInfo)
        issue(ca, NAME, key="ref-2", replaces=ca.replaces_id(old))

    newest = bodies(api)[-1]
    assert newest.get("renewal_of_order_id") == (placed.id if renews else None)


def test_a_predecessor_of_another_ca_is_left_out(api: CertCentralApi) -> None:
    """A site that moves to CertCentral has no order there."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME, replaces="0123456789ABCDEF"))

    assert order.replaces == ""


def test_a_mixed_up_download_is_not_installed(api: CertCentralApi) -> None:
    """The key decides, whatever the order says."""
    with opened(api) as ca:
        order, _ = issue(ca, NAME)
        (placed,) = api.orders.values()
        other = csr_for(NAME)
        placed.issues[0].leaf = api.ca.sign(other.pem, [NAME])

        found = ca.collect(order)

    assert isinstance(found, Pending)
    assert "another key" in found.why


def test_a_revocation_that_needs_approval_is_requested(api: CertCentralApi) -> None:
    """Not everybody may revoke at once; asking is then all that can be done."""
    with opened(api) as ca:
        _, chain = issue(ca, NAME)
    with opened(api, skip_approval=False) as ca:
        ca.revoke(chain, RevocationReason.KEY_COMPROMISE)

    assert api.by_serial(f"{chain.leaf.serial_number:X}")[1].revoked == "keyCompromise"


def test_a_strangers_certificate_cannot_be_revoked(api: CertCentralApi) -> None:
    """Success would be a lie."""
    with opened(api) as ca:
        chain = Chain.of([api.ca.sign(csr_for(NAME).pem, [NAME])])
        with pytest.raises(NotFound):
            ca.revoke(chain, RevocationReason.SUPERSEDED)


def test_an_order_without_certificate_id_is_asked_for(api: CertCentralApi) -> None:
    """The reply to an order has only the order's number."""
    with opened(api) as ca:
        order = ca.open_order(spec(NAME))
        prove(ca, order)
        order = ca.finalize(order, csr_for(NAME))

        assert "certificate" not in order.data
        assert collect(ca, order).pems


def test_a_page_of_another_service_is_unexpected(api: CertCentralApi) -> None:
    """The API's address without its path answers, but not as an API."""
    with opened(api, url=api.url) as ca, pytest.raises((NotFound, UnexpectedReply)):
        ca.check()


def test_other_peoples_client_orders_and_revokes(api: CertCentralApi) -> None:
    """The service is an imitation; that ``certmesh`` works with it keeps it true."""
    python = own_environment("certmesh") / "bin" / "python"
    program = Path(__file__).parents[2] / "support" / "run_certmesh.py"

    def run(key: str) -> subprocess.CompletedProcess[str]:
        argv = [str(python), str(program), api.base, str(api.organization)]
        env = {**os.environ, "CM_DIGICERT_API_KEY": key}
        return subprocess.run(
            [*argv, "private_ssl_flex", NAME], env=env, capture_output=True, text=True
        )

    refused = run("not-a-key")
    done = run(api.key)

    assert "DigiCertAuthenticationError" in refused.stderr
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["listed"] == NAME
    assert "not a valid ZIP archive" in told["download"]
    assert "already" in told["again"]
    ((order, issued),) = [(o, i) for o in api.orders.values() for i in o.issues]
    assert (issued.names, issued.revoked, order.dead) == ([NAME, NAME], "superseded", "revoked")
